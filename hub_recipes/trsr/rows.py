"""Tables row by row, with the place of each row for messages: CSV, TSV, JSONL and Parquet, plain or .gz.

Slower than `sources`, and exact about what is wrong with a row.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trsr.blocks import check_column, check_header
from trsr.data import DataError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
Row = dict[str, object]


def format_of(path: Path, form: str | None = None) -> str:
    """The format of a table: as said, or by the file's name.

    Raises:
        DataError: If there is no such file, or its name tells no format.
    """
    if not path.is_file():
        raise DataError(f"No file at {str(path)!r}.")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if not (form := form or FORMATS.get(plain.suffix.lower())):
        raise DataError(f"{path.name}: its name tells no format; expected {', '.join(FORMATS)}, plain or .gz.")
    return form


def rows(path: Path, form: str | None = None) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a table; the place names file and line for messages.

    Args:
        form: A value of `FORMATS`; default by the file's name.

    Raises:
        DataError: If the file is missing, not UTF-8, or has a broken row.
    """
    form = format_of(path, form)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            if form == "parquet":
                yield from _parquet(path.name, raw)
            else:
                yield from (_jsonl if form == "jsonl" else _cells)(path.name, _lines(path.name, raw), form)
    except (EOFError, OSError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read as {form}: {error}") from error


def _lines(name: str, raw: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(raw, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 ({error}). Save the file as UTF-8.") from error
        yield text


def _cells(name: str, lines: Iterable[str], form: str) -> Iterator[tuple[str, Row]]:
    if form == "csv":
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] = []
    while True:
        place = f"{name}, line {reader.line_num + 1}"  # where the row starts: a quoted cell may span lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{place}: broken row: {error}.") from error
        if cells is None:
            return
        if not header:
            header = cells
            check_header(header, place)
        elif cells:
            if len(cells) != len(header):
                raise DataError(f"{place}: broken row: {len(cells)} cells, but the header has {len(header)}.")
            yield place, dict(zip(header, cells, strict=True))


def _jsonl(name: str, lines: Iterable[str], form: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}, line {number}: broken row: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number}: broken row: expected a JSON object, got {type(row).__name__}.")
        yield f"{name}, line {number}", row


def _parquet(name: str, raw: Any) -> Iterator[tuple[str, Row]]:
    # Parquet is read from its end; a compressed stream cannot seek there cheaply.
    source = io.BytesIO(raw.read()) if isinstance(raw, gzip.GzipFile) else raw
    number = 0
    for batch in pq.ParquetFile(source).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{name}, row {number}", row


def cell(row: Mapping[str, object], name: str, place: str) -> object:
    """The value of a column. Raises DataError, with the columns there are, if the row has no such column."""
    check_column(name, row, place)
    return row[name]
