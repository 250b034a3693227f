"""Summaries from an OpenAI-compatible server: vLLM, SGLang, llama.cpp, `transformers serve`, Inference Providers.

Asks patiently: a server that is busy, slow, broken or gone for a moment is asked again. The key comes from the environment
or from the Hub's login, and goes nowhere but into the header of a request.
"""

import asyncio
import os
import random
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import get_token, parse_ratelimit_headers
from tqdm.auto import tqdm

from trsr.core.answer import Answer
from trsr.core.history import clean
from trsr.errors import EngineError
from trsr.summaries.engines.base import Engine, Request, Sampling, Server

TRIES = 8
LONGEST_WAIT = 60.0  # seconds, unless the server asks for more
LONGEST_ASKED = 300.0
# Of this question alone: too long, or refused by a filter. Asking again would change nothing.
_REJECTED = frozenset({400, 413, 422})
_FATAL = frozenset({401, 402, 403, 404, 405})
# Connections that a client of httpx keeps open: more in one client would be opened anew for every request.
_KEPT_OPEN = 20


class OpenAIEngine(Engine):
    """Speaks `POST /v1/chat/completions`.

    Args:
        model: As the server calls it.
        revision: What the server is known to serve; it cannot be asked.
    """

    batch = 1

    def __init__(self, model: str, revision: str | None, sampling: Sampling, server: Server) -> None:
        self.identity = {"engine": "openai", "model": model, "revision": revision, "sampling": sampling.to_dict()}
        self.workers = server.concurrency
        self.model = model
        self.sampling = sampling
        self.server = server
        self._clients: list[AsyncInferenceClient] = []
        self._token = ""
        self._closed_until = 0.0  # on the loop's clock
        self._jitter = random.Random(sampling.seed)
        self._told: set[str] = set()

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        if not self._clients:
            self._connect()
        return [await self._answer(request) for request in requests]

    async def close(self) -> None:
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

    async def _answer(self, request: Request) -> Answer:
        reason = ""
        for number in range(TRIES):
            await self._open()
            try:
                async with asyncio.timeout(self.server.timeout):
                    return await self._ask(request)
            except OfflineModeIsEnabled:
                raise EngineError("HF_HUB_OFFLINE is set: unset it to ask a server.") from None
            except HfHubHTTPError as error:
                status = error.response.status_code
                reason = self._explain(error)
                if status in _FATAL:
                    raise EngineError(
                        f"The server does not answer for {self.model!r}: {reason}. Check --base-url, the model's name "
                        "and the key (OPENAI_API_KEY; for Inference Providers: hf auth login)."
                    ) from None
                if status in _REJECTED:
                    self._tell(reason)
                    return Answer("", failure=f"rejected ({status})")
                asked_to_wait = _asked_to_wait(error.response.headers)
            except TimeoutError:
                reason, asked_to_wait = f"no answer in {self.server.timeout:g} s", 0.0
            except HTTPError as error:
                reason, asked_to_wait = f"could not be reached ({type(error).__name__})", 0.0
            except (ValueError, TypeError, KeyError, AttributeError, IndexError):
                reason, asked_to_wait = "an answer that cannot be read", 0.0
            if asked_to_wait:
                # For all, not for this request alone: what the others send would be turned away too.
                self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + asked_to_wait)
            elif number < TRIES - 1:
                longest = min(self.server.backoff * 2**number, LONGEST_WAIT)
                await asyncio.sleep(longest * self._jitter.uniform(0.5, 1))
        self._tell(reason)
        return Answer("", failure="unreachable")

    async def _ask(self, request: Request) -> Answer:
        temperature, seed = self.sampling.of(request.attempt)
        said: Any = await next(self._next).chat_completion(
            [{"role": "user", "content": request.text}],
            model=self.model,
            max_tokens=self.sampling.max_new_tokens,
            temperature=temperature,
            seed=seed,
            extra_body=dict(self.sampling.extra) or None,
        )
        first, used = said.choices[0], said.usage
        text = first.message.content or ""
        if not isinstance(text, str):
            raise TypeError("the answer is no text")
        text = text.encode("utf-8", "replace").decode()  # JSON can hold half of a character
        tokens = (int(used.prompt_tokens or 0), int(used.completion_tokens or 0)) if used is not None else (0, 0)
        return Answer(text, clean(str(first.finish_reason or ""))[:40], *tokens)

    async def _open(self) -> None:
        """Wait until the server takes requests again."""
        while (seconds := self._closed_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(seconds)

    def _explain(self, error: HfHubHTTPError) -> str:
        said = clean(error.server_message or error.response.text)[:300].replace(self._token, "***")
        return f"HTTP {error.response.status_code}{': ' + said if said else ''}"

    def _tell(self, reason: str) -> None:
        """Show a reason once."""
        if reason not in self._told and len(self._told) < 10:
            self._told.add(reason)
            tqdm.write(f"No answer from the server: {reason}", file=sys.stderr)


def _token(base_url: str | None) -> str:
    """The Hub's token goes to the Hub alone; other servers get OPENAI_API_KEY, if it is set."""
    host = urlsplit(base_url or "https://router.huggingface.co").hostname or ""
    safe = base_url is None or base_url.startswith("https://")
    if safe and (host == "huggingface.co" or host.endswith((".huggingface.co", ".huggingface.cloud"))):
        if token := get_token():
            return token
        raise EngineError("Inference Providers need a token: log in with hf auth login, or name a --base-url.")
    return os.environ.get("OPENAI_API_KEY") or "no-key"


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
