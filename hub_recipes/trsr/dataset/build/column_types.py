"""Read the columns of a user's table as ids, timestamps, numbers, texts or lists of ids, whatever type they come in.

A `Kind` reads whole columns at once; only values of an unusual form are read one by one, with the same result.
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

from trsr.core.field_values import UNSPACED_CHARACTER, flat, is_missing, unescape, unwrap
from trsr.core.history import field_text, whole_text
from trsr.dataset.build import id_lists
from trsr.dataset.build.item_text import ESCAPED, clean_column, unescape_column
from trsr.errors import InputError

# Ids of the usual form. Texts that could be a float or stand for a missing value are read one by one.
_ID = r"^(?:[A-MO-Za-hj-mo-z_][!-~]*|i(?:[!-mo-~][!-~]*)?|[Nn][0-9_-][!-~]*|[0-9][!-*,\-/-~]*)$"
# Fifteen digits are exact in a float.
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,3})?$"
# How pandas, numpy, Python, JSON, SQL, Hive and spreadsheets write a missing value, in small letters.
_MISSING = frozenset({"nan", "nat", "none", "<na>", "null", "(null)", "<null>", "\\n", "#n/a"})
_INFINITE = frozenset({"inf", "-inf"})
# How a float of a whole number is written: below 1e16 its digits and ".0", from there on with an exponent.
_FLOAT = re.compile(r"(-?)0*(0|[1-9][0-9]*)\.0|-?[0-9](?:\.[0-9]+)?[eE]\+[0-9]+")
# A number of 7 to 16 digits as spreadsheets and C's %g shorten it. Python writes an exponent from 17 digits on and all of them, as
# Java does from 8 digits on, without the sign.
_EXPONENT = re.compile(r"-?[0-9](?:\.([0-9]+))?[eE]\+0?([6-9]|1[0-5])")
# How a time of UTC ends; BigQuery writes the latter.
_UTC = re.compile(r"(?:[Zz]| UTC)$")


@dataclass(frozen=True, slots=True)
class Kind:
    """How the cells of a column are read.

    Attributes:
        type: Of the column that is read.
        read_one: Reads one cell; None if it cannot be read as this kind.
        read_plain: Reads a column of strings or whole numbers at once. Returns the column, and for which cells it is right,
            bool; the others are read one by one. None if there is no such way.
        fault: Says why a cell cannot be read as this kind; None where such a cell counts as empty.
        unescapes: Whether HTML entities are replaced by the characters that they stand for.
        read_typed: Reads a column of any other type at once; None where it does not know the type, or there is no such way.
    """

    type: pa.DataType
    read_one: Callable[[object], object]
    read_plain: Callable[[pa.Array], tuple[pa.Array, np.ndarray]] | None
    fault: Callable[[object], str] | None
    unescapes: bool = False
    read_typed: Callable[[pa.Array], pa.Array | None] | None = None

    def read(self, cells: pa.Array) -> pa.Array:
        """Read a column; cells that cannot be read are null. Cells of the type `arrow.json` are read one by one."""
        cells = _as_text(cells)
        if self.read_typed and (typed := self.read_typed(cells)) is not None:
            return typed
        if self.read_plain is None or not (pa.types.is_string(cells.type) or pa.types.is_integer(cells.type)):
            return pa.array(map(self.read_one, _values(cells)), self.type)
        column, is_plain = self.read_plain(cells)
        if is_plain.all():
            return column
        rest = pa.array(map(self.read_one, cells.filter(pa.array(~is_plain)).to_pylist()), self.type)
        return pc.replace_with_mask(column, pa.array(~is_plain), rest)

    def faults(self, cells: pa.Array, read: pa.Array) -> dict[str, np.ndarray]:
        """Reason -> which cells could not be read for it, bool.

        Args:
            read: What `read` returned for the cells.
        """
        if self.fault is None:
            return {}
        broken = np.flatnonzero(read.is_null().to_numpy(zero_copy_only=False))
        faults: dict[str, np.ndarray] = {}
        for index, value in zip(broken.tolist(), _values(_as_text(cells).take(pa.array(broken))), strict=True):
            faults.setdefault(self.fault(value), np.zeros(len(cells), dtype=bool))[index] = True
        return faults


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
    """Cells as Python values. Short floats stay short: which whole numbers they hold exactly depends on their size."""
    if isinstance(cells.type, pa.JsonType):
        return [None if cell is None else json.loads(cell) for cell in cells.storage.to_pylist()]
    try:
        values = cells.to_pylist(maps_as_pydicts="lossy")
    except (OverflowError, ValueError):
        if not pa.types.is_temporal(cells.type):
            raise
        return [_time(cell) for cell in cells]
    short = {pa.float32(): np.float32, pa.float16(): np.float16}
    if shorten := short.get(cells.type):
        return [None if value is None else shorten(value) for value in values]
    if isinstance(cells.type, (pa.ListType, pa.LargeListType)) and (shorten := short.get(cells.type.value_type)):
        return [value and [None if part is None else shorten(part) for part in value] for value in values]
    return values


def _time(cell: pa.Scalar) -> object:
    """A date or time as a Python value; None if it is none, or lies beyond the year 9999."""
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        return None


def identifier(value: object) -> str | None:
    """An id as text. A whole number that was stored as a float is written as digits: 12.0 becomes 12.

    None for a missing value, for text that cannot be printed, for objects and lists, and for a float so large that it does
    not hold every whole number: different ids may have become equal.
    """
    try:
        value = _unwrapped(value)
    except InputError:  # bytes that are not UTF-8
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
        text = str(int(whole[1] + whole[2]))
    return text if text.isprintable() and text.casefold() not in _MISSING and text not in _INFINITE else None


def _unwrapped(value: object) -> object:
    if isinstance(value, Mapping) and set(value) == {"$oid"}:
        value = value["$oid"]
    return unwrap(value)


def _is_inexact(value: object) -> bool:
    """Whether a value is a float too large to hold every whole number, or the text of one."""
    if isinstance(value, str):
        whole = _FLOAT.fullmatch(value.strip())
        return whole is not None and (whole[2] is None or len(whole[2]) > 16 or int(whole[2]) >= 2**53)
    # The limit is 2^53 for 64-bit floats, 2^24 for 32-bit ones. Infinity counts as inexact.
    return isinstance(value, (float, np.floating)) and not abs(float(value)) < 2.0 ** (np.finfo(type(value)).nmant + 1)


def _id_fault(value: object) -> str:
    try:
        value = _unwrapped(value)
    except InputError:  # bytes that are not UTF-8
        return "an id that is not UTF-8"
    if isinstance(value, (Mapping, list, tuple)):
        return "an object or a list in place of an id"
    if not is_missing(value) and _is_inexact(value):
        return "an id that lost digits as a float"
    if not is_missing(value) and not str(value).strip().isprintable():
        return "an id with invisible characters"
    return "no id"


def timestamp_of(value: object) -> float | None:
    """A timestamp as a number: numbers stay as they are, ISO 8601 dates become seconds since 1970 (UTC by default).

    None for what is neither, and for a number that lost digits: different times may have become equal.
    """
    if _lost_digits(value):
        return None
    moment = _number_or_date(value)
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return moment


def _lost_digits(value: object) -> bool:
    """Whether a time is a short float too large to hold every whole number, or was written with fewer digits than it has."""
    if isinstance(value, (np.float32, np.float16)):
        return bool(np.isfinite(value)) and _is_inexact(value)
    written = _EXPONENT.fullmatch(value.strip()) if isinstance(value, str) else None
    return written is not None and len(written[1] or "") < int(written[2])


def _time_fault(value: object) -> str:
    return "a time that lost digits as a float" if _lost_digits(value) else "neither a number nor an ISO 8601 date"


def _number_or_date(value: object) -> float | datetime | None:
    """A finite number, or the date and time that a value is; None if it is neither."""
    try:
        value = unwrap(value)
    except InputError:  # bytes that are not UTF-8
        return None
    if is_missing(value):
        return None
    if isinstance(value, datetime):
        return value
    try:
        number = float(str(value))
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(_UTC.sub("+00:00", str(value).strip()))
    except ValueError:
        return None


def _is_dated(value: object) -> bool:
    """Whether a timestamp is written as a date, which becomes seconds, and not as a number in the unit of the log."""
    return isinstance(_number_or_date(value), datetime)


def _is_zoned(value: object) -> bool:
    """Whether a timestamp is written as a date with a time zone."""
    moment = _number_or_date(value)
    return isinstance(moment, datetime) and moment.tzinfo is not None


def number(value: object) -> float | None:
    """A finite number, such as a rating."""
    try:
        parsed = float(str(unwrap(value)))
    except ValueError:  # bytes that are no UTF-8 too
        return None
    return parsed if math.isfinite(parsed) else None


def identifiers(value: object, separator: str = " ") -> list[str] | None:
    """Ids from a list, or from text that holds one, see `id_lists.split`; None if it cannot be read."""
    value = _listed(value, separator)
    if value is None:
        return None
    ids = [text for part in value if (text := identifier(part)) is not None]
    return ids if len(ids) == len(value) else None


def _listed(value: object, separator: str = " ") -> list[object] | None:
    if isinstance(value, str):
        value = id_lists.split(value, separator)
    return value if isinstance(value, list) else None


def _list_fault(value: object, separator: str = " ") -> str:
    bad = [_id_fault(part) for part in _listed(value, separator) or () if identifier(part) is None]
    return f"a list with {bad[0]}" if bad and bad[0] != "no id" else "no list of ids"


def _read_plain_ids(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    return texts, _matches(texts, _ID)


def are_ids(texts: pa.Array) -> np.ndarray:
    """Which texts are ids of printable ASCII without spaces, so that a list of them may be separated by spaces; bool."""
    good = _matches(texts, _ID)
    if not good.all():
        rest = np.flatnonzero(~good & _matches(texts, "^[!-~]+$"))
        good[rest] = [identifier(text) == text for text in texts.take(pa.array(rest)).to_pylist()]
    return good


def _read_plain_numbers(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    is_plain = _matches(texts, _NUMBER)
    return pc.if_else(pa.array(is_plain), texts, None).cast(pa.float64()), is_plain


def _read_plain_dated(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    dated = _matches(texts, r"^[0-9]{4}-")
    return pa.array(dated), dated | _matches(texts, _NUMBER)


def _read_plain_zoned(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    never = _matches(texts, _NUMBER) | _matches(texts, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9:.]+)?$")
    zoned = _matches(texts, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9:.]+(?:Z| UTC|[+-][0-9]{2}:?[0-9]{2})$")
    return pa.array(zoned), never | zoned


def _are_dates(cells: pa.Array, zoned: bool) -> pa.Array | None:
    """For columns of Arrow's times and numbers: which cells are dates, or `zoned`, dates with a time zone."""
    if pa.types.is_timestamp(cells.type):
        return cells.is_valid() if not zoned or cells.type.tz else pa.array(np.zeros(len(cells), bool))
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
        return pa.array(np.zeros(len(cells), bool))
    return None


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False).copy()


def count_escaped(cells: pa.Array) -> int:
    """Number of cells with HTML entities, which `text` replaces by the characters that they stand for."""
    cells = _as_text(cells)
    if isinstance(cells.type, pa.JsonType):
        cells = cells.storage
    if pa.types.is_nested(cells.type):
        cells = pa.array(map(str, cells.to_pylist()), pa.string())
    if not pa.types.is_string(cells.type):
        return 0
    some = cells.filter(pa.array(_matches(cells, ESCAPED)))
    return sum(unescape(cell) != cell for cell in some.to_pylist())


def text(words: int = 40, values: int = 0) -> Kind:
    """Texts, shortened as by `core.history.field_text`: at most `words` words, or `values` values of a list; 0 = all."""
    longer = rf"^((?:[^ ]+ ){{{max(words - 1, 0)}}}[^ ]*) .*$"

    def read_plain(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
        texts = clean_column(unescape_column(cells.cast(pa.string())))
        if not words:
            return texts, np.ones(len(cells), dtype=bool)
        first_words = pc.replace_substring_regex(texts, longer, r"\1")
        cut = pc.if_else(pc.equal(first_words, texts), texts, pc.utf8_rtrim(first_words, ", "))
        ascii_only = pc.all(pc.string_is_ascii(texts)).as_py()
        return cut, np.ones(len(cells), dtype=bool) if ascii_only else ~_matches(texts, UNSPACED_CHARACTER)

    def read_one(value: object) -> str:
        return field_text(value, words, values)

    return Kind(
        pa.string(), _unless_unreadable(read_one), read_plain if words <= 1000 else None, _no_text, unescapes=True
    )


def _read_plain_whole_texts(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return clean_column(cells.cast(pa.string())), np.ones(len(cells), dtype=bool)


def _unless_unreadable(read: Callable[[object], str]) -> Callable[[object], str | None]:
    def read_one(value: object) -> str | None:
        try:
            return read(value)
        except InputError:
            return None

    return read_one


def _no_text(value: object) -> str:
    try:
        flat(value)
    except InputError as error:
        return str(error).partition(":")[0]
    return "no text"


ID = Kind(pa.string(), identifier, _read_plain_ids, _id_fault)
TIMESTAMP = Kind(pa.float64(), timestamp_of, _read_plain_numbers, _time_fault)
DATED = Kind(pa.bool_(), _is_dated, _read_plain_dated, None, read_typed=partial(_are_dates, zoned=False))
ZONED = Kind(pa.bool_(), _is_zoned, _read_plain_zoned, None, read_typed=partial(_are_dates, zoned=True))
# Text as it is; any other value is read as a space, so that it counts as filled.
RAW = Kind(pa.string(), lambda value: value if isinstance(value, str) else " ", None, _no_text)


def ids(separator: str = " ") -> Kind:
    """Lists of ids; text without brackets is split at `separator`."""
    read, fault = partial(identifiers, separator=separator), partial(_list_fault, separator=separator)
    return Kind(pa.list_(pa.string()), read, None, fault)


IDS = ids()
NUMBER = Kind(pa.float64(), number, _read_plain_numbers, None)
NAME = Kind(pa.string(), identifier, None, None)
WHOLE_TEXT = Kind(pa.string(), _unless_unreadable(whole_text), _read_plain_whole_texts, _no_text)
