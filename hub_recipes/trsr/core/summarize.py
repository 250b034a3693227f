"""Fold blocks of a history into one summary: the paper's two strategies, each written once for one user.

A strategy yields the questions that it can put now and is sent their answers; who answers, and in which order over many
users, is another's business. `summarize` answers in lockstep, with a Summarizer in this process.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
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
    """One summary that is wanted.

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


def recurrent(blocks: Sequence[Block], known: Sequence[str] = ()) -> Steps:
    """Summarise the first block, then let each next block update the summary (RNN-like).

    Args:
        blocks: Non-empty, oldest first.
        known: The summaries after the first blocks, as far as they are known; they are not asked for.

    Reference:
        LLM-TRSR, recurrent preference summarization (arXiv 2403.13325).
    """
    trail = list(known)
    for block in blocks[len(trail) :]:
        trail += yield [
            SummaryRequest("update", (trail[-1],), block) if trail else SummaryRequest("block", block=block)
        ]
    return SummaryResult(tuple(trail), trail[-1])


def hierarchical(blocks: Sequence[Block], known: Sequence[str] = ()) -> Steps:
    """Summarise every block on its own, then merge the block summaries (CNN-like).

    Args:
        blocks: Non-empty, oldest first.
        known: The summaries of the first blocks, as far as they are known; they are not asked for.

    Reference:
        LLM-TRSR, hierarchical preference summarization (arXiv 2403.13325).
    """
    trail = list(known)
    if len(blocks) > len(trail):
        trail += yield [SummaryRequest("block", block=block) for block in blocks[len(trail) :]]
    (summary,) = yield [SummaryRequest("merge", tuple(trail))]
    return SummaryResult(tuple(trail), summary)


_Strategy = Callable[[Sequence[Block], Sequence[str]], Steps]
_STRATEGIES: dict[str, _Strategy] = {"recurrent": recurrent, "hierarchical": hierarchical}
METHODS = tuple(_STRATEGIES)


def steps(blocks: Sequence[Block], method: str, known: Sequence[str] = ()) -> Steps:
    """The named strategy for one user.

    Raises:
        ValueError: For a name not in `METHODS`, or a history without blocks.
    """
    if not blocks:
        raise InputError("A history has no blocks: there is nothing to summarise.")
    return _strategy(method)(blocks, known)


def summarize(
    histories: Sequence[Sequence[Block]],
    summarizer: Summarizer,
    method: str = "recurrent",
    advance: Callable[[int], None] | None = None,
) -> list[SummaryResult]:
    """Run the named strategy for many users, level by level: all first questions together, then all that follow.

    Args:
        histories: The blocks of each user, non-empty, oldest first.
        advance: Called with the number of summaries after each level, for a progress bar.

    Raises:
        ValueError: For a name not in `METHODS`, or a history without blocks.
    """
    begin = _strategy(method)
    for user, blocks in enumerate(histories):
        if not blocks:
            raise InputError(f"History {user} has no blocks: there is nothing to summarise.")
    trails: list[SummaryResult | None] = [None] * len(histories)
    going = [(user, begin(blocks, ())) for user, blocks in enumerate(histories)]
    open_questions = [next(strategy) for _, strategy in going]
    while going:
        replies = iter(answers([question for questions in open_questions for question in questions], summarizer))
        if advance:
            advance(sum(map(len, open_questions)))
        still, next_questions = [], []
        for (user, strategy), questions in zip(going, open_questions, strict=True):
            try:
                next_questions.append(strategy.send([next(replies) for _ in questions]))
                still.append((user, strategy))
            except StopIteration as end:
                trails[user] = end.value
        going, open_questions = still, next_questions
    return [trail for trail in trails if trail is not None]


def _strategy(method: str) -> _Strategy:
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}, expected one of {', '.join(METHODS)}.")
    return _STRATEGIES[method]


def answers(questions: Sequence[SummaryRequest], summarizer: Summarizer) -> list[str]:
    """Put questions to a summarizer, all of one kind together."""
    operations: dict[str, Callable[[list[SummaryRequest]], list[str]]] = {
        "block": lambda some: summarizer.block([question.block for question in some]),
        "merge": lambda some: summarizer.merge([question.summaries for question in some]),
        "update": lambda some: summarizer.update([(question.summaries[0], question.block) for question in some]),
    }
    replies: dict[int, str] = {}
    for kind, operation in operations.items():
        indices = [index for index, question in enumerate(questions) if question.kind == kind]
        if indices:
            replies |= zip(indices, operation([questions[index] for index in indices]), strict=True)
    return [replies[index] for index in range(len(questions))]


def calls(lengths: Iterable[int], method: str) -> int:
    """Number of generations that histories of these many blocks take."""
    return sum(blocks + (method == "hierarchical") for blocks in lengths)
