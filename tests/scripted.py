"""Language models that follow a script: an engine in this process, and a server that speaks the OpenAI protocol."""

import asyncio
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trsr.core.answer import Answer
from trsr.summaries.engines.base import Engine, Sampling

WORDS = "sea stories mystery travel baking music history poetry chess gardens trains maps".split()


def summary(prompt: str, seed: int = 0) -> str:
    """A good answer, different for each prompt and seed."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return f"The user likes {WORDS[digest[0] % 12]} and {WORDS[digest[1] % 12]}, case {digest[2:8].hex()}."


def share(prompt: str, parts: int) -> bool:
    """Whether a prompt is in one of so many parts of all prompts."""
    return hashlib.sha256(prompt.encode()).digest()[-1] % parts == 0


def moody(prompt: str, seed: int) -> Answer:
    """Good answers, some of them only when asked again, some never."""
    if share(prompt, 31):
        return Answer("I'm sorry, I cannot help with that.", "stop", 10, 8)
    if share(prompt, 7) and seed == 0:
        return Answer("The user likes", "length", 10, 20)
    return Answer(summary(prompt, seed), "stop", 10, 20)


class ScriptedEngine(Engine):
    """Answers by a function of (prompt, seed), at once.

    Args:
        log: File that gets a line a request, before it is answered.

    Attributes:
        asked: (key, attempt) of every request.
        most: The most requests that were under way at a time.
    """

    batch = 1

    def __init__(self, answer=moody, workers: int = 8, log: Path | None = None, pause=None, **sampling) -> None:
        self.sampling = Sampling(**sampling)
        self.identity = {
            "engine": "scripted",
            "model": "none",
            "revision": None,
            "sampling": self.sampling.to_dict(),
        }
        self.workers = workers
        self.asked: list[tuple[str, int]] = []
        self.kinds: Counter[str] = Counter()
        self.most = self.going = 0
        self._answer = answer
        self._pause = pause or (lambda: asyncio.sleep(0))
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None

    async def answers(self, requests):
        made = []
        for request in requests:
            self.asked.append((request.key, request.attempt))
            self.kinds[request.question.kind] += 1
            if self._log is not None:
                os.write(self._log, f"{request.key} {request.attempt}\n".encode())
            self.going += 1
            self.most = max(self.most, self.going)
            await self._pause()
            self.going -= 1
            made.append(self._answer(request.text, self.sampling.of(request.attempt)[1]))
        return made


class ChatServer:
    """An OpenAI-compatible server on the loopback; use as `with ChatServer(...) as server`.

    Args:
        answer: Function of (prompt, seed); an Answer, or the message as the server sends it.
        fault: Function of (prompt, how often this prompt and seed came before); a kind of fault or None: a status such as
            429, one with what the server says or all of its body, "drop" (the connection is closed), "slow" (no answer until the server
            closes), "garbage" (no JSON), "empty" (JSON without choices), "login" (a redirection to a page).
        refuse: Function of a request; the same kinds of faults.
        models: Names that it lists; without any it has no list.
        busy: Seconds that an answer takes a server that gives one at a time, first come first served; 0 takes all at once.

    Attributes:
        log: (prompt, seed, what was done: "answered" or the fault) of every request.
        bodies: Every request as it came, with its headers.
        retry_after: Seconds that a 429 asks to wait.
        early: Requests that came while the server had asked for silence.
        most: The most requests under way at a time.
    """

    def __init__(
        self,
        answer=moody,
        fault=lambda prompt, times: None,
        retry_after: float = 0,
        refuse=lambda body: None,
        models: Sequence[str] = (),
        busy: float = 0,
    ) -> None:
        self.answer, self.fault, self.retry_after, self.refuse = answer, fault, retry_after, refuse
        self.models, self.busy = models, busy
        self.log: list[tuple[str, int, object]] = []
        self.bodies: list[tuple[dict, dict]] = []
        self.early = self.most = self.going = 0
        self._times: Counter[tuple[str, int]] = Counter()
        self._silent_until = 0.0
        self._lock, self._serving = threading.Lock(), threading.Lock()
        self._closing = threading.Event()

    def __enter__(self):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.chat = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answered(self) -> Counter:
        """How often each prompt and seed was answered in full."""
        return Counter((prompt, seed) for prompt, seed, done in self.log if done == "answered")

    def take(self, body: dict, headers: dict):
        *_, message = body["messages"]
        place = message["content"], body["seed"]
        with self._lock:
            self.going += 1
            self.most = max(self.most, self.going)
            fault = self.fault(message["content"], self._times[place]) or self.refuse(body)
            self._times[place] += 1
            self.log.append((*place, fault or "answered"))
            self.bodies.append((body, headers))
            self.early += time.monotonic() < self._silent_until
            if fault == 429 and self.retry_after:
                self._silent_until = time.monotonic() + 0.9 * self.retry_after
        if fault == "slow":
            self._closing.wait(30)
        if self.busy:
            with self._serving:
                time.sleep(self.busy)
        with self._lock:
            self.going -= 1
        return fault, self.answer(*place)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    chat: ChatServer

    def handle_error(self, request, client_address):
        """A client that went away is nothing to speak of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault, answer = self.server.chat.take(body, dict(self.headers))
        if fault in ("drop", "slow"):
            self.close_connection = True
            return
        status, said = fault if isinstance(fault, tuple) else (fault, f"scripted {fault}")
        whole = isinstance(said, dict) and "detail" in said  # as FastAPI says it
        status, said = status if isinstance(status, int) else 200, said if whole else {"error": said}
        if fault is None:
            message, answer = (answer, Answer("")) if isinstance(answer, dict) else ({"content": answer.text}, answer)
            usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
            choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": answer.finish_reason}
            said = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            said |= {"choices": [choice], "usage": {**usage, "total_tokens": sum(usage.values())}}
        sent = b"<html>no JSON" if fault == "garbage" else json.dumps(said).encode()
        self.send_response(302 if fault == "login" else status)
        if fault == "login":
            self.send_header("Location", "/login")
        if status == 429:
            self.send_header("Retry-After", str(self.server.chat.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def do_GET(self):
        models = self.server.chat.models if self.path == "/v1/models" else ()
        page = b"<!doctype html><title>Log in</title>"
        if models:
            page = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in models]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if models else "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass
