"""What the cells of somebody's table mean: ids, points in time, texts and lists of ids, whatever type they come in.

A kind reads whole columns; only values that are not plain are looked at one by one, with the same result.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.history import field_text
from trsr.dataset.build.item_text import clean_column

_ID = "^[!-~]+$"
# Fifteen digits are exact in a float.
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,3})?$"


@dataclass(frozen=True, slots=True)
class Kind:
    """How cells are read.

    Attributes:
        type: Of what is read.
        one: A cell; None if it holds no such thing.
        plain: Of strings and whole numbers: what was read, and which cells it holds for, bool.
        fault: What is wrong with a cell that holds no such thing; "" where an empty one will do.
    """

    type: pa.DataType
    one: Callable[[object], object]
    plain: Callable[[pa.Array], tuple[pa.Array, np.ndarray]] | None
    fault: str = ""

    def read(self, cells: pa.Array) -> pa.Array:
        """A column; null for cells that hold no such thing. Of the type `arrow.json`, cells are looked at one by one."""
        if isinstance(cells.type, pa.JsonType):
            return pa.array([self.one(json.loads(cell)) for cell in cells.storage.to_pylist()], self.type)
        if self.plain is None or not (pa.types.is_string(cells.type) or pa.types.is_integer(cells.type)):
            return pa.array(map(self.one, cells.to_pylist()), self.type)
        made, plain = self.plain(cells)
        if plain.all():
            return made
        rest = pa.array(map(self.one, cells.filter(pa.array(~plain)).to_pylist()), self.type)
        return pc.replace_with_mask(made, pa.array(~plain), rest)


def identifier(value: object) -> str | None:
    """An id as text; 12.0, as a column with gaps has it, is 12."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    return text if text and text.isprintable() else None


def moment(value: object) -> float | None:
    """A point in time as a number: numbers stay, ISO 8601 dates become seconds since 1970 (UTC unless they say)."""
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


def number(value: object) -> float | None:
    """A finite number, such as a rating."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def identifiers(value: object) -> list[str] | None:
    """A list of ids, or text that holds one: JSON or ids between spaces."""
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            value = value.split()
        else:
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                return None
    if not isinstance(value, list):
        return None
    made = [found for part in value if (found := identifier(part)) is not None]
    return made if len(made) == len(value) else None


def _plain_ids(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    made = cells.cast(pa.string())
    return made, _is(made, _ID)


def _plain_moments(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    texts = cells.cast(pa.string())
    plain = _is(texts, _NUMBER)
    return pc.if_else(pa.array(plain), texts, None).cast(pa.float64()), plain


def _is(texts: pa.Array, pattern: str) -> np.ndarray:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)


def text(words: int = 40, values: int = 0) -> Kind:
    """Texts as `core.history.field_text` gives them: at most `words` words, of lists `values` values; 0 = all."""
    # The first words, less the commas at their end.
    longer = rf"^((?:[^ ]+ ){{{max(words - 1, 0)}}}[^ ]*?),* .*$"

    def plain(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
        made = clean_column(cells.cast(pa.string()))
        if words:
            made = pc.replace_substring_regex(made, longer, r"\1")
        return made, np.ones(len(cells), dtype=bool)

    return Kind(pa.string(), lambda value: field_text(value, words, values), plain if words <= 1000 else None)


ID = Kind(pa.string(), identifier, _plain_ids, "no id")
MOMENT = Kind(pa.float64(), moment, _plain_moments, "neither a number nor an ISO 8601 date")
IDS = Kind(pa.list_(pa.string()), identifiers, None, "no list of ids")
NUMBER = Kind(pa.float64(), number, _plain_moments)
