"""Read what a visitor pastes into items, within limits: an item a line, a JSON list, or a table.

Knows nothing of models or pages.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from itertools import accumulate

MOST = {"history": 100, "candidates": 50, "exclude": 100}  # items
LONGEST = 1_000  # characters of an item, as the prompt shows it
LONGEST_SUMMARY = 20_000  # of a model that is allowed some thousand tokens too, for the page shows it to be edited
LONGEST_TEXT = 100_000  # characters pasted at once

Given = str | dict[str, object]


def items(text: str, name: str) -> list[Given]:
    """Read a list of items, oldest first.

    A JSON list of strings or of objects is read as one. Text whose first line is a header with a column `title` or `text`
    is a table, separated by tabs or commas; a line with a colon or a semicolon is no header. All other text has an item a
    line; empty lines are left out.

    Args:
        text: What was pasted.
        name: A key of `MOST`, which says how many items are taken.

    Raises:
        ValueError: If the text cannot be read, or is past the limits.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name}: {len(text)} characters, at most {LONGEST_TEXT} are taken here.")
    text = text.strip().removeprefix("\ufeff")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = _json(text, name)
    if found is None and len(lines) > 1 and (separator := _separator(lines[0])):
        found = _table(text, separator, name)
    elif found is None:
        found = list(lines)
    if len(found) > MOST[name]:
        raise ValueError(f"{name}: {len(found)} items, at most {MOST[name]} are taken here.")
    return found


def whole(value: object, name: str) -> int:
    """A whole number, also as a float, as JSON and sliders have it. Raises ValueError for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise ValueError(f"{name}: expected a whole number, got {value!r}.")
    return int(value)


def summary(text: str) -> str:
    """A summary as it was typed, without space around it. Raises ValueError past the limit."""
    if len(text) > LONGEST_SUMMARY:
        raise ValueError(f"summary: {len(text)} characters, at most {LONGEST_SUMMARY} are taken here.")
    return text.strip()


def fitting(texts: Sequence[str], name: str) -> list[str]:
    """The first of `texts` that are taken at once, by their number and by their characters when they are `written`."""
    lengths = accumulate(len(json.dumps(text, ensure_ascii=False)) + 2 for text in texts)
    return [text for text, length in zip(texts[: MOST[name]], lengths, strict=False) if length <= LONGEST_TEXT - 2]


def written(texts: Sequence[str], name: str) -> str:
    """What `items` reads as these texts: one a line, or a JSON list where lines would be taken for something else."""
    lines = "\n".join(texts)
    try:
        as_lines = items(lines, name) == list(texts)
    except ValueError:
        as_lines = False
    return lines if as_lines else json.dumps(texts, ensure_ascii=False, indent=0)


def _json(text: str, name: str) -> list[Given] | None:
    """The list that JSON text holds; None for other text."""
    if not re.match(r'\[\s*["{\]]', text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        # A title may begin with such a bracket; a list also ends as one.
        if not re.search(r'["}]\s*\]$', text):
            return None
        raise ValueError(f"{name}: begins and ends as a JSON list, and is none: {error}. Correct it.") from None
    for place, one in enumerate(found, 1):
        if not isinstance(one, (str, dict)):
            raise ValueError(f"{name}, item {place}: expected a string or an object of fields.")
    return found


def _separator(header: str) -> str | None:
    """What separates the columns of a table that has this first line; None if it heads no table."""
    if re.search("[:;]", header):
        return None
    for separator in "\t,":
        if {"title", "text"} & {cell.strip().strip('"').lower() for cell in header.split(separator)}:
            return separator
    return None


def _table(text: str, separator: str, name: str) -> list[Given]:
    found: list[Given] = []
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        for place, row in enumerate(rows, 1):
            if None in row or None in row.values():
                raise ValueError(
                    f"{name}, row {place}: expected {len(rows.fieldnames or ())} cells, as the header has. If the first "
                    "line is an item and no header, give a JSON list."
                )
            found.append({str(field).strip().lower(): cell for field, cell in row.items() if cell.strip()})
    except csv.Error as error:
        raise ValueError(f"{name}: begins as a table and cannot be read as one: {error}") from None
    return found
