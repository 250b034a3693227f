"""What the cells of somebody's table mean: ids, points in time, texts and lists of ids, whatever type they come in.

A kind reads whole columns; only values that are not plain are looked at one by one, with the same result.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.field_values import UNSPACED, is_missing, unescape, unwrap
from trsr.core.history import field_text, whole_text
from trsr.dataset.build import id_lists
from trsr.dataset.build.item_text import ESCAPED, clean_column, unescape_column

# Nothing that could be a float or stand for a missing value: these are looked at.
_ID = r"^(?:[A-MO-Za-hj-mo-z_][!-~]*|i(?:[!-mo-~][!-~]*)?|[Nn][0-9_-][!-~]*|[0-9][!-*,\-/-~]*)$"
# Fifteen digits are exact in a float.
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,3})?$"
# As pandas, numpy, Python, JSON and SQL spell what is not there.
_MISSING = frozenset({"nan", "NaN", "NaT", "None", "<NA>", "null", "NULL", "inf", "-inf"})
# How a float of a whole number is written: below 1e16 its digits and ".0", from there on with an exponent.
_FLOAT = re.compile(r"(-?[0-9]+)\.0|-?[0-9](?:\.[0-9]+)?[eE]\+[0-9]+")


@dataclass(frozen=True, slots=True)
class Kind:
    """How cells are read.

    Attributes:
        type: Of what is read.
        one: A cell; None if it holds no such thing.
        plain: Of strings and whole numbers: what was read, and which cells it holds for, bool.
        fault: What is wrong with a cell that holds no such thing; None where an empty one will do.
        unescapes: Whether HTML entities are read as the characters that they stand for.
    """

    type: pa.DataType
    one: Callable[[object], object]
    plain: Callable[[pa.Array], tuple[pa.Array, np.ndarray]] | None
    fault: Callable[[object], str] | None
    unescapes: bool = False

    def read(self, cells: pa.Array) -> pa.Array:
        """A column; null for cells that hold no such thing. Of the type `arrow.json`, cells are looked at one by one."""
        cells = _as_text(cells)
        if self.plain is None or not (pa.types.is_string(cells.type) or pa.types.is_integer(cells.type)):
            return pa.array(map(self.one, _values(cells)), self.type)
        made, plain = self.plain(cells)
        if plain.all():
            return made
        rest = pa.array(map(self.one, cells.filter(pa.array(~plain)).to_pylist()), self.type)
        return pc.replace_with_mask(made, pa.array(~plain), rest)

    def faults(self, cells: pa.Array, read: pa.Array) -> dict[str, np.ndarray]:
        """What is wrong -> with which of the cells, bool; of those that `read` has a null for."""
        if self.fault is None:
            return {}
        broken = np.flatnonzero(read.is_null().to_numpy(zero_copy_only=False))
        found: dict[str, np.ndarray] = {}
        for place, value in zip(broken.tolist(), _values(_as_text(cells).take(pa.array(broken))), strict=True):
            found.setdefault(self.fault(value), np.zeros(len(cells), dtype=bool))[place] = True
        return found


def _as_text(cells: pa.Array) -> pa.Array:
    """Texts of any Arrow type, and bytes that are UTF-8, as strings; other columns as they are."""
    if isinstance(cells, pa.DictionaryArray):
        cells = cells.dictionary_decode()
    kinds = pa.types
    if kinds.is_large_string(cells.type) or kinds.is_string_view(cells.type):
        return cells.cast(pa.string())
    if kinds.is_binary(cells.type) or kinds.is_large_binary(cells.type) or kinds.is_binary_view(cells.type):
        try:
            return cells.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return cells
    return cells


def _values(cells: pa.Array) -> list[object]:
    """Cells one by one; short floats stay short, so that it can be told which numbers they hold exactly."""
    if isinstance(cells.type, pa.JsonType):
        return [None if cell is None else json.loads(cell) for cell in cells.storage.to_pylist()]
    values = cells.to_pylist(maps_as_pydicts="lossy")
    short = {pa.float32(): np.float32, pa.float16(): np.float16}
    if shorten := short.get(cells.type):
        return [None if value is None else shorten(value) for value in values]
    if isinstance(cells.type, (pa.ListType, pa.LargeListType)) and (shorten := short.get(cells.type.value_type)):
        return [value and [None if part is None else shorten(part) for part in value] for value in values]
    return values


def identifier(value: object) -> str | None:
    """An id as text; a whole number that came as a float is its digits: 12.0, as a column with gaps has it, is 12.

    None for what is missing or cannot be printed, for objects and lists, and for numbers that a float does not hold to
    the last digit, of which several may have become one.
    """
    try:
        value = _unwrapped(value)
    except UnicodeDecodeError:
        return None
    if is_missing(value) or isinstance(value, (Mapping, list, tuple)) or _is_inexact(value):
        return None
    if isinstance(value, Decimal):
        value = format(value, "f")
        value = value.rstrip("0").removesuffix(".") if "." in value else value
    elif isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    if whole := _FLOAT.fullmatch(text):
        text = str(int(whole[1]))
    return text if text.isprintable() and text not in _MISSING else None


def _unwrapped(value: object) -> object:
    if isinstance(value, Mapping) and set(value) == {"$oid"}:
        value = value["$oid"]
    return unwrap(value)


def _is_inexact(value: object) -> bool:
    """Whether a number came as a float that does not hold all whole numbers of its size, or as the text of one."""
    if isinstance(value, str):
        whole = _FLOAT.fullmatch(value.strip())
        return whole is not None and (whole[1] is None or abs(int(whole[1])) >= 2**53)
    # 2^53 for the floats of Python, JSON and most columns; 2^24 for short ones. What is infinite is no number.
    return isinstance(value, (float, np.floating)) and not abs(float(value)) < 2.0 ** (np.finfo(type(value)).nmant + 1)


def _id_fault(value: object) -> str:
    try:
        value = _unwrapped(value)
    except UnicodeDecodeError:
        return "an id that is not UTF-8"
    if isinstance(value, (Mapping, list, tuple)):
        return "an object or a list in place of an id"
    if not is_missing(value) and _is_inexact(value):
        return "an id that lost digits as a float"
    return "no id"


def moment(value: object) -> float | None:
    """A point in time as a number: numbers stay, ISO 8601 dates become seconds since 1970 (UTC unless they say)."""
    try:
        value = unwrap(value)
    except UnicodeDecodeError:
        return None
    if is_missing(value):
        return None
    if not isinstance(value, datetime):
        try:
            number = float(str(value))
            return number if math.isfinite(number) else None
        except ValueError:
            pass
        try:
            value = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
        except ValueError:
            return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _is_dated(value: object) -> bool:
    """Whether `moment` reads a date, which is in seconds, and no number, which is in whatever the log counts."""
    try:
        value = unwrap(value)
        float(str(value))
    except UnicodeDecodeError:
        return False
    except ValueError:
        return moment(value) is not None
    return False


def number(value: object) -> float | None:
    """A finite number, such as a rating."""
    try:
        found = float(str(unwrap(value)))
    except ValueError:  # bytes that are no UTF-8 too
        return None
    return found if math.isfinite(found) else None


def identifiers(value: object, separator: str = " ") -> list[str] | None:
    """A list of ids, or text that holds one, as `id_lists.split` reads it."""
    value = _listed(value, separator)
    if value is None:
        return None
    made = [found for part in value if (found := identifier(part)) is not None]
    return made if len(made) == len(value) else None


def _listed(value: object, separator: str = " ") -> list[object] | None:
    if isinstance(value, str):
        value = id_lists.split(value, separator)
    return value if isinstance(value, list) else None


def _list_fault(value: object, separator: str = " ") -> str:
    bad = [_id_fault(part) for part in _listed(value, separator) or () if identifier(part) is None]
    return f"a list with {bad[0]}" if bad and bad[0] != "no id" else "no list of ids"


def _plain_ids(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    made = cells.cast(pa.string())
    return made, _is(made, _ID)


def are_ids(texts: pa.Array) -> np.ndarray:
    """Which texts are ids as they stand, and can stand in a list between spaces: printable ASCII without any; bool."""
    good = _is(texts, _ID)
    if not good.all():
        rest = np.flatnonzero(~good & _is(texts, "^[!-~]+$"))
        good[rest] = [identifier(text) == text for text in texts.take(pa.array(rest)).to_pylist()]
    return good


def _plain_moments(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    plain = _is(texts, _NUMBER)
    return pc.if_else(pa.array(plain), texts, None).cast(pa.float64()), plain


def _plain_dated(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    dated = _is(texts, r"^[0-9]{4}-")
    return pa.array(dated), dated | _is(texts, _NUMBER)


def _is(texts: pa.Array, pattern: str) -> np.ndarray:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False).copy()


def count_escaped(cells: pa.Array) -> int:
    """Cells with HTML entities in them, which `text` reads as the characters that they stand for."""
    cells = _as_text(cells)
    if isinstance(cells.type, pa.JsonType):
        cells = cells.storage
    if pa.types.is_nested(cells.type):
        cells = pa.array(map(str, cells.to_pylist()), pa.string())
    if not pa.types.is_string(cells.type):
        return 0
    some = cells.filter(pa.array(_is(cells, ESCAPED)))
    return sum(unescape(cell) != cell for cell in some.to_pylist())


_SPACELESS = "[" + "".join(f"{low}-{high}" for low, high in UNSPACED) + "]"


def text(words: int = 40, values: int = 0) -> Kind:
    """Texts as `core.history.field_text` gives them: at most `words` words, of lists `values` values; 0 = all."""
    # The first words, less the commas at their end.
    longer = rf"^((?:[^ ]+ ){{{max(words - 1, 0)}}}[^ ]*?),* .*$"

    def plain(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
        made = clean_column(unescape_column(cells.cast(pa.string())))
        if not words:
            return made, np.ones(len(cells), dtype=bool)
        cut = pc.replace_substring_regex(made, longer, r"\1")
        ascii_only = pc.all(pc.string_is_ascii(made)).as_py()
        return cut, np.ones(len(cells), dtype=bool) if ascii_only else ~_is(made, _SPACELESS)

    def one(value: object) -> str:
        return field_text(value, words, values)

    return Kind(pa.string(), _unless_undecodable(one), plain if words <= 1000 else None, _no_text, unescapes=True)


def _plain_whole_texts(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return clean_column(cells.cast(pa.string())), np.ones(len(cells), dtype=bool)


def _unless_undecodable(read: Callable[[object], str]) -> Callable[[object], str | None]:
    def one(value: object) -> str | None:
        try:
            return read(value)
        except UnicodeDecodeError:
            return None

    return one


def _no_text(value: object) -> str:
    return "text that is not UTF-8"


ID = Kind(pa.string(), identifier, _plain_ids, _id_fault)
MOMENT = Kind(pa.float64(), moment, _plain_moments, lambda value: "neither a number nor an ISO 8601 date")
DATED = Kind(pa.bool_(), _is_dated, _plain_dated, None)
# Cells that are text as they are; of all others a space, so that they count as filled.
RAW = Kind(pa.string(), lambda value: value if isinstance(value, str) else " ", None, _no_text)


def ids(separator: str = " ") -> Kind:
    """Lists of ids; in text without brackets they stand between separators."""
    read, fault = partial(identifiers, separator=separator), partial(_list_fault, separator=separator)
    return Kind(pa.list_(pa.string()), read, None, fault)


IDS = ids()
NUMBER = Kind(pa.float64(), number, _plain_moments, None)
NAME = Kind(pa.string(), identifier, None, None)
WHOLE_TEXT = Kind(pa.string(), _unless_undecodable(whole_text), _plain_whole_texts, _no_text)
