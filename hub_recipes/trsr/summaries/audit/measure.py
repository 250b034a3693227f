"""Measures of one summary and one history, computed from their words."""

from collections import Counter
from collections.abc import Sequence

from trsr.summaries.audit.catalogue import Catalogue, ItemWords
from trsr.summaries.audit.words import Words

FREQUENT = 2  # smallest number of items with a value for it to count as frequent


def coverage(summary: Words, history: Sequence[ItemWords]) -> float:
    """Share of the frequent values of the history that the summary names; nan if there are none."""
    counts = Counter(value for item in history for value in item.values)
    frequent = [value for value, items in counts.items() if items >= FREQUENT]
    return sum(value in summary.line for value in frequent) / len(frequent) if frequent else float("nan")


def unsupported(summary: Words, history: Sequence[ItemWords], wording: frozenset[str]) -> frozenset[str]:
    """Content words of the summary that are neither in an item of the history nor in `wording`, the words of the prompts."""
    return (summary.content - wording).difference(*(item.words.content for item in history))


def names(summary: Words, item_id: str, history: Sequence[ItemWords], catalogue: Catalogue) -> bool:
    """Whether the summary names an item that is not in the history.

    It does if it contains the whole title, of more than one word, or most of the title's rare words. Titles and words that are
    in an item of the history do not count.
    """
    title = catalogue.read(item_id).title
    if (
        len(title.line.split()) > 1
        and summary.contains(title)
        and not any(item.words.contains(title) for item in history)
    ):
        return True
    revealing = catalogue.rare(title).difference(*(item.words.content for item in history))
    return bool(revealing) and 2 * len(revealing & summary.content) > len(revealing)


def copied_share(summary: Words, history: Sequence[ItemWords]) -> float:
    """The largest share of the summary's word 4-grams that a single item of the history contains."""
    return max((len(summary.ngrams & item.words.ngrams) for item in history), default=0) / max(1, len(summary.ngrams))
