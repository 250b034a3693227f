"""Find out how a table file is written: its format, encoding, separator and columns.

The sources are the file's name, its first rows and the user's options. Errors say which option to give. `tables` reads the
rows.
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
from trsr.dataset.build.text_files import SEPARATOR, check_uncompressed, encoding_of, has_cr_alone, separator_bytes
from trsr.errors import DataError

# RecBole's atomic files are tab-separated, with the type of each column in the header.
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
_EXCEL = re.compile(r"sep=.?", re.IGNORECASE)  # the first line that tells Excel the separator
# A cell that can only be CSV's way of writing one with quotes in it, in a table whose cells are not quoted.
_QUOTED = re.compile(rb'(?<![^\t\n])"[^"\t\r\n]*""[^\t\r\n]*"(?=[\t\r\n])')
_READ_QUOTES = "are read with --items-sep tab --items-format csv, or --sep tab --interactions-format csv."
_ROWS = 20  # first rows from which the separator is guessed
_HEAD = 1 << 16  # bytes that are read for them


@dataclass(frozen=True, slots=True)
class Table:
    """The file of a table, and how to read it.

    Attributes:
        form: A value of FORMATS.
        columns: Name of a column for the user -> its name in the file; None for JSON lines, whose keys are known only after
            reading all of them.
        layout: None for Parquet.
        hint: What to do if a column is missing, for messages.
        note: What looks odd about its first rows, for the report; else empty.
        document: For a single JSON document: its rows as JSON lines, and its SHA-256.
    """

    source: Source
    form: str
    columns: Mapping[str, str] | None
    layout: Layout | None = None
    hint: str = ""
    note: str = ""
    document: tuple[bytes, str] | None = None

    @property
    def name(self) -> str:
        return self.source.name

    def names(self, rows: int | None = None) -> list[str]:
        """All columns. JSON lines are read to collect them.

        Args:
            rows: Read only this many JSON lines.

        Raises:
            DataError: If the file cannot be read.
        """
        if self.columns is not None:
            return list(self.columns)
        try:
            with self.source.open() as raw:
                return jsonl.keys(islice(raw, rows))
        except (EOFError, OSError) as error:
            raise DataError(f"{self.name} cannot be read as jsonl: {error}") from error

    def in_file(self, name: str) -> str:
        """The name of a column in the file. Raises DataError, with a hint, if there is no such column."""
        if self.columns is None:
            return name
        try:
            check_column(name, self.columns, self.name)
        except DataError as error:
            raise DataError(f"{error} {self.hint}".strip()) from None
        return self.columns[name]


def format_of(path: Path, form: str | None = None, sep: str | None = None) -> str:
    """The format of a table: as given, or by the file's name. With a separator, a file of any other name is csv.

    Raises:
        DataError: If there is no such file, or its name does not say the format.
    """
    if not path.is_file():
        raise DataError(f"No file at {str(path)!r}.")
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
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
    """Look into a CSV, TSV or JSON file.

    Args:
        form: csv, tsv or jsonl.
        sep: Separator of cells; default that of the format. With one of several bytes, cells are not quoted.
        encoding: By default it is detected from the first bytes.
        header: Whether the first row of a table is a header; without one, columns are named 1, 2, ...
        names: Of the columns, if there is no header.
        key: Column name for the keys of a JSON object of objects.
        data: Lower-case words that are cells of the data, never of a header. If given, the separator and whether there is a
            header are guessed from the first rows, and `encoding` is used only if the file is not UTF-8.

    Raises:
        DataError: If the file cannot be read, is not in this encoding, or has no columns.
    """
    source = Source(path, None, path.name, path.stat().st_size)
    layout = _LAYOUTS[form]
    try:
        with source.open() as raw:
            sample = raw.read(text_files.SAMPLE_BYTES)
            check_uncompressed(path.name, sample)
            if data and text_files.is_utf8(sample):
                encoding = None
            source = replace(source, encoding=encoding_of(path.name, sample, encoding))
        with source.open() as raw:
            start = raw.read(text_files.SAMPLE_BYTES)
        if has_cr_alone(start):
            source, start = replace(source, cr_ends_lines=True), start.replace(b"\r", b"\n")
        if form == "jsonl":
            return _json(source, layout, key)
    except (EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be read as {form}: {error}") from error
    beginning = start[:_HEAD]
    text = beginning.decode("utf-8-sig", "replace")
    rows = text.replace("\r\n", "\n").replace("\r", " ").split("\n")
    rows = [row for row in (rows[:-1] if len(beginning) == _HEAD and len(rows) > 1 else rows) if row][:_ROWS]
    if not rows:
        raise DataError(f"{path.name} is empty: there is no header.")
    separator = separator_bytes(sep) if sep else layout.delimiter.encode()
    if data:
        if len(_cells(rows, separator.decode(), layout.quoted)[0]) == 1:
            separator = _better_separator(rows, separator.decode(), 1).encode() or separator
        header = not any(cell.lower() in data for cell in _cells(rows, separator.decode(), layout.quoted)[0])
    single = len(separator) == 1
    source = replace(source, separator=None if single else separator)
    layout = Layout((separator if single else SEPARATOR).decode(), single and layout.quoted)
    first = _cells(rows, separator.decode(), layout.quoted)[0]
    hint = _separator_hint(rows, separator.decode(), len(first))
    if layout.delimiter == "\t" and not layout.quoted and all(re.fullmatch('".*"', cell) for cell in first):
        hint = f"Its cells stand in quotes, which {_READ_QUOTES}"
    if _EXCEL.match(rows[0]):
        hint = f"Its first line, {rows[0]!r}, is for Excel alone: remove it, and give --sep (for the items alone, --items-sep)."
    note = ""
    if layout.delimiter == "\t" and not layout.quoted and (cell := _QUOTED.search(start)):
        shown = cell[0].decode("utf-8", "replace")
        note = f"{path.name}: cells such as {shown[:60]} are taken as they are. Quotes around cells {_READ_QUOTES}"
    if header and not names:
        table = _with_header(source, form, layout, first, hint)
    else:
        table = _without_header(source, form, layout, first, names, hint)
    return replace(table, note=note)


def _json(source: Source, layout: Layout, key: str) -> Table:
    with source.open() as raw:
        rows = json_documents.rows(raw, source.name, key)
    if rows is None:
        return Table(source, "jsonl", None, layout)
    content = json_documents.lines(rows)
    sha256 = hashlib.sha256()
    with replace(source, encoding="utf-8", cr_ends_lines=False).open() as raw:
        while piece := raw.read(1 << 20):
            sha256.update(piece)
    columns = jsonl.keys(content.splitlines())
    return Table(
        source, "jsonl", dict(zip(columns, columns, strict=True)), layout, document=(content, sha256.hexdigest())
    )


def _with_header(source: Source, form: str, layout: Layout, header: Sequence[str], hint: str) -> Table:
    """A table whose first row names the columns; RecBole's types are removed from the names."""
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


def _without_header(
    source: Source, form: str, layout: Layout, first: Sequence[str], names: Sequence[str], hint: str
) -> Table:
    """A table without a header: columns have the given names, or numbers."""
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
    """Another separator that splits all first rows into equally many cells, more than `width`; empty if there is none."""
    widths = {}
    for separator in _SEPARATORS:
        cells = {len(row) for row in _cells(rows, separator, quoted=separator != "\t")}
        if len(cells) == 1 and (count := cells.pop()) > max(width, 1) and separator != used:
            widths[separator] = count
    return max(widths, key=widths.__getitem__, default="")


def _separator_hint(rows: Sequence[str], used: str, width: int) -> str:
    """Advice to give another separator, if one splits the rows better; else empty."""
    if not (best := _better_separator(rows, used, width)):
        return ""
    shown = {"\t": "tab", "\x01": "$'\\x01'"}.get(best, f"'{best}'")
    return f"Its rows were cut at {used!r}, and look separated by {shown}: give --sep {shown} (for the items alone, --items-sep)."
