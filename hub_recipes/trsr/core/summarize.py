"""Fold blocks of a history into one summary: the paper's two strategies, each written once for one user.

A strategy is a generator: it yields the `SummaryRequest`s that are ready and is sent their summaries. It does not know who
writes them. `summarize` runs many users in lockstep, with a Summarizer in this process.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from .errors import InputError
from .history import Block


class Summarizer(Protocol):
    """Three batched operations; each returns one summary an input, in order."""

    def block(self, blocks: Sequence[Block]) -> list[str]:
        """Summarise each block on its own."""

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        """Merge each list of block summaries, oldest first, into one."""

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        """Advance each (summary so far, next block) by the block."""


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """A summary to write.

    Attributes:
        kind: `block`, `merge` or `update`: an operation of Summarizer.
        summaries: What is merged, oldest first; for an update, the summary so far.
        block: What is summarised; empty for a merge.
    """

    kind: str
    summaries: tuple[str, ...] = ()
    block: Block = ()


@dataclass(frozen=True, slots=True)
class SummaryResult:
    """How a summary came about.

    Attributes:
        block_summaries: Recurrent: the summary after each block. Hierarchical: the summary of each block. Oldest first.
        summary: What stands for the user.
    """

    block_summaries: tuple[str, ...]
    summary: str


Steps = Generator[list[SummaryRequest], list[str], SummaryResult]


def recurrent(blocks: Sequence[Block], existing: Sequence[str] = ()) -> Steps:
    """Summarise the first block, then let each next block update the summary (RNN-like).

    Args:
        blocks: Non-empty, oldest first.
        existing: The summaries after the first blocks, if they exist already; they are not requested.

    Reference:
        LLM-TRSR, recurrent preference summarization (arXiv 2403.13325).
    """
    summaries = list(existing)
    for block in blocks[len(summaries) :]:
        summaries += yield [
            SummaryRequest("update", (summaries[-1],), block) if summaries else SummaryRequest("block", block=block)
        ]
    return SummaryResult(tuple(summaries), summaries[-1])


def hierarchical(blocks: Sequence[Block], existing: Sequence[str] = ()) -> Steps:
    """Summarise every block on its own, then merge the block summaries (CNN-like).

    Args:
        blocks: Non-empty, oldest first.
        existing: The summaries of the first blocks, if they exist already; they are not requested.

    Reference:
        LLM-TRSR, hierarchical preference summarization (arXiv 2403.13325).
    """
    summaries = list(existing)
    if len(blocks) > len(summaries):
        summaries += yield [SummaryRequest("block", block=block) for block in blocks[len(summaries) :]]
    (summary,) = yield [SummaryRequest("merge", tuple(summaries))]
    return SummaryResult(tuple(summaries), summary)


_Strategy = Callable[[Sequence[Block], Sequence[str]], Steps]
_STRATEGIES: dict[str, _Strategy] = {"recurrent": recurrent, "hierarchical": hierarchical}
METHODS = tuple(_STRATEGIES)


def steps(blocks: Sequence[Block], method: str, existing: Sequence[str] = ()) -> Steps:
    """The named strategy for one user.

    Raises:
        ValueError: For a name not in `METHODS`, or a history without blocks.
    """
    if not blocks:
        raise InputError("A history has no blocks: there is nothing to summarise.")
    return _strategy(method)(blocks, existing)


def summarize(
    histories: Sequence[Sequence[Block]],
    summarizer: Summarizer,
    method: str = "recurrent",
    advance: Callable[[int], None] | None = None,
) -> list[SummaryResult]:
    """Run the named strategy for many users, step by step: the first requests of all users together, then those that follow.

    Args:
        histories: The blocks of each user, non-empty, oldest first.
        advance: Called with the number of summaries after each step, for a progress bar.

    Raises:
        ValueError: For a name not in `METHODS`, or a history without blocks.
    """
    begin = _strategy(method)
    for user, blocks in enumerate(histories):
        if not blocks:
            raise InputError(f"History {user} has no blocks: there is nothing to summarise.")
    results: list[SummaryResult | None] = [None] * len(histories)
    active = [(user, begin(blocks, ())) for user, blocks in enumerate(histories)]
    requests = [next(strategy) for _, strategy in active]
    while active:
        summaries = iter(run_requests(list(chain.from_iterable(requests)), summarizer))
        if advance:
            advance(sum(map(len, requests)))
        next_active, next_requests = [], []
        for (user, strategy), own in zip(active, requests, strict=True):
            try:
                next_requests.append(strategy.send([next(summaries) for _ in own]))
                next_active.append((user, strategy))
            except StopIteration as end:
                results[user] = end.value
        active, requests = next_active, next_requests
    return [result for result in results if result is not None]


def _strategy(method: str) -> _Strategy:
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}, expected one of {', '.join(METHODS)}.")
    return _STRATEGIES[method]


def run_requests(requests: Sequence[SummaryRequest], summarizer: Summarizer) -> list[str]:
    """The summary of each request; the summarizer is called once for each kind."""
    operations: dict[str, Callable[[list[SummaryRequest]], list[str]]] = {
        "block": lambda batch: summarizer.block([request.block for request in batch]),
        "merge": lambda batch: summarizer.merge([request.summaries for request in batch]),
        "update": lambda batch: summarizer.update([(request.summaries[0], request.block) for request in batch]),
    }
    summaries: dict[int, str] = {}
    for kind, operation in operations.items():
        indices = [index for index, request in enumerate(requests) if request.kind == kind]
        if indices:
            summaries |= zip(indices, operation([requests[index] for index in indices]), strict=True)
    return [summaries[index] for index in range(len(requests))]


def calls(lengths: Iterable[int], method: str) -> int:
    """Number of generations that histories of these many blocks take."""
    return sum(blocks + (method == "hierarchical") for blocks in lengths)
