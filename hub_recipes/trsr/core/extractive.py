"""A summarizer that needs no model: it counts the field values that recur.

A summary reads `genre: mystery x6, travel x2; author: Mara Quill x3`. It is text like any other summary, and all that
the next step sees: `update` and `merge` read the counts back from it. Every value carries a count and the last ` xN` is
it, so a value may end like one: `brand: HP Spectre x360 x2`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from .field_values import UNSPACED_CHARACTER
from .history import Block, clean

# Fields whose values name one item, not a taste.
_UNIQUE = frozenset({"title", "name", "price", "year", "date", "url", "image"})
# Fields of running text, however short.
_PROSE = frozenset({"about", "abstract", "blurb", "desc", "description", "plot", "text"})
_FIELD = re.compile(r"\s*([^:;\s][^:;]{0,23}):\s+(.+)")
# Matched against a whole value only: searching for it takes a time that grows with the square of the value's length.
_COUNTED = re.compile(r"(.+) x(\d{1,9})")
_WORD = re.compile(r"[^\W\d_]{4,}")
_UNSPACED = re.compile(UNSPACED_CHARACTER)
# In a script without spaces about so many characters make a word.
CHARACTERS_A_WORD = 4
# Longer ones are no values or words: without a space in them, they would fill a summary, and each that is made from it.
LONGEST_VALUE = 120  # characters
LONGEST_WORD = 40
STOP_WORDS = frozenset(
    (
        "about above after again against also among another because been before being between both cannot could "
        "does down during each every ever first from have having here hers herself himself into itself just last "
        "like made make many more most much must never next once only other ours over same shall should since "
        "some still such than that their theirs them then there these they this those through today under until "
        "upon very want well were what when where which while whom whose will with within without would your "
        "yours title author genre text item items"
    ).split()
)

NOTHING = "no clear preference"

Counts = dict[str, Counter[str]]


class ExtractiveSummarizer:
    """Counts field values and recurring words.

    Args:
        values: Values kept a field, most frequent first; of equally frequent ones that of the newest block first.
        words: Recurring words kept from long fields.
        max_value_words: Longer values are read as running text; so are those of more than LONGEST_VALUE characters.
    """

    name = "extractive"

    def __init__(self, values: int = 4, words: int = 4, max_value_words: int = 4) -> None:
        self.values = values
        self.words = words
        self.max_value_words = max_value_words

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return [self._write([self._count(block)]) for block in blocks]

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return [self._write([self._read(summary) for summary in group]) for group in summaries]

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return [self._write([self._read(summary), self._count(block)]) for summary, block in pairs]

    def _count(self, block: Block) -> Counts:
        """Counts of one block; a value counts once per item."""
        counts: Counts = {}
        for item in block:
            words: set[str] = set()
            for field, value, tells_taste in field_values(item.text, self.max_value_words):
                if tells_taste:
                    field = "word" if field == "words" else field  # which is what words of texts are counted as
                    counts.setdefault(field, Counter())[value] += 1
                else:
                    words |= _words(value)
            counts.setdefault("words", Counter()).update(sorted(words))
        return counts

    def _read(self, summary: str) -> Counts:
        """Parse the counts of a summary that `_write` wrote; in any other text, count each word once."""
        counts: Counts = {}
        if summary == NOTHING:
            return counts
        for part in clean(summary).split(";"):
            match = _FIELD.match(part)
            values = match[2].split(",") if match else []
            matches = [counted for value in values if (counted := _COUNTED.fullmatch(value.strip()))]
            if match and matches and len(matches) == len(values):
                # Equal counts are written newest first; in reverse they are again in the order of last mention.
                for counted in reversed(matches):
                    counts.setdefault(match[1].strip().lower(), Counter())[counted[1]] += int(counted[2])
            else:
                counts.setdefault("words", Counter()).update(sorted(_words(part)))
        return counts

    def _write(self, parts: Sequence[Counts]) -> str:
        """Write the sum of `parts`, oldest first."""
        total: Counts = {}
        for counts in parts:
            for field, counter in counts.items():
                sums = total.setdefault(field, Counter())
                for value, count in counter.items():
                    # Re-inserted, so that the order of the dict is the order of last mention.
                    sums[value] = sums.pop(value, 0) + count
        words = total.pop("words", Counter())
        # A word that occurs once is noise beside field values; where items are running text, there is nothing else.
        kept_words = {word: n for word, n in words.items() if n > 1} if total else words
        fields = [f"{field}: {_top(counter, self.values)}" for field, counter in total.items() if counter]
        if kept_words:
            fields.append(f"words: {_top(kept_words, self.words)}")
        return "; ".join(fields) or NOTHING


def field_values(text: str, max_value_words: int = 4) -> Iterator[tuple[str, str, bool]]:
    """The distinct values of each field of an item's text: field, value, and whether the value can show a preference.

    Running text cannot, nor can a value that names one item alone, such as a title.
    """
    for part in text.split(";"):
        match = _FIELD.match(part)
        field, values = (match[1].strip().lower(), match[2]) if match else ("topics", part)
        for value in dict.fromkeys(_values(values)):
            yield field, value, _is_short(value, max_value_words) and field not in _UNIQUE and field not in _PROSE


def _is_short(value: str, max_words: int) -> bool:
    if len(value) > LONGEST_VALUE or len(value.split()) > max_words:
        return False
    return value.isascii() or len(_UNSPACED.findall(value)) <= CHARACTERS_A_WORD * max_words


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if len(word) <= LONGEST_WORD and word not in STOP_WORDS}


def _values(text: str) -> Iterable[str]:
    for value in text.split(","):
        if value := clean(value):
            yield value


def _top(counter: "Counter[str] | dict[str, int]", keep: int) -> str:
    newest_first = list(reversed(counter.items()))
    best = sorted(newest_first, key=lambda entry: -entry[1])[:keep]  # stable: newest first among equals
    return ", ".join(f"{value} x{count}" for value, count in best)
