"""Fold blocks of a history into one summary: the paper's two strategies, written once over a Summarizer.

Works level by level over many users: all first blocks together, then all second blocks. Knows nothing of models or
files: a Summarizer is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .history import Block

METHODS = ("recurrent", "hierarchical")


class Summarizer(Protocol):
    """Three batched operations; each returns one summary an input, in order."""

    def block(self, blocks: Sequence[Block]) -> list[str]:
        """Summarise each block on its own."""

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        """Merge each list of block summaries, oldest first, into one."""

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        """Advance each (summary so far, next block) by the block."""


@dataclass(frozen=True, slots=True)
class Trail:
    """How a summary came about.

    Attributes:
        block_summaries: Recurrent: the summary after each block. Hierarchical: the summary of each block. Oldest first.
        summary: What stands for the user.
    """

    block_summaries: tuple[str, ...]
    summary: str


def recurrent(
    histories: Sequence[Sequence[Block]], summarizer: Summarizer, advance: Callable[[int], None] | None = None
) -> list[Trail]:
    """Summarise each history's first block, then let each next block update the summary (RNN-like).

    Args:
        histories: The blocks of each user, non-empty, oldest first.
        summarizer: Its `update` sees (summary so far, next block).
        advance: Called with the number of summaries after each level, for a progress bar.

    Raises:
        ValueError: If a history has no blocks.

    Reference:
        LLM-TRSR, recurrent preference summarization (arXiv 2403.13325).
    """
    _check(histories)
    trails: list[list[str]] = [[] for _ in histories]
    for level in range(max(map(len, histories), default=0)):
        users = [user for user, blocks in enumerate(histories) if len(blocks) > level]
        if level == 0:
            made = summarizer.block([histories[user][0] for user in users])
        else:
            made = summarizer.update([(trails[user][-1], histories[user][level]) for user in users])
        for user, summary in zip(users, made, strict=True):
            trails[user].append(summary)
        if advance:
            advance(len(users))
    return [Trail(tuple(trail), trail[-1]) for trail in trails]


def hierarchical(
    histories: Sequence[Sequence[Block]], summarizer: Summarizer, advance: Callable[[int], None] | None = None
) -> list[Trail]:
    """Summarise every block on its own, then merge each user's block summaries (CNN-like).

    Args, errors: as `recurrent`.

    Reference:
        LLM-TRSR, hierarchical preference summarization (arXiv 2403.13325).
    """
    _check(histories)
    trails: list[list[str]] = [[] for _ in histories]
    for level in range(max(map(len, histories), default=0)):
        users = [user for user, blocks in enumerate(histories) if len(blocks) > level]
        for user, summary in zip(users, summarizer.block([histories[u][level] for u in users]), strict=True):
            trails[user].append(summary)
        if advance:
            advance(len(users))
    merged = summarizer.merge(trails)
    if advance:
        advance(len(trails))
    return [Trail(tuple(trail), summary) for trail, summary in zip(trails, merged, strict=True)]


def summarize(
    histories: Sequence[Sequence[Block]],
    summarizer: Summarizer,
    method: str = "recurrent",
    advance: Callable[[int], None] | None = None,
) -> list[Trail]:
    """Run the named strategy. Raises ValueError for a name not in `METHODS`."""
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}, expected one of {', '.join(METHODS)}.")
    return {"recurrent": recurrent, "hierarchical": hierarchical}[method](histories, summarizer, advance)


def calls(lengths: Sequence[int], method: str) -> int:
    """Number of generations that histories of these many blocks take."""
    return sum(lengths) + (len(lengths) if method == "hierarchical" else 0)


def _check(histories: Sequence[Sequence[Block]]) -> None:
    for user, blocks in enumerate(histories):
        if not blocks:
            raise ValueError(f"History {user} has no blocks: there is nothing to summarise.")
