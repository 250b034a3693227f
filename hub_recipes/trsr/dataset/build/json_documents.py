"""One JSON document -> its rows: an array of objects, an object of objects, or columns as pandas writes them."""

import json
from collections.abc import Iterable
from typing import IO, Any

from trsr.errors import DataError


def rows(file: IO[bytes], name: str, key: str) -> list[Any] | None:
    """The rows of a document; None if the file is no document, but has an object a line.

    Args:
        file: In UTF-8, at its beginning.
        name: What messages call it.
        key: What the keys of an object of objects are called as a column, where the objects have no such key.

    Raises:
        DataError: If it is a document of another kind.
    """
    first = next((line for line in file if line.strip(b"\xef\xbb\xbf \t\r\n")), b"").lstrip(b"\xef\xbb\xbf \t")
    if first[:1] not in (b"[", b"{"):
        return None
    try:
        found = json.loads(first.decode())
        alone = not any(line.strip() for line in file)
        return _listed(found, key) if alone else None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        pass  # the first line is no whole value
    try:
        found = json.loads((first + file.read()).decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        if first[:1] == b"[":
            raise DataError(f"{name} begins as a JSON array, and is none: {error}. Mend it.") from None
        return None
    if (listed := _listed(found, key)) is None:
        raise DataError(
            f"{name} is one JSON document, but neither an array of objects nor an object of objects. Write an array of "
            "objects, or an object a line."
        )
    return listed


def _listed(found: Any, key: str) -> list[Any] | None:
    if isinstance(found, list):
        return found if any(isinstance(row, dict) for row in found) else None
    if not isinstance(found, dict) or not found or not all(isinstance(row, dict) for row in found.values()):
        return None
    if key in found:  # pandas' to_json: column -> row -> cell
        return [{name: cells.get(row) for name, cells in found.items()} for row in found[key]]
    return [{key: row_key, **row} for row_key, row in found.items()]


def lines(listed: Iterable[Any]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in listed)
