"""Summaries from an OpenAI-compatible server: vLLM, SGLang, llama.cpp, `transformers serve`, Inference Providers.

Asks patiently: a server that is busy, slow, broken or gone for a moment is asked again, and no more at a time than it can
answer (`in_flight`). What no second try would change ends the run in one line; the first question is put alone, so that it shows
before others are sent. The key comes from the environment or from the Hub's login, and goes nowhere but into the header of a
request.
"""

import asyncio
import random
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import get_async_session, get_token, parse_ratelimit_headers
from tqdm.auto import tqdm

from trsr.core.answer import Answer
from trsr.core.history import clean
from trsr.errors import EngineError, UsageError
from trsr.report.redaction import address, redacted
from trsr.server_key import server_key
from trsr.summaries.engines.base import UNREACHABLE, Engine, Request, Sampling, Server
from trsr.summaries.engines.in_flight import InFlight

TRIES = 8
LONGEST_WAIT = 60.0  # seconds, unless the server asks for more
LONGEST_ASKED = 300.0
PATIENCE = 900.0  # seconds that a server may ask a question to wait in all, before waits count as tries
SHORTEST_WAIT = 1.0  # seconds that a wait which was asked for counts at least, however short it is
# Of this question alone: too long, or refused by a filter. Asking again would change nothing.
_REJECTED = frozenset({400, 413, 422})
# How servers say that a prompt is longer than the context they were started with; in order: OpenAI, vLLM and llama-cpp-python,
# SGLang, llama.cpp, vLLM again, TGI.
_TOO_LONG = re.compile(
    r"maximum context length|model's context length|available context size|maximum model length|inputs\W+must have less than",
    re.IGNORECASE,
)
# llama-cpp-python says so with status 500 of a field that it cannot read.
_INVALID = re.compile(r"\d+ validation errors?\b")
# Statuses below 500 that pass: time-out, conflict, too early, too many requests. All others are here to stay.
_PASSING = frozenset({408, 409, 425, 429})
_PERMANENT = frozenset({501, 505})
# So many different questions rejected, and none answered, or so many pages of HTML: it is not the question.
REJECTIONS = 5
UNREADABLE = 3
# Connections that a client of httpx keeps open: more in one client would be opened again for every request.
_KEPT_OPEN = 20
_LISTING = 10.0  # seconds for the names of its models


class OpenAIEngine(Engine):
    """Speaks `POST /v1/chat/completions`.

    Args:
        model: As the server calls it.
        revision: What the server is known to serve; it cannot be asked.
    """

    batch = 1

    def __init__(self, model: str, revision: str | None, sampling: Sampling, server: Server) -> None:
        if penalties := sampling.penalties():
            raise UsageError(
                f"--{min(penalties).replace('_', '-')} is for models in this process; a server is asked for one as it calls it: "
                "--extra-body '{\"repetition_penalty\": 1.1}' for vLLM and SGLang, '{\"repeat_penalty\": 1.1}' for llama.cpp."
            )
        self.identity = {"engine": "openai", "model": model, "revision": revision, "sampling": sampling.to_dict()}
        self.workers = server.concurrency
        self.model = model
        self.sampling = sampling
        self.server = server
        if revision is None:
            self.bound_server, self.same_model = _bound(server.base_url), server.same_model
        self._clients: list[AsyncInferenceClient] = []
        self._token = ""
        self._closed_until = 0.0  # on the loop's clock
        self._patient = True
        self._jitter = random.Random(sampling.seed)
        # Models that reason count their reasoning too, and some servers take no other name.
        self._limit = "max_completion_tokens" if "max_completion_tokens" in sampling.extra else "max_tokens"

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        if not self._clients:
            self._connect()
        return [await self._in_turn(request) for request in requests]

    async def close(self, succeeded: bool) -> None:
        for client in self._clients:
            await client.close()
        self._clients = []

    def _connect(self) -> None:
        self._token = _token(self.server.base_url)
        self._clients = [
            AsyncInferenceClient(base_url=self.server.base_url, api_key=self._token)
            for _ in range(0, self.workers, _KEPT_OPEN)
        ]
        self._next = cycle(self._clients)
        self._alone = asyncio.Lock()
        self._in_flight = InFlight(self.workers, self.server.timeout)
        self._tried = False  # whether the server has been seen to take questions
        self._rejected = 0

    async def _in_turn(self, request: Request) -> Answer:
        """Answer a question; alone, until the server has been tried."""
        async with self._alone:
            if not self._tried:
                answer = await self._answer(request)
                self._tried = not answer.failure.startswith("rejected")
                if self._tried and self.server.base_url:
                    await self._look_for_model(self.server.base_url)
                self._rejected += not self._tried
                if self._rejected == REJECTIONS and not self.has_answered:
                    raise self._wrong(f"rejects every question ({answer.text})")
                return answer
        return await self._answer(request)

    async def _answer(self, request: Request) -> Answer:
        reason, status = "", 0
        tries, waited, warned = 0, 0.0, False
        while tries < TRIES:
            tries += 1
            await self._open()
            asked_to_wait = 0.0
            try:
                async with self._in_flight.turn():
                    answer = await self._ask(request)
                self._patient = True
                return answer
            except OfflineModeIsEnabled:
                raise EngineError(
                    "HF_HUB_OFFLINE is set, and with it huggingface_hub sends no request to any server, not even of this machine: "
                    "unset it for this command. A dataset in a folder is read without the Hub all the same."
                ) from None
            except HfHubHTTPError as error:
                status = error.response.status_code
                reason, said = self._explain(error), _said(error)
                if status in _REJECTED and self._takes_another_limit(said):
                    continue
                if status in _REJECTED and _TOO_LONG.search(said):
                    return Answer(reason, failure="prompt too long")
                if status in _REJECTED or (status == 500 and _INVALID.match(said)):
                    return Answer(reason, failure=f"rejected ({status})")
                if status in _PERMANENT or (status < 500 and status not in _PASSING):
                    raise self._wrong(f"does not answer for {self.model!r}: {reason}") from None
                asked_to_wait = _asked_to_wait(error.response.headers)
            except TimeoutError:
                reason, status = f"no answer in {self.server.timeout:g} s", 0
            except HTTPError as error:
                reason, status = f"could not be reached ({type(error).__name__})", 0
                if type(error).__name__ == "TooManyRedirects":
                    raise self._wrong("sends requests round in circles") from None
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                reason, status = self._unreadable(error), 200
                if tries == UNREADABLE and not self._tried:
                    raise self._wrong(f"gives {reason}") from None
            if tries == 1 and not (warned or self._tried):
                warned = True
                _say(f"No answer from {_address(self.server.base_url)} yet: {reason}. Trying {TRIES} times.")
            if asked_to_wait:
                # For all, not for this request alone: what the others send would be turned away too.
                self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + asked_to_wait)
                waited += max(asked_to_wait, SHORTEST_WAIT)
                # The server said when to come back: that was no try. But where patience has run out once, its limit is no passing one.
                self._patient &= waited <= PATIENCE
                if self._patient:
                    tries -= 1
            elif tries < TRIES:
                longest = min(self.server.backoff * 2 ** (tries - 1), LONGEST_WAIT)
                await asyncio.sleep(longest * self._jitter.uniform(0.5, 1))
        if not self._tried and not status:
            raise self._wrong(f"is {UNREACHABLE}, tried {TRIES} times: {reason}")
        return Answer(reason, failure=UNREACHABLE)

    async def _ask(self, request: Request) -> Answer:
        temperature, seed = self.sampling.of(request.attempt)
        extra_body = dict(self.sampling.extra)
        if self._limit == "max_completion_tokens":
            extra_body.setdefault(self._limit, self.sampling.max_new_tokens)
        said: Any = await next(self._next).chat_completion(
            [
                {"role": role, "content": text}
                for role, text in zip(
                    cycle(("user", "assistant")),
                    (*self.prompts.turns(request.question.kind), request.text),
                    strict=False,
                )
            ],
            model=self.model,
            max_tokens=self.sampling.max_new_tokens if self._limit == "max_tokens" else None,
            temperature=temperature,
            seed=seed,
            extra_body=extra_body or None,
        )
        first, used = said.choices[0], said.usage
        text = _text(first.message)
        text = text.encode("utf-8", "replace").decode()  # JSON can hold half of a character
        tokens = (
            (_token_count(used.prompt_tokens), _token_count(used.completion_tokens)) if used is not None else (0, 0)
        )
        return Answer(text, clean(str(first.finish_reason or ""))[:40], *tokens)

    async def _look_for_model(self, base_url: str) -> None:
        """Say so where the server lists other models: llama.cpp's answer under any name, with the one they have."""
        with suppress(HTTPError, TimeoutError, ValueError, TypeError, KeyError, AttributeError):
            async with asyncio.timeout(_LISTING), get_async_session() as session:
                headers = {"Authorization": f"Bearer {self._token}"}
                listed = (await session.get(f"{_root(base_url)}/models", headers=headers)).json()["data"]
            names = [redacted(model["id"], self._token, longest=80) for model in listed]
            tagged = (f"{self.model}:", f"{self.model}@")  # a tag or a revision behind the name
            if names and not any(name == self.model or name.startswith(tagged) for name in names):
                shown = ", ".join(map(repr, names[:3])) + " and more" * (len(names) > 3)
                _say(
                    f"The server lists {shown}, and not {self.model!r}: it may answer with another model than the one that the "
                    "provenance names."
                )

    def _takes_another_limit(self, said: str) -> bool:
        """Whether a refusal asks for the newer name of the longest answer, which is used from then on."""
        if self._limit == "max_completion_tokens" or "max_completion_tokens" not in said:
            return False
        self._limit = "max_completion_tokens"
        return True

    def _wrong(self, what: str) -> EngineError:
        """What will not pass: asking again would change nothing."""
        return EngineError(
            f"The server {address(self.server.base_url or '') or 'of Inference Providers'} {what}. Check --base-url (most end in /v1), the "
            "model's name, the options (--extra-body) and the key (OPENAI_API_KEY; for Inference Providers: hf auth login)."
        )

    def _unreadable(self, error: Exception) -> str:
        said = redacted(getattr(error, "doc", ""), self._token, longest=80)  # of a JSONDecodeError
        if said.startswith("<"):
            return f"a page of HTML in place of an answer ({said!r})"
        return f"an answer that cannot be read{f' ({said!r})' if said else ''}"

    async def _open(self) -> None:
        """Wait until the server takes requests again."""
        while (seconds := self._closed_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(seconds)

    def _explain(self, error: HfHubHTTPError) -> str:
        said = redacted(_said(error), self._token, longest=300)
        return f"HTTP {error.response.status_code}{': ' + said if said else ''}"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _said(error: HfHubHTTPError) -> str:
    """What a server says of a fault, in OpenAI's form or FastAPI's, or else whatever it sends."""
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        body = error.response.json()
        fault = body.get("error", body)
        return clean(fault.get("message") or fault["detail"])
    return clean(error.server_message or error.response.text)


def _text(message: Any) -> str:
    """What a message says; of one that only reasons, its reasoning as an open block.

    Raises:
        TypeError: If its content is neither text nor a list of parts.
    """
    content = message.content
    if isinstance(content, list):
        return "".join(map(_part, content))
    if content is not None and not isinstance(content, str):
        raise TypeError(f"the content is a {type(content).__name__}")
    reasoning = message.reasoning or getattr(message, "reasoning_content", None)
    return content or (f"<think>{reasoning}" if reasoning else "")


def _token_count(value: Any) -> int:
    """A number of tokens as a server counts them; 0 where it gives none, or one that cannot be true."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < 2**53 else 0


def _part(part: Any) -> str:
    """A part of a content: its text, or its reasoning as a closed block."""
    if part["type"] == "thinking":
        return "<think></think>"
    return str(part["text"]) if part["type"] in ("text", "output_text") else ""


def _root(base_url: str) -> str:
    """The address that `/models` comes after; the client takes a base URL with and without its version or endpoint."""
    return f"{base_url.rstrip('/').removesuffix('/chat/completions').removesuffix('/v1')}/v1"


def _token(base_url: str | None) -> str:
    """The Hub's token goes to the Hub alone; other servers get OPENAI_API_KEY, if it is set.

    Raises:
        EngineError: If the Hub's token is missing.
        UsageError: If no header can hold the key.
    """
    host = urlsplit(base_url or "https://router.huggingface.co").hostname or ""
    safe = base_url is None or base_url.startswith("https://")
    if safe and (host == "huggingface.co" or host.endswith((".huggingface.co", ".huggingface.cloud"))):
        if token := get_token():
            return token
        raise EngineError("Inference Providers need a token: log in with hf auth login, or name a --base-url.")
    return server_key() or "no-key"


def _asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks us to wait; 0 if it does not say."""
    limits = parse_ratelimit_headers(headers)
    said = headers.get("Retry-After", "").strip()
    seconds = float(limits.reset_in_seconds) if limits and not limits.remaining else 0.0
    if said:
        try:
            seconds = max(seconds, float(said))
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
            except ValueError:
                return seconds
    return min(max(seconds, 0.0), LONGEST_ASKED)


def _address(base_url: str | None) -> str:
    """A server as messages show it, without a password."""
    return address(base_url).rstrip("/") if base_url else "Inference Providers"


def _bound(base_url: str | None) -> str:
    """How a server is told from others: the same with each base URL that the client takes for it."""
    return _root(_address(base_url)) if base_url else _address(base_url)
