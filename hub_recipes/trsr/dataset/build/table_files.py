"""How the file of a table is written: format, encoding, separator and columns, as its name, its first rows and the user say.

What was not found says which option would find it. Reads no rows: `tables` does.
"""

import csv
import hashlib
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from trsr.core.history import ID_FIELDS
from trsr.dataset.build import json_documents, jsonl, text_files
from trsr.dataset.build.csv_blocks import Layout, check_column, check_header
from trsr.dataset.build.scan import Source
from trsr.dataset.build.text_files import SEPARATOR, encoding_of, separator_bytes
from trsr.errors import DataError

# RecBole's atomic files are tables with tabs, and a header that tells the type of each column.
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".inter": "tsv",
    ".item": "tsv",
    ".user": "tsv",
}
_LAYOUTS = {"csv": Layout(",", True), "tsv": Layout("\t", False), "jsonl": Layout("", False, objects=True)}
_TYPED = re.compile(r"(.+):(?:token|token_seq|float|float_seq)")
_SEPARATORS = ("\t", "::", ";", "|", ",", "\x01", " ")
_ROWS = 20  # first rows that show the separator
_HEAD = 1 << 16  # bytes that hold them


@dataclass(frozen=True, slots=True)
class Table:
    """A table's file.

    Attributes:
        form: A value of FORMATS.
        columns: What a column is called here -> what the file calls it; None of JSON lines, which tell it at their end.
        layout: None of Parquet.
        hint: What to do where a column is not found.
        document: Of one JSON document its rows as JSON lines, and its SHA-256.
    """

    source: Source
    form: str
    columns: Mapping[str, str] | None
    layout: Layout | None = None
    hint: str = ""
    document: tuple[bytes, str] | None = None

    @property
    def name(self) -> str:
        return self.source.name

    def names(self) -> list[str]:
        """All columns; JSON lines are read to their end for it.

        Raises:
            DataError: If the file cannot be read.
        """
        if self.columns is not None:
            return list(self.columns)
        try:
            with self.source.open() as raw:
                return jsonl.keys(raw)
        except (EOFError, OSError) as error:
            raise DataError(f"{self.name} cannot be read as jsonl: {error}") from error

    def in_file(self, name: str) -> str:
        """What the file calls a column. Raises DataError, with what to do, if it has none of that name."""
        if self.columns is None:
            return name
        try:
            check_column(name, self.columns, self.name)
        except DataError as error:
            raise DataError(f"{error} {self.hint}".strip()) from None
        return self.columns[name]


def format_of(path: Path, form: str | None = None, sep: str | None = None) -> str:
    """The format of a table: as said, or by the file's name; with a separator, that of any other name is csv.

    Raises:
        DataError: If there is no such file, or its name tells no format.
    """
    if not path.is_file():
        raise DataError(f"No file at {str(path)!r}.")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if not (form := form or FORMATS.get(plain.suffix.lower(), "csv" if sep else None)):
        raise DataError(
            f"{path.name}: its name tells no format; expected {', '.join(FORMATS)}, plain or .gz. Give its separator "
            "(--sep), or its format (--items-format, --interactions-format)."
        )
    return form


def text_table(
    path: Path,
    form: str,
    *,
    sep: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    names: Sequence[str] = (),
    key: str = "id",
    data: Container[str] = (),
) -> Table:
    """A CSV, TSV or JSON file.

    Args:
        form: csv, tsv or jsonl.
        sep: Between two cells; default that of the format. Cells are taken without quoting where it has several bytes.
        encoding: Default as the file's first bytes tell.
        header: Whether the first row of a table names its columns; else they are called 1, 2, ...
        names: Of its columns, where there is no header.
        key: What the keys of a JSON object of objects are called as a column.
        data: Lower-case cells that no header has. With them, the first rows tell the separator and whether there is a
            header, and `encoding` is for a file that is not UTF-8.

    Raises:
        DataError: If the file cannot be read, is not in this encoding, or has no columns.
    """
    source = Source(path, None, path.name, path.stat().st_size)
    layout = _LAYOUTS[form]
    try:
        with source.open() as raw:
            start = raw.read(text_files.LOOK)
            if data and text_files.is_utf8(start):
                encoding = None
            source = replace(source, encoding=encoding_of(path.name, start, encoding))
        if form == "jsonl":
            return _json(source, layout, key)
        with source.open() as raw:
            head = raw.read(_HEAD)
    except (EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be read as {form}: {error}") from error
    text = head.decode("utf-8-sig", "replace")
    rows = text.replace("\r\n", "\n").replace("\r", " ").split("\n")
    rows = [row for row in (rows[:-1] if len(head) == _HEAD and len(rows) > 1 else rows) if row][:_ROWS]
    if not rows:
        raise DataError(f"{path.name} is empty: there is no header.")
    between = separator_bytes(sep) if sep else layout.delimiter.encode()
    if data:
        if len(_cells(rows, between.decode(), layout.quoted)[0]) == 1:
            between = _better_separator(rows, between.decode(), 1).encode() or between
        header = not any(cell.lower() in data for cell in _cells(rows, between.decode(), layout.quoted)[0])
    single = len(between) == 1
    source = replace(source, separator=None if single else between)
    layout = Layout((between if single else SEPARATOR).decode(), single and layout.quoted)
    first = _cells(rows, between.decode(), layout.quoted)[0]
    hint = _separator_hint(rows, between.decode(), len(first))
    if header and not names:
        return _named(source, form, layout, first, hint)
    return _unnamed(source, form, layout, first, names, hint)


def _json(source: Source, layout: Layout, key: str) -> Table:
    with source.open() as raw:
        rows = json_documents.rows(raw, source.name, key)
    if rows is None:
        return Table(source, "jsonl", None, layout)
    content = json_documents.lines(rows)
    digest = hashlib.sha256()
    with replace(source, encoding="utf-8").open() as raw:
        while piece := raw.read(1 << 20):
            digest.update(piece)
    columns = jsonl.keys(content.splitlines())
    return Table(
        source, "jsonl", dict(zip(columns, columns, strict=True)), layout, document=(content, digest.hexdigest())
    )


def _named(source: Source, form: str, layout: Layout, header: Sequence[str], hint: str) -> Table:
    """With the columns that the first row names, without RecBole's types."""
    numbers = sum(re.fullmatch(r"-?[0-9.]+", cell.strip()) is not None for cell in header)
    if not hint and (2 * numbers >= len(header) or len(set(header)) < len(header)):
        hint = "If its first row is one of the data, give --no-header, and columns by number: --user 1."
    try:
        check_header(header, f"{source.name}, line 1")
        typed = [_TYPED.fullmatch(name) for name in header]
        names = [match[1] for match in typed if match]
        names = names if len(names) == len(header) else list(header)
        check_header(names, f"{source.name}, line 1")
    except DataError as error:
        raise DataError(f"{error} {hint}".strip()) from None
    return Table(source, form, dict(zip(names, header, strict=True)), layout, hint)


def _unnamed(source: Source, form: str, layout: Layout, first: Sequence[str], names: Sequence[str], hint: str) -> Table:
    """With given names, or numbers."""
    columns = tuple(names) or tuple(str(number) for number in range(1, len(first) + 1))
    hint = (
        hint
        or "Columns without a header go by number, or by the names that --items-columns and --interactions-columns give."
    )
    if len(columns) != len(first):
        raise DataError(
            f"{source.name}: {len(columns)} columns are named, and its first row has {len(first)} cells. {hint}".strip()
        )
    check_header(columns, source.name)
    usual = {*names, *ID_FIELDS, "user_id", "title", "timestamp"}
    if header := [cell for cell in first if cell in usual or (_TYPED.fullmatch(cell))]:
        raise DataError(
            f"{source.name}: its first row is a header, with {', '.join(header)}: leave out "
            "--no-header and names for its columns."
        )
    return Table(source, form, dict(zip(columns, columns, strict=True)), replace(layout, names=columns), hint)


def _cells(rows: Sequence[str], separator: str, quoted: bool) -> list[list[str]]:
    if len(separator) > 1 or not separator.isascii():
        return [row.split(separator) for row in rows]
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader((f"{row}\n" for row in rows), delimiter=separator, quoting=quoting)
    return list(islice(reader, len(rows)))


def _better_separator(rows: Sequence[str], used: str, width: int) -> str:
    """Another separator that cuts all first rows into equally many cells, and into more than `width`; else empty."""
    widths = {}
    for separator in _SEPARATORS:
        cells = {len(row) for row in _cells(rows, separator, quoted=separator != "\t")}
        if len(cells) == 1 and (count := cells.pop()) > max(width, 1) and separator != used:
            widths[separator] = count
    return max(widths, key=widths.__getitem__, default="")


def _separator_hint(rows: Sequence[str], used: str, width: int) -> str:
    """What to give where another separator cuts better."""
    if not (best := _better_separator(rows, used, width)):
        return ""
    shown = {"\t": "tab", "\x01": "$'\\x01'"}.get(best, f"'{best}'")
    return f"Its rows were cut at {used!r}, and look separated by {shown}: give --sep {shown} (for the items alone, --items-sep)."
