"""The interface of engines, which answer questions, and their requests, sampling and keys."""

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trsr.core.answer import Answer
from trsr.core.summarize import SummaryRequest
from trsr.core.summary_prompts import SETS, SummaryPrompts
from trsr.errors import UsageError
from trsr.records.checksums import PREFIX
from trsr.report.redaction import address

# Number of attempts at a question before the extractive summarizer answers it.
ATTEMPTS = 3
# The failure of a request that may succeed later. Every other failure is due to the question.
UNREACHABLE = "unreachable"
# Greedy decoding would only repeat a rejected answer.
RETRY_TEMPERATURE = 0.7
# Names of fields that hold a credential, in lower case with underscores; `max_tokens`, `eos_token` and the like are none.
_CREDENTIAL = re.compile(
    r"(.*_)?(password|passwd|passphrase|secret|auth|authorization|credentials?|bearer|cookie)(_.*)?|"
    r"(.*_)?(api|access|private|secret)_?key|((.*_)?(access|api|auth|bearer|hf|id|refresh|session)_?)?token"
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled. Attempt n of a question has the seed `seed` + n; from the second on, attempts are never greedy.

    Attributes:
        max_new_tokens: Length of the longest answer.
        temperature: Of the first attempt; 0 is greedy.
        extra: More fields of the request to a server.
        repetition_penalty: For a model in this process: above 1, tokens that occurred before are less likely.
        answer_penalty: The same for tokens that occurred in the answer, whatever the prompt holds.
    """

    max_new_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    repetition_penalty: float = 1.0
    answer_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or not 0 <= self.temperature < math.inf or self.seed < 0:
            raise UsageError(
                "An answer needs at least 1 new token, temperature and seed must be 0 or more, and the temperature finite; got "
                f"{self.max_new_tokens}, {self.temperature} and {self.seed}."
            )
        for name, penalty in self.penalties().items():
            if not 0 < penalty < math.inf:
                raise UsageError(
                    f"The {name.replace('_', ' ')} must be more than 0 and finite, 1 is none; got {penalty}."
                )
        if credential := _credential_in(self.extra):
            raise UsageError(
                f"--extra-body is recorded with the summaries, and published with them: it may not hold {credential!r}, which looks like a "
                "credential. Set the server's key in the environment variable OPENAI_API_KEY (for Inference Providers: hf auth login)."
            )

    def of(self, attempt: int) -> tuple[float, int]:
        """Temperature and seed of an attempt, counted from 0."""
        return max(self.temperature, RETRY_TEMPERATURE if attempt else 0.0), self.seed + attempt

    def penalties(self) -> dict[str, float]:
        """The penalties that are in use, by name."""
        penalties = {"repetition_penalty": self.repetition_penalty, "answer_penalty": self.answer_penalty}
        return {name: penalty for name, penalty in penalties.items() if penalty != 1}

    def to_dict(self) -> dict[str, object]:
        drawn: dict[str, object] = {"temperature": self.temperature} if self.temperature else {}
        optional: dict[str, object] = {"extra": dict(self.extra)} if self.extra else {}
        optional |= self.penalties()
        settings = {"do_sample": self.temperature > 0, "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        return {**settings, **drawn, **optional}


def _credential_in(values: object) -> str | None:
    """The first name of a field, at any depth, that looks like that of a credential."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            words = re.sub(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).lower()
            if _CREDENTIAL.fullmatch(words):
                return str(name)
            if credential := _credential_in(value):
                return credential
    elif isinstance(values, (list, tuple)):
        return next(filter(None, map(_credential_in, values)), None)
    return None


@dataclass(frozen=True, slots=True)
class Request:
    """A question to an engine.

    Attributes:
        key: Key of its answers in the store; it depends on the text and on the engine's model, revision and sampling.
        text: The whole message, without the examples before it. No text from data in it can act as a control token or start a
            line.
        attempt: Number of the attempt, from 0.
    """

    key: str
    question: SummaryRequest
    text: str
    attempt: int = 0


def key_of(identity: Mapping[str, Any], text: str) -> str:
    """The key of the answers to `text`, a whole conversation, in the store.

    It does not depend on the engine's name, because the same model gives the same answers, nor on the model's name if the
    revision is a checksum.
    """
    revision = identity.get("revision")
    named = not str(revision).startswith(PREFIX)
    parts = [identity.get("model") if named else None, revision, identity.get("sampling")]
    if named and "adapter" in identity:  # a checksum of a model covers its adapter
        parts.append(identity["adapter"]["revision"])
    content = json.dumps([*parts, text], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class Engine(ABC):
    """Answers requests, up to `workers` calls at a time of up to `batch` requests each.

    Attributes:
        identity: Engine, model, revision and sampling: everything that its answers depend on besides the prompt.
        prompts: The prompts of its questions.
        cacheable: Whether answers cost enough to be stored.
        in_process: Whether this machine computes the answers, so that the time of a few predicts that of all.
        notice: A warning to the user before the run; with one, the first summaries are compared with their questions.
        has_answered: Whether the store of the run holds an answer of it: rejected questions then do not mean that it is down.
        bound_server: The server whose word is all that says which model it has, so that a store is bound to it; empty for none.
        same_model: Whether that server is known to have the model that those before it had.
        offline_instructions: For an engine that gets its answers from another program, in a later run: what to do until then.
        questions: The file to which such an engine writes its questions.
    """

    identity: Mapping[str, Any]
    prompts: SummaryPrompts = SETS["default"]
    workers: int = 1
    batch: int = 64
    cacheable: bool = True
    in_process: bool = False
    notice: str = ""
    has_answered: bool = False
    bound_server: str = ""
    same_model: bool = False
    offline_instructions: str = ""
    questions: Path | None = None

    @abstractmethod
    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        """Answer requests, in order; None for a request that another program will answer for a later run.

        Raises:
            EngineError: If no request could be answered, now or later.
        """

    async def close(self, succeeded: bool) -> None:  # noqa: B027 - most engines have nothing to close
        """Close connections and files; called at the end of every run, also of one that did not succeed."""

    def request(self, question: SummaryRequest) -> Request:
        key = key_of(self.identity, self.prompts.conversation(question))
        return Request(key, question, self.prompts.text(question))


@dataclass(frozen=True, slots=True)
class Server:
    """The server of `openai:MODEL`, and limits for requests to it.

    Attributes:
        base_url: Of an OpenAI-compatible server, such as `http://localhost:8000/v1`; None is Inference Providers.
        concurrency: Number of concurrent requests.
        timeout: Seconds after which a request fails.
        backoff: Longest wait before the first retry, in seconds; it doubles with each retry.
        same_model: Whether it is known to have the model of the servers whose answers are in the store of a run.
    """

    base_url: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    backoff: float = 1.0
    same_model: bool = False

    def __post_init__(self) -> None:
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise UsageError(f"--base-url must begin with http:// or https://, got {address(self.base_url)!r}.")
        if self.base_url is not None and not _names_a_host(self.base_url):
            raise UsageError(
                f"--base-url must name a host, and at most a port up to 65535, as in http://localhost:8000/v1; got "
                f"{address(self.base_url)!r}."
            )
        if self.concurrency < 1 or not 0 < self.timeout < math.inf:
            raise UsageError(
                f"Concurrency must be at least 1 and the time-out a finite number of more than 0 seconds, got {self.concurrency} and "
                f"{self.timeout}."
            )


def _names_a_host(url: str) -> bool:
    """Whether an address has a host, a port that can be one, if any, and no blanks or characters that cannot be shown."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:  # of a port or a bracket
        return False
