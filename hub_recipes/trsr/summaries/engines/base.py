"""What answers questions: `extractive`, `transformers:MODEL`, `openai:MODEL`, `vllm:MODEL`; `nano` once it is trained."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trsr.core.answer import Answer
from trsr.core.summarize import SummaryRequest
from trsr.core.summary_prompts import SETS, SummaryPrompts
from trsr.errors import UsageError
from trsr.records.checksums import PREFIX

# A question is put this often before something else stands in for its answer.
ATTEMPTS = 3
# The failure of an answer that may come later. Every other one is the question's own.
UNREACHABLE = "unreachable"
# Greedy decoding would only repeat a bad answer.
RETRY_TEMPERATURE = 0.7

# Sampling that goes with the small prompts; the penalty for models in this process alone.
SMALL: Mapping[str, Any] = {"max_new_tokens": 64, "answer_penalty": 1.3}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. Attempt n of a question has the seed `seed` + n and, from the second on, is never greedy.

    Attributes:
        max_new_tokens: Longest answer.
        temperature: Of the first attempt; 0 is greedy.
        extra: More fields of the request to a server.
        repetition_penalty: Of a model in this process: above 1, tokens that were there before are less likely.
        answer_penalty: The same of the tokens that the answer has already, whatever the prompt has.
    """

    max_new_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    repetition_penalty: float = 1.0
    answer_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or self.seed < 0:
            raise UsageError(
                "An answer needs at least 1 new token, and neither temperature nor seed may be negative; got "
                f"{self.max_new_tokens}, {self.temperature} and {self.seed}."
            )
        for name, penalty in self.penalties().items():
            if penalty <= 0:
                raise UsageError(f"The {name.replace('_', ' ')} must be more than 0, 1 is none; got {penalty}.")

    def of(self, attempt: int) -> tuple[float, int]:
        """Temperature and seed of an attempt, counted from 0."""
        return max(self.temperature, RETRY_TEMPERATURE if attempt else 0.0), self.seed + attempt

    def penalties(self) -> dict[str, float]:
        """Those that are in use, by name."""
        penalties = {"repetition_penalty": self.repetition_penalty, "answer_penalty": self.answer_penalty}
        return {name: penalty for name, penalty in penalties.items() if penalty != 1}

    def to_dict(self) -> dict[str, object]:
        drawn: dict[str, object] = {"temperature": self.temperature} if self.temperature else {}
        more: dict[str, object] = {"extra": dict(self.extra)} if self.extra else {}
        more |= self.penalties()
        kept = {"do_sample": self.temperature > 0, "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        return {**kept, **drawn, **more}


@dataclass(frozen=True, slots=True)
class Request:
    """A question on its way to an engine.

    Attributes:
        key: What its answers are kept under: depends on the text, and on the engine's model, revision and sampling.
        text: The whole message, without the examples before it, in which no text from outside can pass for a control token or open a line.
        attempt: From 0.
    """

    key: str
    question: SummaryRequest
    text: str
    attempt: int = 0


def key_of(identity: Mapping[str, Any], text: str) -> str:
    """What the answers to `text`, a whole conversation, are kept under.

    The engine's name is not in it: a model's answers are the model's. Nor is a model's where its revision is a checksum.
    """
    revision = identity.get("revision")
    named = not str(revision).startswith(PREFIX)
    about = [identity.get("model") if named else None, revision, identity.get("sampling")]
    said = json.dumps([*about, text], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


class Engine(ABC):
    """Answers requests, up to `workers` calls at a time of up to `batch` requests each.

    Attributes:
        identity: Engine, model, revision and sampling: all that its answers depend on beside the prompt.
        prompts: What it is asked.
        cacheable: Whether an answer costs enough to be kept.
        in_process: Whether this machine does the work, so that a few answers tell how long all of them take.
        notice: What a user must know before it is asked; its first summaries are then held against what was asked.
        has_answered: Whether the store of the run holds an answer of it: then one that rejects some questions is at work.
        offline_instructions: If its answers come back through a cache, in a later run: what to do until then.
    """

    identity: Mapping[str, Any]
    prompts: SummaryPrompts = SETS["default"]
    workers: int = 1
    batch: int = 64
    cacheable: bool = True
    in_process: bool = False
    notice: str = ""
    has_answered: bool = False
    offline_instructions: str = ""

    @abstractmethod
    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        """Answer requests, in order; None for one that will be answered by another program, for a later run.

        Raises:
            EngineError: If no request could be answered, now or later.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections; called at the end of a run, also of one that failed."""

    def request(self, question: SummaryRequest) -> Request:
        key = key_of(self.identity, self.prompts.conversation(question))
        return Request(key, question, self.prompts.text(question))


@dataclass(frozen=True, slots=True)
class Server:
    """Where `openai:MODEL` is served, and how hard it may be asked.

    Attributes:
        base_url: Of an OpenAI-compatible server, such as `http://localhost:8000/v1`; None is Inference Providers.
        concurrency: Requests at a time.
        timeout: Seconds until a request is given up.
        backoff: Longest wait before a first retry, in seconds; it doubles with each.
    """

    base_url: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    backoff: float = 1.0

    def __post_init__(self) -> None:
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise UsageError(f"--base-url must begin with http:// or https://, got {self.base_url!r}.")
        if self.concurrency < 1 or self.timeout <= 0:
            raise UsageError(
                f"Concurrency must be at least 1 and the time-out more than 0 seconds, got {self.concurrency} and "
                f"{self.timeout}."
            )
