"""Read the rows of a single JSON document: an array of objects, an object of objects, or columns as pandas writes them."""

import json
from collections.abc import Iterable
from typing import IO, Any

from trsr.dataset.build import jsonl
from trsr.errors import DataError


def rows(file: IO[bytes], name: str, key: str) -> list[Any] | None:
    """The rows of a JSON document; None if the file is not a single document, but JSON lines.

    Args:
        file: In UTF-8, at its beginning.
        name: Of the file, for messages.
        key: Column name for the keys of an object of objects, unless the objects have such a key themselves.

    Raises:
        DataError: If it is a document of another form.
    """
    first = next((line for line in file if line.strip(b"\xef\xbb\xbf \t\r\n")), b"").lstrip(b"\xef\xbb\xbf \t")
    if first[:1] not in (b"[", b"{"):
        return None
    try:
        value = jsonl.loads(first.decode())
        is_only_line = not any(line.strip() for line in file)
        return _as_rows(value, key) if is_only_line else None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        pass  # the first line is not a whole JSON value
    try:
        value = jsonl.loads((first + file.read()).decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        if first[:1] == b"[":
            raise DataError(f"{name} begins as a JSON array, and is none: {error}. Mend it.") from None
        return None
    if (table_rows := _as_rows(value, key)) is None:
        raise DataError(
            f"{name} is one JSON document, but neither an array of objects nor an object of objects. Write an array of "
            "objects, or an object a line."
        )
    return table_rows


def _as_rows(value: Any, key: str) -> list[Any] | None:
    if isinstance(value, list):
        return value if any(isinstance(row, dict) for row in value) else None
    if not isinstance(value, dict) or not value or not all(isinstance(row, dict) for row in value.values()):
        return None
    if key in value:  # pandas' to_json: column -> row -> cell
        return [{name: cells.get(row) for name, cells in value.items()} for row in value[key]]
    return [{key: row_key, **row} for row_key, row in value.items()]


def lines(table_rows: Iterable[Any]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in table_rows)
