"""Read a user's table as columns of known kinds: CSV, TSV, JSON and Parquet, plain or .gz. Broken rows are reported.

TSV cells are not quoted. `table_files` finds out how a file is written.
"""

import gzip
import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trsr.dataset.build import jsonl
from trsr.dataset.build.column_types import Kind, count_escaped
from trsr.dataset.build.scan import Faults, Masks, Reading, Source, scan
from trsr.dataset.build.table_files import Table
from trsr.dataset.contract import one_chunk
from trsr.errors import DataError

WantedColumns = Mapping[str, tuple[str, Kind]]  # new name -> its column in the file, and how to read it
Read = Callable[[pa.Table], tuple[pa.Table, Masks]]


def read(
    table: Table,
    wanted: WantedColumns,
    faults: Faults,
    *,
    workers: int = 1,
    limit: int = 0,
    optional: Collection[str] = (),
) -> tuple[pa.Table, Reading]:
    """Read the wanted columns of all rows that are not broken.

    Args:
        faults: Broken rows are added to it, also those with a cell that its kind cannot read.
        limit: Read only this many rows; 0 = all.
        optional: Columns whose unreadable cells are null in a row that stays; it counts as broken all the same.

    Raises:
        DataError: If the file cannot be read, has no rows, or lacks a column; at a broken row, if faults are strict.
    """
    wanted = {name: (table.in_file(column), kind) for name, (column, kind) in wanted.items()}
    names = list(dict.fromkeys(column for column, _ in wanted.values()))

    def process(rows: pa.Table) -> tuple[pa.Table, Masks]:
        cells = {column: one_chunk(rows[column]) for column in names}
        columns = {name: kind.read(cells[column]) for name, (column, kind) in wanted.items()}
        valid = np.ones(len(rows), dtype=bool)
        reported = np.zeros(len(rows), dtype=bool)
        masks: Masks = {}
        for name, (column, kind) in wanted.items():
            for cause, broken in kind.faults(cells[column], columns[name]).items():
                reason = f"{cause} in column {column!r}"
                first = broken & ~reported
                masks[reason] = masks.get(reason, False) | first
                reported |= first
                if name not in optional:
                    valid = valid & ~broken
        texts = {column for column, kind in wanted.values() if kind.unescapes}
        escaped.append(sum(count_escaped(cells[column]) for column in texts))
        return pa.table(columns).filter(pa.array(valid)), masks

    reading, escaped = Reading(), list[int]()  # one number a block; appending to a list is safe on several threads
    if table.layout is None or table.document:
        batches = _document(table, names, faults, reading) if table.document else _batches(table, names, reading)
        parts = _process_batches(batches, table.name, process, faults, reading, limit)
    else:
        layout = replace(table.layout, names=tuple(names)) if table.layout.objects else table.layout
        parts = list(scan(table.source, layout, names, process, faults, reading, workers=workers, limit=limit))
    table_read = pa.concat_tables(parts) if parts else None
    reading.unescaped = sum(escaped)
    if table.columns is None:
        # A key may be missing in some objects. Whether it is missing in all is checked only if its column is empty.
        filled = {
            column for name, (column, _) in wanted.items() if table_read is not None and not _blank(table_read[name])
        }
        keys = names if filled.issuperset(names) else table.names()
        for name in names if keys else ():  # without keys there are no rows either
            replace(table, columns=dict(zip(keys, keys, strict=True))).in_file(name)
    unread = [name for name in optional if name in wanted]
    if not table_read or any(table_read[name].null_count == len(table_read) for name in unread):
        raise DataError(f"{table.name} has no rows that can be used.")
    return table_read, reading


def _blank(column: pa.ChunkedArray) -> bool:
    return column.null_count == len(column) or (
        pa.types.is_string(column.type) and pc.all(pc.equal(column, "")).as_py()
    )


def parquet_table(path: Path) -> Table:
    """A Parquet file. Raises DataError if it is none."""
    names = _parquet(path).schema_arrow.names
    return Table(Source(path, None, path.name, path.stat().st_size), "parquet", dict(zip(names, names, strict=True)))


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        # Parquet is read from its end, to which a compressed stream cannot seek cheaply.
        return pq.ParquetFile(io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix.lower() == ".gz" else path)
    except (EOFError, OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}") from error


Batch = tuple[pa.Table, np.ndarray]  # rows, and their numbers from 1


def _batches(table: Table, names: list[str], reading: Reading) -> Iterator[Batch]:
    """The rows of a Parquet file."""
    path, first = table.source.path, 1
    try:
        for batch in _parquet(path).iter_batches(columns=names):
            batch.validate(full=True)  # raises for text that is not UTF-8
            yield pa.table(batch), np.arange(first, first + len(batch))
            first += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}") from error
    with path.open("rb") as raw:
        reading.sha256 = hashlib.file_digest(raw, "sha256").hexdigest()


def _document(table: Table, names: list[str], faults: Faults, reading: Reading) -> Iterator[Batch]:
    """The rows of a JSON document; rows that are not objects are reported."""
    assert table.document is not None
    content, sha256 = table.document
    rows, numbers, broken = jsonl.parse(content, 1, names)
    for number, reason in broken:
        faults.add(f"{table.name}, row {number}", reason)
    reading.broken += len(broken)
    reading.lines += len(broken)
    reading.rows += len(broken)
    yield rows, numbers
    reading.sha256 = sha256


def _process_batches(
    batches: Iterator[Batch], name: str, process: Read, faults: Faults, reading: Reading, limit: int
) -> list[pa.Table]:
    """The results of `process` for batches of rows; broken rows are reported by their number."""
    parts = []
    for batch, numbers in batches:
        rows = batch.slice(0, max(limit - reading.rows, 0) if limit else len(batch))
        part, masks = process(rows)
        parts.append(part)
        for reason, mask in masks.items():
            reading.broken += int(mask.sum())
            reading.lines = reading.broken
            for row in np.flatnonzero(mask).tolist():
                faults.add(f"{name}, row {numbers[row]}", reason)
        reading.rows += len(rows)
        if limit and reading.rows >= limit:
            break
    return parts
