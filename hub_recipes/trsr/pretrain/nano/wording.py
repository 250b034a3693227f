"""A Summarizer that writes counts in plain English and parses them: it gives the answers that the nano summariser learns.

`Mostly sea stories, some ghost tales, a little opera; often by Mara Quill.` Topics come first, then makers; a word says how
often each was chosen. The next step sees only these words, so five strengths must cover the counts of five blocks.
"""

import re
from collections import Counter
from collections.abc import Sequence

from trsr.core.extractive import field_values
from trsr.core.history import Block
from trsr.pretrain.nano.worlds import MAKER_FIELDS

# The word, the least count for it, and the count that it is parsed as. Each word ends in a token of its own.
STRENGTHS = (
    ("above all", 6.5, 7.0),
    ("mostly", 4.0, 4.5),
    ("often", 3.0, 3.0),
    ("some", 2.0, 2.0),
    ("a little", 1.0, 1.0),
)
NOTHING = "No clear preference."
MAKERS = MAKER_FIELDS | {"artist", "creator", "label", "maker", "publisher", "writer"}

_PART = re.compile(rf"({'|'.join(word for word, _, _ in STRENGTHS)}) (by )?(.+)", re.IGNORECASE)
_STANDS_FOR = {word: count for word, _, count in STRENGTHS}

TOPICS, MAKERS_NAMED = 5, 2  # in a summary, at most

Counts = tuple[Counter[str], Counter[str]]  # topics, makers; in the order of last mention


class PlainEnglishSummarizer:
    """Names the most frequent topics and makers, each with a word for its count; of equal counts, the newest are kept."""

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return [self._write([_count(block)]) for block in blocks]

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return [self._write([_parse_counts(summary) for summary in group]) for group in summaries]

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return [self._write([_parse_counts(summary), _count(block)]) for summary, block in pairs]

    def _write(self, parts: Sequence[Counts]) -> str:
        """Write the sum of `parts`, oldest first."""
        topics: Counter[str] = Counter()
        makers: Counter[str] = Counter()
        for part in parts:
            for total, counts in zip((topics, makers), part, strict=True):
                for value, count in counts.items():
                    total[value] = total.pop(value, 0) + count
        liked = [f"{_strength(count)} {value}" for value, count in _top(topics, TOPICS)]
        by = [f"{_strength(count)} by {value}" for value, count in _top(makers, MAKERS_NAMED)]
        text = "; ".join(", ".join(phrases) for phrases in (liked, by) if phrases)
        return f"{text[0].upper()}{text[1:]}." if text else NOTHING


def _count(block: Block) -> Counts:
    """Counts of one block; a value counts once per item. Text without fields counts as a title."""
    topics: Counter[str] = Counter()
    makers: Counter[str] = Counter()
    for item in block:
        for field, value, tells_taste in field_values(item.text):
            if tells_taste and ": " in item.text:
                counts = makers if field in MAKERS else topics
                counts[value] = counts.pop(value, 0) + 1
    return topics, makers


def _parse_counts(summary: str) -> Counts:
    """Counts in a summary that `_write` wrote; any other text in it is ignored."""
    topics: Counter[str] = Counter()
    makers: Counter[str] = Counter()
    # Written newest first among equals: read in reverse, the order is again that of last mention.
    for part in reversed(re.split(r"[,;] ", summary.removesuffix("."))):
        if match := _PART.fullmatch(part):
            (makers if match[2] else topics)[match[3]] += _STANDS_FOR[match[1].lower()]  # type: ignore[assignment]
    return topics, makers


def _strength(count: float) -> str:
    return next(word for word, least, _ in STRENGTHS if count >= least)


def _top(counts: Counter[str], keep: int) -> list[tuple[str, int]]:
    newest_first = list(reversed(counts.items()))
    return sorted(newest_first, key=lambda entry: -entry[1])[:keep]  # stable: newest first among equals
