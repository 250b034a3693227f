"""Parse JSON lines into columns: all lines at once if their types agree, else line by line, with the same result."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import json as arrow

_SAMPLE_BYTES = 1 << 16  # first bytes of a block, from which the types of its columns are taken


def parse(content: bytes, first: int, wanted: Sequence[str]) -> tuple[pa.Table, np.ndarray, list[tuple[int, str]]]:
    """The values of the wanted keys as columns, the line number of each row, and broken lines with the reason.

    Args:
        content: Whole lines.
        first: Line number of the first.

    Returns:
        Columns of strings, whole numbers, booleans or lists of them; of the type `arrow.json` if a column holds other values.
        A missing key is null.
    """
    lines = content.split(b"\n")
    filled = np.array([number for number, line in enumerate(lines) if line.strip()], dtype=int)
    table = _parse_at_once(content, wanted)
    if table is not None and len(table) == len(filled):
        return table, first + filled, []
    rows: list[dict[str, Any]] = []
    good: list[int] = []
    broken = []
    for number in filled.tolist():
        parsed = _object(lines[number])
        if isinstance(parsed, str):
            broken.append((first + number, parsed))
        else:
            rows.append(parsed)
            good.append(first + number)
    columns = [pa.array([json.dumps(row.get(name)) for row in rows], pa.json_()) for name in wanted]
    return pa.table(columns, names=list(wanted)), np.array(good, dtype=int), broken


def keys(lines: Iterable[bytes]) -> list[str]:
    """All keys of the objects, in the order of their first occurrence."""
    objects = (_object(line) for line in lines if line.strip())
    return list(dict.fromkeys(name for row in objects if isinstance(row, dict) for name in row))


def loads(text: str) -> Any:
    """`json.loads`, but a whole number with more digits than Python takes is its digits as text.

    Raises:
        json.JSONDecodeError: If it is no JSON.
        RecursionError: If it is nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def _object(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or the reason why there is none."""
    try:
        row = loads(line.decode("utf-8-sig"))
        json.dumps(row, ensure_ascii=False).encode()  # escapes may encode lone surrogates
    except UnicodeError:
        return "not UTF-8"
    except (json.JSONDecodeError, RecursionError):
        return "no JSON"
    return row if isinstance(row, dict) else "no JSON object"


def _parse_at_once(content: bytes, wanted: Sequence[str]) -> pa.Table | None:
    """`parse` of all lines at once; None if a line is broken, or pyarrow would change how a value was written."""
    sample = content[: content.find(b"\n", _SAMPLE_BYTES) + 1] or content
    options = {"use_threads": False, "block_size": len(content) + 1}
    try:
        content.decode()
        types = arrow.read_json(pa.BufferReader(sample), arrow.ReadOptions(**options)).schema
        schema = pa.schema({name: _type(types.field(name).type) for name in wanted if name in types.names})
        schema = pa.schema([*schema, *(pa.field(name, pa.string()) for name in wanted if name not in types.names)])
        table = arrow.read_json(
            pa.BufferReader(content),
            arrow.ReadOptions(**options),
            arrow.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowException, UnicodeError, TypeError):
        return None
    return table.select(list(wanted))


def _type(kind: pa.DataType) -> pa.DataType:
    """The type to read a column with. Raises TypeError for a type that changes how a value was written: 1.0, or 1e400."""
    if pa.types.is_list(kind):
        return pa.list_(_type(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        return pa.string()  # dates are read as texts
    if pa.types.is_int64(kind) or pa.types.is_boolean(kind):
        return kind
    raise TypeError(str(kind))
