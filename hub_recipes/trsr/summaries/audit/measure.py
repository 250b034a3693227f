"""What one summary says of one history. Takes words and returns figures."""

from collections import Counter
from collections.abc import Sequence

from trsr.summaries.audit.catalogue import Catalogue, Read
from trsr.summaries.audit.words import Words

FREQUENT = 2  # items that share a value


def coverage(summary: Words, history: Sequence[Read]) -> float:
    """Share of the values that stand in two items or more of the history which the summary names; nan without any."""
    counts = Counter(value for item in history for value in item.values)
    frequent = [value for value, items in counts.items() if items >= FREQUENT]
    return sum(value in summary.line for value in frequent) / len(frequent) if frequent else float("nan")


def unsupported(summary: Words, history: Sequence[Read], wording: frozenset[str]) -> frozenset[str]:
    """Content words of the summary that stand neither in an item of the history nor in `wording`, that of the prompts."""
    return (summary.content - wording).difference(*(item.words.content for item in history))


def names(summary: Words, item_id: str, history: Sequence[Read], catalogue: Catalogue) -> bool:
    """Whether the summary gives away an item that the history does not tell of.

    It does if the whole title stands in it, of more than one word, or most of the title's rare words; what stands in an
    item of the history does not count.
    """
    title = catalogue.read(item_id).title
    if len(title.line.split()) > 1 and summary.says(title) and not any(item.words.says(title) for item in history):
        return True
    telling = catalogue.rare(title).difference(*(item.words.content for item in history))
    return bool(telling) and 2 * len(telling & summary.content) > len(telling)


def copied_share(summary: Words, history: Sequence[Read]) -> float:
    """The largest share of the summary's runs of four words that one item has."""
    return max((len(summary.grams & item.words.grams) for item in history), default=0) / max(1, len(summary.grams))
