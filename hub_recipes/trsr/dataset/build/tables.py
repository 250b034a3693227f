"""Somebody's table as columns of known kinds: CSV, TSV, JSON lines and Parquet, plain or .gz; broken rows are named.

TSV cells are taken as they are, without quoting.
"""

import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trsr.dataset.build import jsonl
from trsr.dataset.build.column_types import Kind, count_escaped
from trsr.dataset.build.csv_blocks import Layout, blocks, check_column
from trsr.dataset.build.scan import BLOCK, Faults, Masks, Reading, Source, scan
from trsr.dataset.contract import one_chunk
from trsr.errors import DataError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_LAYOUTS = {"csv": Layout(",", True), "tsv": Layout("\t", False), "jsonl": Layout("", False, objects=True)}
Wanted = Mapping[str, tuple[str, Kind]]  # what it is called from here on -> its column, and how to read it


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


def columns(path: Path, form: str) -> list[str]:
    """The columns of a table; of JSON lines all keys, in the order in which they are met.

    Raises:
        DataError: If the file cannot be read.
    """
    if form == "parquet":
        return _parquet(path).schema_arrow.names
    source = _source(path)
    try:
        with source.open() as raw:
            if form == "jsonl":
                return jsonl.keys(raw)
            first = next(blocks(raw, _LAYOUTS[form], BLOCK, lambda piece: None, lambda count: None, path.name))
    except (EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be read as {form}: {error}") from error
    return list(first.columns)


def read(
    path: Path, form: str, wanted: Wanted, faults: Faults, *, workers: int = 1, limit: int = 0
) -> tuple[pa.Table, Reading]:
    """The wanted columns of all rows that are not broken.

    Args:
        faults: Takes the broken rows: also those in which a cell is not of its kind, where the kind says so.
        limit: Read so many rows only; 0 = all.

    Raises:
        DataError: If the file cannot be read, has no rows, or lacks a column; at a broken row, if faults are strict.
    """
    names = list(dict.fromkeys(column for column, _ in wanted.values()))
    if form != "jsonl":
        known = columns(path, form)
        for name in names:
            check_column(name, known, path.name)

    def work(table: pa.Table) -> tuple[pa.Table, Masks]:
        cells = {column: one_chunk(table[column]) for column in names}
        made = {name: kind.read(cells[column]) for name, (column, kind) in wanted.items()}
        whole = np.ones(len(table), dtype=bool)
        masks: Masks = {}
        for name, (column, kind) in wanted.items():
            for why, broken in kind.faults(cells[column], made[name]).items():
                reason = f"{why} in column {column!r}"
                masks[reason] = masks.get(reason, ~whole & whole) | (whole & broken)
                whole = whole & ~broken
        texts = {column for column, kind in wanted.values() if kind.unescapes}
        escaped.append(sum(count_escaped(cells[column]) for column in texts))
        return pa.table(made).filter(pa.array(whole)), masks

    reading, escaped = Reading(), list[int]()  # a block each: appending is safe on several threads
    if form == "parquet":
        parts = _scan_parquet(path, names, work, faults, reading, limit)
    else:
        layout = _LAYOUTS[form]
        layout = replace(layout, names=tuple(names)) if layout.objects else layout
        parts = list(scan(_source(path), layout, names, work, faults, reading, workers=workers, limit=limit))
    table = pa.concat_tables(parts) if parts else None
    reading.unescaped = sum(escaped)
    if form == "jsonl":
        # Objects may lack a key; that all of them do is looked at only where nothing was found.
        found = {column for name, (column, _) in wanted.items() if table is not None and not _blank(table[name])}
        known = names if found.issuperset(names) else columns(path, form)
        for name in names:
            check_column(name, known, path.name)
    if table is None or not len(table):
        raise DataError(f"{path.name} has no rows that can be used.")
    return table, reading


def _blank(column: pa.ChunkedArray) -> bool:
    return column.null_count == len(column) or (
        pa.types.is_string(column.type) and pc.all(pc.equal(column, "")).as_py()
    )


def _source(path: Path) -> Source:
    return Source(path, None, path.name, path.stat().st_size)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        # Parquet is read from its end; a compressed stream cannot seek there cheaply.
        return pq.ParquetFile(io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path)
    except (EOFError, OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}") from error


def _scan_parquet(path: Path, names: list[str], work, faults: Faults, reading: Reading, limit: int) -> list[pa.Table]:
    parts = []
    try:
        for batch in _parquet(path).iter_batches(columns=names):
            batch.validate(full=True)  # text that is none is seen here
            table = pa.table(batch).slice(0, limit - reading.rows if limit else len(batch))
            made, masks = work(table)
            parts.append(made)
            for reason, mask in masks.items():
                reading.broken += int(mask.sum())
                reading.lines = reading.broken
                for row in np.flatnonzero(mask).tolist():
                    faults.add(f"{path.name}, row {reading.rows + row + 1}", reason)
            reading.rows += len(table)
            if limit and reading.rows >= limit:
                return parts
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}") from error
    with path.open("rb") as raw:
        reading.sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return parts
