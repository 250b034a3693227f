"""Large raw files -> columns: text tables read block by block on several threads, and every row that cannot be used named.

Knows files and rows, not what a column means: `work` says which rows are broken, and why. Memory holds a few blocks,
however large the file. Results come in the order of the file, whatever the number of threads.
"""

import csv
import difflib
import hashlib
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Literal, TypeVar

import numpy as np
import pyarrow as pa

# pyarrow: on full-size MIND and Amazon-M2 it took 4.3 and 1.4 s of CPU, polars 4.7 and 2.1, DuckDB 3.5 and 3.1.
from pyarrow import csv as arrow
from tqdm import tqdm

from trsr.data import DataError

BLOCK = 16 << 20  # bytes that are parsed at once
NAMED = 5  # rows that a report names of each kind of fault

Result = TypeVar("Result")
Masks = dict[str, np.ndarray]  # why rows are broken -> which, bool (rows,); a row has one reason at most
Work = Callable[[pa.Table], tuple[Result, Masks]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text table is written.

    Attributes:
        quoted: Whether cells may stand in double quotes, and then hold delimiters, line breaks and doubled quotes.
        names: The columns, where the first row does not name them.
    """

    delimiter: str
    quoted: bool
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a member of a zip archive.

    Attributes:
        name: What messages call it.
        size: Bytes, unpacked.
    """

    path: Path
    member: str | None
    name: str
    size: int

    def open(self) -> IO[bytes]:
        return zipfile.ZipFile(self.path).open(self.member) if self.member else self.path.open("rb")


def find(where: Path, name: str) -> Source:
    """The file `name` in a folder or, at any depth, in a zip archive.

    Raises:
        DataError: If there is none, or several.
    """
    if where.is_dir() and (path := where / name).is_file():
        return Source(path, None, f"{where.name}/{name}", path.stat().st_size)
    if where.is_file():
        try:
            with zipfile.ZipFile(where) as archive:
                found = [one for one in archive.infolist() if Path(one.filename).name == name]
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{where} cannot be read as a zip archive: {error}. Give a folder or a zip.") from error
        if len(found) == 1:
            return Source(where, found[0].filename, f"{where.name}/{name}", found[0].file_size)
        if found:
            raise DataError(f"{where} holds {len(found)} files {name!r}; expected one. Unpack it, and give a folder.")
    raise DataError(f"No {name!r} in {str(where)!r}. Give the folder or the zip archive that holds it.")


@dataclass(slots=True)
class Faults:
    """Rows that were left out: counted by reason, the first of each reason named.

    Attributes:
        strict: Raise at the first one instead.
        counts: Reason -> rows.
        named: Reason -> places, as in "behaviors.tsv, line 12".
    """

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        if self.strict:
            raise DataError(f"{place}: {reason}. Mend the row; without --strict it is left out and counted.")
        self.counts[reason] += 1
        places = self.named.setdefault(reason, [])
        if len(places) < NAMED:
            places.append(place)

    def report(self) -> str:
        """One line a reason."""
        return "".join(
            f"left out, {reason}: {count:,} ({'; '.join(self.named[reason])}{'; ...' if count > NAMED else ''})\n"
            for reason, count in sorted(self.counts.items())
        )


@dataclass(slots=True)
class Reading:
    """What reading a file found besides its rows.

    Attributes:
        rows: Rows read, broken ones too; the header and empty lines are none.
        broken: Rows that were left out as faults.
        sha256: Of the unpacked file; None as long as it was not read to its end.
    """

    rows: int = 0
    broken: int = 0
    sha256: str | None = None


def scan(
    source: Source,
    layout: Layout,
    wanted: Sequence[str],
    work: Work[Result],
    faults: Faults,
    reading: Reading,
    *,
    workers: int = 1,
    limit: int = 0,
    size: int | None = None,
) -> Iterator[Result]:
    """Read a table block by block, and yield what `work` makes of each, in the order of the file.

    A row with too many or too few cells, or that is not UTF-8, is a fault and not shown to `work`. A line break
    is LF or CR LF; a CR elsewhere reads as a space. Shows a progress bar.

    Args:
        wanted: Columns that `work` gets, as strings, in this order. An empty cell is an empty string.
        work: Gives its result and which rows are broken. Called on `workers` threads.
        faults: Takes all broken rows.
        reading: Is filled in.
        limit: Read so many rows only; 0 = all.
        size: Bytes of a block; default BLOCK.

    Raises:
        DataError: If the file cannot be read, has no header or lacks a wanted column; at a fault, if faults are strict.
    """
    digest, jobs = hashlib.sha256(), deque[Future]()
    try:
        with (
            source.open() as raw,
            ThreadPoolExecutor(1 if limit else workers) as pool,
            tqdm(total=source.size, desc=source.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for block in _blocks(raw, layout, size or BLOCK, digest.update, bar.update, source.name):
                for name in wanted:
                    check_column(name, block.columns, source.name)
                left = max(limit - reading.rows, 0) if limit else None
                jobs.append(pool.submit(_work, block, layout, wanted, work, left))
                if len(jobs) > (0 if limit else workers):
                    yield _take(jobs.popleft().result(), source.name, faults, reading)
                if limit and reading.rows >= limit:
                    return
            while jobs:
                yield _take(jobs.popleft().result(), source.name, faults, reading)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{source.name} cannot be read: {error}") from error
    finally:
        for job in jobs:
            job.cancel()
    reading.sha256 = digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole rows of a file.

    Attributes:
        first: Line number of the first.
        columns: All columns of the file.
        rows: Where content is None: as `_rows` gives them.
    """

    name: str
    first: int
    columns: tuple[str, ...]
    content: bytes | None
    rows: Sequence[tuple[int, list[str] | str]] = ()


def _take(made: tuple[Result, int, list[tuple[int, str]]], name: str, faults: Faults, reading: Reading) -> Result:
    result, rows, broken = made
    reading.rows += rows
    reading.broken += len(broken)
    for line, reason in sorted(broken):
        faults.add(f"{name}, line {line}", reason)
    return result


def _work(
    block: _Block, layout: Layout, wanted: Sequence[str], work: Work[Result], limit: int | None
) -> tuple[Result, int, list[tuple[int, str]]]:
    """What `work` makes of a block, its number of rows, and the broken ones by line."""
    table, lines, broken = _parse(block, layout, wanted)
    if limit is not None and limit < len(table) + len(broken):
        numbers = lines()
        end = np.sort([*numbers, *(line for line, _ in broken)])[limit]
        table = table.slice(0, int((numbers < end).sum()))
        broken = [(line, reason) for line, reason in broken if line < end]
    result, masks = work(table)
    rows = len(table) + len(broken)
    for reason, mask in masks.items():
        places = np.flatnonzero(mask)
        if len(places):
            numbers = lines()
            broken += [(int(numbers[place]), reason) for place in places]
    return result, rows, broken


def _parse(
    block: _Block, layout: Layout, wanted: Sequence[str]
) -> tuple[pa.Table, Callable[[], np.ndarray], list[tuple[int, str]]]:
    """The wanted columns, the line of each row (worked out when asked for), and broken rows by line."""
    if block.content is None or not _is_text(block.content):
        found = block.rows or list(_rows((block.content or b"").splitlines(keepends=True), block.first, layout))
        found = [(line, _checked(cells, len(block.columns))) for line, cells in found]
        good = [(line, cells) for line, cells in found if isinstance(cells, list)]
        places = [block.columns.index(name) for name in wanted]
        columns = [pa.array([cells[place] for _, cells in good], pa.string()) for place in places]
        table = pa.table(dict(zip(wanted, columns, strict=True)))
        broken = [(line, why) for line, why in found if isinstance(why, str)]
        return table, lambda: np.array([line for line, _ in good], dtype=int), broken
    odd: dict[int, str] = {}  # record, from 0 -> why

    def note(row) -> str:
        odd[row.number - 1] = _miscounted(row.actual_columns, row.expected_columns)
        return "skip"

    table = _columns(block, layout, wanted, note)
    starts = partial(_record_lines, block, layout)

    def lines() -> np.ndarray:
        return np.delete(starts(), sorted(odd)) if odd else starts()

    if not odd:
        return table, lines, []
    numbers = starts()
    return table, lines, [(int(numbers[record]), why) for record, why in sorted(odd.items())]


def _is_text(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def _columns(block: _Block, layout: Layout, wanted: Sequence[str], note: Callable[..., str]) -> pa.Table:
    assert block.content is not None
    if not block.content.strip(b"\n"):
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    return arrow.read_csv(
        pa.BufferReader(block.content),
        # In one piece on one thread: only then are broken rows numbered, and the threads have blocks of their own.
        arrow.ReadOptions(column_names=block.columns, use_threads=False, block_size=len(block.content) + 1),
        arrow.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quoted else False,
            double_quote=layout.quoted,
            newlines_in_values=layout.quoted,
            invalid_row_handler=note,
        ),
        arrow.ConvertOptions(
            check_utf8=False,  # looked at already
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )


def _record_lines(block: _Block, layout: Layout) -> np.ndarray:
    """The line on which each row of a block starts; empty lines are no rows."""
    assert block.content is not None
    content = np.frombuffer(block.content, np.uint8)
    ends = np.flatnonzero(content == ord("\n"))
    if not len(content) or content[-1] != ord("\n"):
        ends = np.append(ends, len(content))
    if layout.quoted:
        quotes = np.flatnonzero(content == ord('"'))
        closed = np.searchsorted(quotes, ends) % 2 == 0
    else:
        closed = np.ones(len(ends), dtype=bool)
    last = np.flatnonzero(closed)  # lines that end a row
    first = np.concatenate([[0], last[:-1] + 1])
    starts = np.concatenate([[0], ends[last[:-1]] + 1])
    return block.first + first[ends[last] > starts]


def _blocks(
    raw: IO[bytes], layout: Layout, size: int, saw: Callable[[bytes], None], bar: Callable[[int], object], name: str
) -> Iterator[_Block]:
    """Cut a file where rows end. From the first block on whose quotes are not as they should be, read row by row."""

    def pieces() -> Iterator[bytes]:
        while piece := raw.read(size):
            saw(piece)
            bar(len(piece))
            yield piece

    line, rest, columns, stream = 1, b"", layout.names, pieces()
    for piece in _and_end(stream):
        block = rest + (piece or b"")
        end = _end(block, layout.quoted) if piece is not None else len(block)
        if layout.quoted and (not _sound(block, end, layout.delimiter) or len(block) - end > 4 * size):
            yield from _slowly(name, line, columns, layout, _lines(block, stream))
            return
        block, rest = block[:end], block[end:]
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b" ")
        count = block.count(b"\n")
        if columns is None and block.strip():
            columns, lines, block = _header(name, block, layout)
            yield _Block(name, line + lines, columns, block)
        elif block and columns:
            yield _Block(name, line, columns, block)
        line += count
    if columns is None:
        raise DataError(f"{name} is empty: there is no header.")


def _and_end(pieces: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from pieces
    yield None


def _end(block: bytes, quoted: bool) -> int:
    """Where the last whole row of a block ends; 0 if none does."""
    end = block.rfind(b"\n") + 1
    if quoted:
        odd = block.count(b'"', 0, end) % 2
        while end and odd:  # a line break in a quoted cell
            before = block.rfind(b"\n", 0, end - 1) + 1
            odd ^= block.count(b'"', before, end) % 2
            end = before
    return end


def _sound(block: bytes, end: int, delimiter: str) -> bool:
    """Whether quotes open where a cell starts and close where it ends, so that counting them tells where rows end."""
    if b'"' not in block:
        return True
    content = np.frombuffer(block, np.uint8)[:end]
    quotes = np.flatnonzero(content == ord('"'))
    if len(quotes) % 2:
        return False
    before = np.where(quotes > 0, content[quotes - 1], ord("\n"))[0::2]
    after = np.where(quotes + 1 < end, content[np.minimum(quotes + 1, max(end - 1, 0))], ord("\n"))[1::2]
    edges = [ord(char) for char in (delimiter, "\n", '"')]
    return bool(np.isin(before, edges).all() and np.isin(after, [*edges, ord("\r")]).all())


def _header(name: str, block: bytes, layout: Layout) -> tuple[tuple[str, ...], int, bytes]:
    """The names in a file's first row, the lines that it takes, and what follows."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    lines = _decoded(block.splitlines(keepends=True))
    reader = csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)
    columns = tuple(next(row for row in reader if row))
    check_header(columns, f"{name}, line 1")
    rows = block.split(b"\n", reader.line_num)
    return columns, reader.line_num, rows[-1] if len(rows) > reader.line_num else b""


def check_header(columns: Sequence[str], place: str) -> None:
    """Raise DataError if two columns have the same name."""
    if len(set(columns)) < len(columns):
        raise DataError(f"{place}: two columns have the same name: {', '.join(columns)}.")


def check_column(name: str, columns: Iterable[str], place: str) -> None:
    """Raise DataError, with the columns there are, if `name` is none of them."""
    columns = list(columns)
    if name not in columns:
        close = difflib.get_close_matches(name, columns, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{place}: there is no column {name!r}; the columns are {', '.join(columns)}.{hint}")


def _lines(block: bytes, stream: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of what is left of a file."""
    for piece in stream:
        *lines, block = (block + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if block:
        yield from block.splitlines(keepends=True)


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    # What is no text is found again in the cells: no file has lone surrogates in UTF-8.
    for number, line in enumerate(lines):
        text = line.decode("utf-8-sig" if not number else "utf-8", "surrogateescape")
        yield text.replace("\r\n", "\n").replace("\r", " ")


def _rows(lines: Iterable[bytes], first: int, layout: Layout) -> Iterator[tuple[int, list[str] | str]]:
    """(line, cells) or (line, why they cannot be told) of each row, one by one, as Python's csv reads them."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    reader = csv.reader(_decoded(lines), delimiter=layout.delimiter, quoting=quoting, strict=True)
    while True:
        line = first + reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, f"broken quotes ({error})"
            continue
        if cells is None:
            return
        if cells:
            yield line, cells


def _slowly(
    name: str, first: int, columns: tuple[str, ...] | None, layout: Layout, lines: Iterable[bytes]
) -> Iterator[_Block]:
    """The rest of a file row by row: a quote within a cell is taken as it is, and one that stays open is named."""
    found = _rows(lines, first, layout)
    if columns is None:
        line, header = next(found, (1, ""))
        if isinstance(header, str):
            raise DataError(f"{name}, line {line}: there is no header{header and f': {header}'}.")
        check_header(columns := tuple(header), f"{name}, line {line}")
    while rows := list(islice(found, 100_000)):
        yield _Block(name, rows[0][0], columns, None, rows)


def _checked(cells: list[str] | str, width: int) -> list[str] | str:
    """Cells, or why they are none."""
    if isinstance(cells, str):
        return cells
    if len(cells) != width:
        return _miscounted(len(cells), width)
    return "not UTF-8" if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell) else cells


def _miscounted(cells: int, width: int) -> str:
    return f"{'fewer' if cells < width else 'more'} than {width} cells"
