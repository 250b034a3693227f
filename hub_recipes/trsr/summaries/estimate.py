"""What summaries would cost: the run itself, with an engine that makes answers up.

Whatever decides about calls (blocks, duplicates, shared first blocks, what is kept already) is thus the same code.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from random import Random

from trsr.core.answer import Answer
from trsr.core.summarize import METHODS
from trsr.errors import UsageError
from trsr.progress import loading
from trsr.summaries.accept import LONGEST
from trsr.summaries.caches import import_cache
from trsr.summaries.continuation import PreviousSummaries
from trsr.summaries.engines.base import Engine, Request
from trsr.summaries.event_loop import run_to_end
from trsr.summaries.run import identity, read, strategies
from trsr.summaries.scheduler import Scheduler
from trsr.summaries.store import Store

CHARACTERS = 4  # a token of English


@dataclass(frozen=True, slots=True)
class Rates:
    """What is known of prices and speed; None for what is not.

    Attributes:
        price_in, price_out: Of a million tokens, in any currency.
        calls_per_second: Of the whole engine; `concurrency` / `latency` if it is not given.
        latency: Seconds a call.
    """

    price_in: float | None = None
    price_out: float | None = None
    calls_per_second: float | None = None
    concurrency: int = 32
    latency: float | None = None

    def __post_init__(self) -> None:
        given = [self.price_in, self.price_out, self.calls_per_second, self.latency]
        if any(one is not None and one < 0 for one in given) or 0 in (self.calls_per_second, self.latency):
            raise UsageError(
                f"Prices must not be negative, calls a second and latency must be more than 0; got {self}."
            )

    def seconds(self, calls: int) -> float | None:
        rate = self.calls_per_second or (self.concurrency / self.latency if self.latency else None)
        return round(calls / rate, 1) if rate else None

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        if self.price_in is None or self.price_out is None:
            return None
        return round((tokens_in * self.price_in + tokens_out * self.price_out) / 1e6, 4)


def token_count(tokenizer: str | None = None) -> Callable[[str], int]:
    """Counts the tokens of a text: as a tokenizer does (folder or Hub id), or as a quarter of its characters."""
    if tokenizer is None:
        return lambda text: -(-len(text) // CHARACTERS)
    from transformers import AutoTokenizer

    with loading(tokenizer):
        encode = AutoTokenizer.from_pretrained(tokenizer).encode
    return lambda text: len(encode(text, add_special_tokens=False))


class _MadeUp(Engine):
    """Answers every question with its key, and counts.

    Attributes:
        drawn: At most `sample` of the questions, each as likely as any other.
    """

    batch = 256

    def __init__(self, like: Engine, answer_tokens: int, count: Callable[[str], int], sample: int) -> None:
        self.identity, self.prompts = like.identity, like.prompts
        self.calls = self.tokens_in = 0
        self.drawn: list[Request] = []
        self._sample, self._random = sample, Random(0)
        # Different words: a repeated one would be taken for a loop.
        words = map("".join, product("abcdefghij", repeat=4))
        self._filling = " ".join(islice(words, min(answer_tokens * CHARACTERS, LONGEST - 100) // 5))
        self._count = count

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        for number, request in enumerate(requests, self.calls):
            place = number if number < self._sample else self._random.randrange(number + 1)
            if place < self._sample:
                self.drawn[place : place + 1] = [request]
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
    """Calls, tokens, seconds and price of each method, and of all together. Nothing is kept, and nothing is asked but what
    `measure` says.

    The calls are those of a run in which no answer is put again and no two different questions get the same answer.

    Args:
        source, methods, block_size, max_blocks, revision, store, since, caches, limit: As of `summarize_dataset`.
        answer_tokens: Of one answer; what a summary adds to the next question is taken to be as long.
        count: Tokens of a text; by default a quarter of its characters.
        measure: Questions to put to the engine, for the seconds a call; for engines in this process.
    """
    texts, splits = read(source, revision, limit)
    wanted = {**identity(engine), "block_size": block_size, "max_blocks": max_blocks}
    told: dict[str, dict[str, float | None]] = {}
    measure = 0 if rates.seconds(1) else measure
    with tempfile.TemporaryDirectory() as folder:
        known = Store(Path(folder) / "known.sqlite")
        if store is not None and store.exists():
            Store(store).copy_to(known)
        for cache in caches:
            import_cache(known, cache, engine, texts)
        for some in dict.fromkeys([*((method,) for method in methods), methods]):
            earlier = PreviousSummaries(since, texts, some, wanted) if since else None
            made_up = _MadeUp(engine, answer_tokens, count or token_count(), measure)
            with _copied(known, Path(folder) / "run.sqlite") as kept:
                scheduler = Scheduler(made_up, kept, keep_going=True)
                scheduler.run(strategies(splits, texts, some, block_size, max_blocks, earlier), lambda _: None)
            calls, tokens_in, tokens_out = made_up.calls, made_up.tokens_in, made_up.calls * answer_tokens
            told[" + ".join(some)] = {
                "calls": calls,
                "input_tokens": tokens_in,
                "output_tokens": tokens_out,
                "seconds": rates.seconds(calls),
                "price": rates.price(tokens_in, tokens_out),
            }
    if made_up.drawn:
        each = _seconds_a_call(engine, made_up.drawn)
        for cost in told.values():
            cost |= {"seconds": round(each * (cost["calls"] or 0), 1), "seconds_measured_on": len(made_up.drawn)}
    return told


def _seconds_a_call(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds a call that the engine takes on this machine, without those to load its model."""

    async def asked() -> float:
        await engine.answers(requests[:1])
        start = time.perf_counter()
        await engine.answers(requests)
        return (time.perf_counter() - start) / len(requests)

    return run_to_end(asked())


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
