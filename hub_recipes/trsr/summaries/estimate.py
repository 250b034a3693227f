"""Estimate the cost of summaries by a run with a fake engine, which returns made-up answers.

So the number of calls comes from the code of a real run: blocks, duplicates, shared first blocks, stored answers.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from random import Random

from trsr.core.answer import Answer
from trsr.core.summarize import METHODS
from trsr.errors import UsageError
from trsr.progress import loading
from trsr.summaries.accept import LONGEST
from trsr.summaries.continuation import PreviousSummaries
from trsr.summaries.engines.base import Engine, Request
from trsr.summaries.event_loop import run_to_end
from trsr.summaries.run import check_numbers, identity, prepare, read, strategies
from trsr.summaries.scheduler import Scheduler
from trsr.summaries.store import Store

CHARACTERS = 4  # of an average token of English text


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices and speed of an engine; None if not known.

    Attributes:
        price_in, price_out: Price of a million tokens of prompts and of answers, in any currency.
        calls_per_second: Of the whole engine; `concurrency` / `latency` by default.
        latency: Seconds per call.
    """

    price_in: float | None = None
    price_out: float | None = None
    calls_per_second: float | None = None
    concurrency: int = 32
    latency: float | None = None

    def __post_init__(self) -> None:
        values = [self.price_in, self.price_out, self.calls_per_second, self.latency]
        rates = [value for value in values if value is not None]
        if any(value < 0 or not math.isfinite(value) for value in rates) or 0 in (self.calls_per_second, self.latency):
            raise UsageError(
                f"Prices must not be negative, calls a second and latency must be more than 0, and all finite; got {self}."
            )

    def seconds(self, calls: int) -> float | None:
        rate = self.calls_per_second or (self.concurrency / self.latency if self.latency else None)
        return round(calls / rate, 1) if rate else None

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        if self.price_in is None or self.price_out is None:
            return None
        return round((tokens_in * self.price_in + tokens_out * self.price_out) / 1e6, 4)


def token_count(tokenizer: str | None = None) -> Callable[[str], int]:
    """A function that counts the tokens of a text: with a tokenizer (folder or Hub id), or as a quarter of its characters."""
    if tokenizer is None:
        return lambda text: -(-len(text) // CHARACTERS)
    from transformers import AutoTokenizer

    with loading(tokenizer):
        encode = AutoTokenizer.from_pretrained(tokenizer).encode
    return lambda text: len(encode(text, add_special_tokens=False))


class _FakeEngine(Engine):
    """Answers every question with its key and filler words, and counts calls and tokens.

    Attributes:
        sampled: A uniform random sample of at most `sample` requests.
    """

    batch = 256

    def __init__(self, like: Engine, answer_tokens: int, count: Callable[[str], int], sample: int) -> None:
        self.identity, self.prompts = like.identity, like.prompts
        self.calls = self.tokens_in = 0
        self.sampled: list[Request] = []
        self._sample, self._random = sample, Random(0)
        # All words differ, because repeated words would be rejected as a loop.
        words = map("".join, product("abcdefghij", repeat=4))
        self._filling = " ".join(islice(words, min(answer_tokens * CHARACTERS, LONGEST - 100) // 5))
        self._count = count

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        for number, request in enumerate(requests, self.calls):
            slot = number if number < self._sample else self._random.randrange(number + 1)
            if slot < self._sample:
                self.sampled[slot : slot + 1] = [request]
        self.calls += len(requests)
        self.tokens_in += sum(self._count(self.prompts.conversation(request.question)) for request in requests)
        return [Answer(f"{self.prompts.form} {request.key} {self._filling}".strip()) for request in requests]


def estimate(
    source: str,
    engine: Engine,
    rates: Rates,
    *,
    methods: tuple[str, ...] = METHODS,
    block_size: int = 5,
    max_blocks: int = 5,
    revision: str | None = None,
    store: Path | None = None,
    since: str | None = None,
    caches: Sequence[str] = (),
    limit: int = 0,
    answer_tokens: int = 160,
    count: Callable[[str], int] | None = None,
    measure: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Estimate calls, tokens, seconds and price of each method, and of all methods together. Nothing is stored.

    The calls are those of a run in which no question is retried and no two different questions get the same answer.

    Args:
        source, methods, block_size, max_blocks, revision, store, since, caches, limit: As for `summarize_dataset`.
        answer_tokens: Length of an answer, also where it is part of the next question.
        count: Counts the tokens of a text; by default as a quarter of its characters.
        measure: Number of questions to ask the engine, to measure the seconds per call; for engines in this process.

    Raises:
        UsageError: If a number is out of its range.
    """
    check_numbers(block_size, max_blocks, limit)
    if answer_tokens < 1:
        raise UsageError(f"An answer has at least 1 token, got {answer_tokens} (--answer-tokens).")
    texts, splits = read(source, revision, limit)
    wanted = {**identity(engine), "block_size": block_size, "max_blocks": max_blocks}
    costs: dict[str, dict[str, float | None]] = {}
    measure = 0 if rates.seconds(1) else measure
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder) / "known.sqlite")) as prepared_store:
        if store is not None and store.exists():
            with closing(Store(store)) as opened_store:
                opened_store.copy_to(prepared_store)
        prepare(prepared_store, engine, caches, texts)
        for group in dict.fromkeys([*((method,) for method in methods), methods]):
            earlier = PreviousSummaries(since, texts, group, wanted) if since else None
            fake = _FakeEngine(engine, answer_tokens, count or token_count(), measure)
            with _copied(prepared_store, Path(folder) / "run.sqlite") as copy:
                scheduler = Scheduler(fake, copy, keep_going=True)
                scheduler.run(strategies(splits, texts, group, block_size, max_blocks, earlier), lambda _: None)
            calls, tokens_in, tokens_out = fake.calls, fake.tokens_in, fake.calls * answer_tokens
            costs[" + ".join(group)] = {
                "calls": calls,
                "input_tokens": tokens_in,
                "output_tokens": tokens_out,
                "seconds": rates.seconds(calls),
                "price": rates.price(tokens_in, tokens_out),
            }
    if fake.sampled:
        seconds = _seconds_a_call(engine, fake.sampled)
        for cost in costs.values():
            cost |= {"seconds": round(seconds * (cost["calls"] or 0), 1), "seconds_measured_on": len(fake.sampled)}
    return costs


def _seconds_a_call(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds per call of the engine on this machine, without what it does once: loading its model, and with two questions
    of a kind the first time, probing it and computing their common prefix.
    """
    kinds = dict.fromkeys(request.question.kind for request in requests)
    first = [
        sample for kind in kinds for sample in [request for request in requests if request.question.kind == kind][:2]
    ]

    async def measure_calls() -> float:
        await engine.answers(first)
        start = time.perf_counter()
        await engine.answers(requests)
        return (time.perf_counter() - start) / len(requests)

    return run_to_end(measure_calls())


@contextmanager
def _copied(store: Store, path: Path) -> Iterator[Store]:
    copy = Store(path)
    store.copy_to(copy)
    try:
        yield copy
    finally:
        copy.close()
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
