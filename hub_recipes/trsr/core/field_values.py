"""The values of an item's fields: what a missing one is, lists and objects as parts, HTML entities, and the first words.

The same for datasets and for requests. Knows nothing of items.
"""

import re
from array import array
from collections.abc import Iterable, Mapping
from decimal import Decimal
from html.entities import name2codepoint
from itertools import islice
from numbers import Real

from .errors import InputError

# Columns that identify an item. They never reach a prompt: an id in the text leaks identity.
ID_FIELDS = frozenset({"id", "item_id", "asin", "isbn", "news_id"})

# Scripts that put no spaces between words, as ranges: Thai to Myanmar, Khmer, Chinese and Japanese with their marks.
UNSPACED = (
    ("\u0e00", "\u109f"), ("\u1780", "\u17ff"), ("\u2e80", "\u312f"), ("\u3190", "\u9fff"), ("\uf900", "\ufaff"),
    ("\uff01", "\uff9f"), ("\U00020000", "\U0003ffff"),
)  # fmt: skip
_UNSPACED = "".join(f"{low}-{high}" for low, high in UNSPACED)
UNSPACED_CHARACTER = f"[{_UNSPACED}]"
# A character of such a script, or what stands between spaces.
WORD = rf"{UNSPACED_CHARACTER}|[^\s{_UNSPACED}]+"
_WORDS = re.compile(WORD)

# Levels of lists and objects in a value. Real ones have few; of thousands Python would give up.
_DEEPEST = 100

# The names of HTML 4 and the one that XML adds, and what browsers read for numbers that are control characters.
ENTITIES = {name: chr(code) for name, code in name2codepoint.items()} | {"apos": "'"}
WINDOWS = dict(zip(range(0x80, 0xA0), bytes(range(0x80, 0xA0)).decode("cp1252", "replace"), strict=True))
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,7});")


def flat(value: object, levels: int = _DEEPEST) -> list[object]:
    """The values of a list and of lists in it, without those that say nothing; of any other value that value.

    The values of a set are sorted, so that they have one order. An object gives `name: value` for each of its keys but ids.
    Bytes are read as UTF-8, and a decimal is its digits.

    Args:
        levels: Most levels of lists and objects.

    Raises:
        InputError: If bytes are not UTF-8, there are more levels, or a value is another kind of collection, such as a generator,
            which can be read once. The message says which before its colon.
    """
    if levels < 0:
        raise InputError(f"lists or objects nested deeper than {_DEEPEST} levels: take fewer")
    value = unwrap(value)
    # Arrays, and numpy's numbers: 3.1 as a float32 reads 3.0999999046325684 in a table, and then here as well.
    if getattr(value, "ndim", 0) or (isinstance(value, (Real, array)) and hasattr(value, "tolist")):
        value = value.tolist()  # type: ignore[attr-defined]
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flat(part, levels - 1)]
    if isinstance(value, Mapping):
        shown = {str(key): flat(inner, levels - 1) for key, inner in value.items() if not _is_id(str(key))}
        return [f"{key}: {', '.join(map(str, parts))}" for key, parts in shown.items() if parts]
    if isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", None) != 0:
        raise InputError(f"values in a {type(value).__name__}: give them as a list")
    if is_missing(value):
        return []
    return [format(value, "f") if isinstance(value, Decimal) else value]


def _is_id(name: str) -> bool:
    return name.lower() in ID_FIELDS or name == "$oid"


def unwrap(value: object) -> object:
    """Bytes as UTF-8, and what MongoDB exports as `{"$date": ...}` or `{"$numberLong": ...}` as it stands in there.

    Raises:
        InputError: If bytes are not UTF-8.
    """
    while isinstance(value, Mapping) and len(value) == 1 and re.fullmatch(r"\$(date|number\w+)", str(*value)):
        value = next(iter(value.values()))
    try:
        return bytes(value).decode() if isinstance(value, (bytes, bytearray)) else value
    except UnicodeDecodeError as error:
        raise InputError("text that is not UTF-8: decode it, and give it as text") from error


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN, NaT, pandas' NA or blank text."""
    try:
        return value is None or bool(value != value) or (isinstance(value, str) and not value.strip())
    # pandas' NA and a signalling NaN do not say whether they differ from themselves.
    except (TypeError, ArithmeticError):
        return True


def unescape(text: str) -> str:
    """Text with HTML's entities as the characters that they stand for, once: `&amp;` is `&`, and `&amp;lt;` is `&lt;`."""
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    name = entity[1]
    if name[0] != "#":
        return ENTITIES.get(name, entity[0])
    code = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return entity[0]
    return WINDOWS.get(code, chr(code))


def first_words(line: str, words: int) -> str:
    """At most `words` words of a line; 0 = all. Commas and spaces at the cut go.

    A word is what stands between spaces; of a script that has none between words, a character is one.
    """
    if not 0 < words < len(line):
        return line
    ends = [word.end() for word in islice(_WORDS.finditer(line), words + 1)]
    return line[: ends[words - 1]].rstrip(", ") if len(ends) > words else line
