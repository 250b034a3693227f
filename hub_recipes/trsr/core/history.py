"""Items, and histories cut into blocks.

Text that comes from outside is made one clean line here, so that nothing later can mistake it for prompt structure.
Knows nothing of tokenizers or models.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import InputError, InputTypeError
from .field_values import ID_FIELDS, first_words, flat, unescape

T = TypeVar("T")

# ZERO WIDTH JOINER and NON-JOINER shape Persian, Indic scripts and emoji; every other format character is dropped.
_KEPT_FORMAT = frozenset("\u200c\u200d")
# Variation selectors of ideographs: invisible, and as many as a byte has values. Those of emoji stay, U+FE0E and U+FE0F.
_SELECTORS = re.compile("[\U000e0100-\U000e01ef]+")


def clean(text: str) -> str:
    """Return `text` as one line of visible characters.

    Line breaks, tabs and other separators become single spaces; control, bidirectional, zero-width and tag characters
    and variation selectors of ideographs go; lone surrogates become U+FFFD. Emoji, joiners and every script stay.
    """
    if not text.isascii():
        text = _SELECTORS.sub("", text)
    line = " ".join(text.split())
    if line.isprintable():
        return line
    chars = []
    for char in line:
        category = unicodedata.category(char)
        if category == "Cs":
            chars.append("\ufffd")
        elif category[0] != "C" or char in _KEPT_FORMAT or category in ("Co", "Cn"):
            chars.append(char)
    return " ".join("".join(chars).split())


@dataclass(frozen=True, slots=True)
class Item:
    """A text-rich item, as prompts show it.

    Attributes:
        text: One clean line, usually `field: value; field: value`.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise InputError("An item has no text. Give it at least a title.")

    @classmethod
    def parse(cls, value: "str | Mapping[str, object] | Item", words: int = 0, values: int = 0) -> "Item":
        """Read an item from a sentence or from a dict of fields.

        Args:
            value: A sentence, or fields in the order they should be read, see `sentence`.
            words: Longest field of a dict in words; 0 = all.
            values: Most values of a list in a dict; 0 = all.

        Raises:
            InputTypeError: If `value` is neither.
            ValueError: If no text is left.
        """
        if isinstance(value, Item):
            return value
        if isinstance(value, str):
            return cls(clean(value))
        if isinstance(value, Mapping):
            return cls(sentence(value, words, values))
        raise InputTypeError(
            f"An item is a string or a dict of fields, got {type(value).__name__}. "
            'Write for example {"title": "Emma", "author": "Jane Austen"}.'
        )


def sentence(fields: Mapping[str, object], words: int = 0, values: int = 0) -> str:
    """Join an item's fields as `field: value; field: value`, for datasets and for requests alike.

    A field named `text` is taken as the whole sentence, as it is. Ids and fields without a value are left out. A
    semicolon inside a value becomes a comma, so that a value cannot pose as another field.

    Args:
        words: Longest field in words; 0 = all.
        values: Most values of a list; 0 = all.
    """
    if text := whole_text(fields.get("text")):
        return text
    parts = []
    for name, value in fields.items():
        if str(name).lower() not in ID_FIELDS and (text := field_text(value, words, values)):
            parts.append(f"{label(str(name))}: {text.replace(';', ',')}")
    return "; ".join(parts)


def label(name: str) -> str:
    """A field's name, as `sentence` shows it."""
    return clean(name).replace(";", ",").replace(":", " ")


def field_text(value: object, words: int = 0, values: int = 0) -> str:
    """A field's value as one clean line; empty for None, NaN, NaT and pandas' NA.

    Lists, also arrays and lists in lists, are joined with commas, without the parts that are missing or blank; an object
    is read as `name: value` for each of its keys. HTML entities become the characters that they stand for.

    Args:
        words: Longest line in words, see `first_words`; 0 = all.
        values: Most values of a list; 0 = all.
    """
    return first_words(clean(unescape(_joined(value, values))), words)


def whole_text(value: object) -> str:
    """The field `text` as one clean line. Entities stay: a dataset's texts were unescaped when it was built."""
    return clean(_joined(value))


def _joined(value: object, values: int = 0) -> str:
    parts = flat(value)
    return ", ".join(map(str, parts[:values] if values else parts))


Block = tuple[Item, ...]


def newest(history: Sequence[T], count: int) -> list[T]:
    """The last `count` of a history, oldest first: all of a shorter one, none where `count` is 0."""
    return list(history[-count:]) if count else []


def blocks_by_count(items: Sequence[Item], size: int = 5, max_blocks: int = 5) -> list[Block]:
    """Cut a history into blocks of `size` items, oldest first.

    Blocks are counted from the first item, so a full block never changes when the history grows. Of a longer history
    the newest `max_blocks` blocks are kept.

    Reference:
        LLM-TRSR uses blocks of 5 items and at most 5 blocks (arXiv 2403.13325).
    """
    if size < 1 or max_blocks < 1:
        raise InputError(f"Block size and number of blocks must be at least 1, got {size} and {max_blocks}.")
    blocks = [tuple(items[start : start + size]) for start in range(0, len(items), size)]
    return blocks[-max_blocks:]


def count_blocks(items: int, size: int, max_blocks: int) -> int:
    """Number of blocks that `blocks_by_count` makes of so many items."""
    return min(math.ceil(items / size), max_blocks)
