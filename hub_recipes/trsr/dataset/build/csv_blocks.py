"""Cut a text table into blocks of whole rows, and parse a block into columns, with the line number of every row.

Well-formed blocks are parsed at once. From the first block with irregular quotes on, and for blocks that are not UTF-8, rows
are parsed one by one, with the same result. Malformed rows are reported with their line and the reason.
"""

import codecs
import csv
import difflib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Literal, NamedTuple

import numpy as np
import pyarrow as pa

# On full-size MIND and Amazon-M2 pyarrow, polars and DuckDB took about the same time; pyarrow is a dependency already, and
# says which records it skips.
from pyarrow import csv as arrow

from trsr.dataset.build import jsonl
from trsr.errors import DataError

_LONGEST = 1 << 26  # characters of a cell

Lines = tuple[np.ndarray, np.ndarray]  # for each row, the line on which it starts and its number of lines


class Broken(NamedTuple):
    """A row that cannot be used: the line on which it starts, the reason, and the number of lines that are lost with it."""

    line: int
    reason: str
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The format of a text table.

    Attributes:
        quoted: Whether cells may be in double quotes; then they may hold delimiters, line breaks and doubled quotes.
        names: Names of the columns, if the first row is not a header.
        objects: Whether each line is a JSON object; `names` are then the wanted keys.
    """

    delimiter: str
    quoted: bool
    names: tuple[str, ...] | None = None
    objects: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows of a file.

    Attributes:
        first: Line number of the first row.
        columns: Names of all columns of the file.
        rows: The rows as `_rows` gives them, if `content` is None.
    """

    name: str
    first: int
    columns: tuple[str, ...]
    content: bytes | None
    rows: Sequence[tuple[int, int, list[str] | str]] = ()


def parse(block: Block, layout: Layout, wanted: Sequence[str]) -> tuple[pa.Table, Callable[[], Lines], list[Broken]]:
    """The wanted columns, a function that computes the lines of each row, and the broken rows."""
    if layout.objects:
        table, numbers, faults = jsonl.parse(block.content or b"", block.first, wanted)
        return table, lambda: _one_line_each(numbers), [Broken(line, reason) for line, reason in faults]
    if block.content is None or not _is_text(block.content):
        rows = block.rows or list(_rows((block.content or b"").splitlines(keepends=True), block.first, layout))
        rows = [(line, lines, _cells_or_reason(cells, len(block.columns))) for line, lines, cells in rows]
        valid = [(line, lines, cells) for line, lines, cells in rows if isinstance(cells, list)]
        positions = [block.columns.index(name) for name in wanted]
        columns = [pa.array([cells[position] for _, _, cells in valid], pa.string()) for position in positions]
        table = pa.table(dict(zip(wanted, columns, strict=True)))
        broken = [Broken(line, reason, lines) for line, lines, reason in rows if isinstance(reason, str)]
        starts, spans = (np.array([row[field] for row in valid], dtype=int) for field in (0, 1))
        return table, lambda: (starts, spans), broken
    if not layout.quoted:
        return _parse_unquoted(block, layout, wanted)
    malformed: dict[int, str] = {}  # number of the record, from 0 -> reason

    def note(row) -> str:
        malformed[row.number - 1] = _cell_count_reason(row.actual_columns, row.expected_columns)
        return "skip"

    table = _parse_quoted(block, layout, wanted, note)

    def lines() -> Lines:
        starts, spans = _record_lines(block)
        return np.delete(starts, sorted(malformed)), np.delete(spans, sorted(malformed))

    if not malformed:
        return table, lines, []
    starts, spans = _record_lines(block)
    return (
        table,
        lines,
        [Broken(int(starts[record]), reason, int(spans[record])) for record, reason in sorted(malformed.items())],
    )


def _one_line_each(numbers: np.ndarray) -> Lines:
    return numbers, np.ones_like(numbers)


def _is_text(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def _parse_unquoted(
    block: Block, layout: Layout, wanted: Sequence[str]
) -> tuple[pa.Table, Callable[[], Lines], list[Broken]]:
    """`parse` without quoting: every delimiter and line break ends a cell.

    Many times as fast as a CSV reader, above all if long columns are not wanted.
    """
    assert block.content is not None
    text = block.content.removeprefix(codecs.BOM_UTF8)
    content = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((content == ord(layout.delimiter)) | (content == ord("\n")))
    closes = content[ends] == ord("\n")
    if len(content) and content[-1] != ord("\n"):
        ends, closes = np.append(ends, len(content)), np.append(closes, True)
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    last = np.flatnonzero(closes)  # cells of each line
    first = np.append(0, last[:-1] + 1)[: len(last)]
    cells = last - first + 1
    filled = (cells > 1) | (ends[first] > starts[first])
    valid = filled & (cells == len(block.columns))
    malformed = np.flatnonzero(filled & ~valid)
    # One string array over the block: cells, and between them the delimiters and line breaks that end them.
    edges = np.column_stack([starts, ends]).ravel().astype(np.int32)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(text)]
    pieces = pa.Array.from_buffers(pa.string(), max(len(edges) - 1, 0), buffers)
    columns = [pieces.take(pa.array(2 * (first[valid] + block.columns.index(name)))) for name in wanted]
    broken = [
        Broken(block.first + int(line), _cell_count_reason(int(cells[line]), len(block.columns))) for line in malformed
    ]
    return pa.table(columns, names=list(wanted)), lambda: _one_line_each(block.first + np.flatnonzero(valid)), broken


def _parse_quoted(block: Block, layout: Layout, wanted: Sequence[str], note: Callable[..., str]) -> pa.Table:
    assert block.content is not None
    if not block.content.strip(b"\n"):
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    return arrow.read_csv(
        pa.BufferReader(block.content),
        # As one block on one thread: only then does pyarrow number broken rows. Each of our threads parses a block of its own.
        arrow.ReadOptions(column_names=block.columns, use_threads=False, block_size=len(block.content) + 1),
        arrow.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=note),
        arrow.ConvertOptions(
            check_utf8=False,  # checked already
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )


def _record_lines(block: Block) -> Lines:
    """The lines of each row of a block with quotes, without empty lines."""
    assert block.content is not None
    content = np.frombuffer(block.content, np.uint8)
    ends = np.flatnonzero(content == ord("\n"))
    if not len(content) or content[-1] != ord("\n"):
        ends = np.append(ends, len(content))
    quotes = np.flatnonzero(content == ord('"'))
    last = np.flatnonzero(np.searchsorted(quotes, ends) % 2 == 0)  # lines that end a row
    first = np.concatenate([[0], last[:-1] + 1])
    starts = np.concatenate([[0], ends[last[:-1]] + 1])
    filled = ends[last] > starts
    return block.first + first[filled], (last - first + 1)[filled]


def blocks(
    raw: IO[bytes],
    layout: Layout,
    size: int,
    on_read: Callable[[bytes], None],
    advance: Callable[[int], object],
    name: str,
) -> Iterator[Block]:
    """Cut a file into blocks of whole rows. From the first block with irregular quotes on, it is read row by row.

    Args:
        size: Bytes of a block.
        on_read: Called with the bytes as they are read.
        advance: Called with their number.
    """

    def pieces() -> Iterator[bytes]:
        while piece := raw.read(size):
            on_read(piece)
            advance(len(piece))
            yield piece

    line, rest, columns, stream = 1, b"", layout.names, pieces()
    for piece in _then_none(stream):
        block = rest + (piece or b"")
        end = _last_row_end(block, layout.quoted) if piece is not None else len(block)
        if layout.quoted and (not _quotes_are_regular(block, end, layout.delimiter) or len(block) - end > 4 * size):
            yield from _row_by_row(name, line, columns, layout, _lines(block, stream))
            return
        block, rest = block[:end], block[end:]
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b" ")
        count = block.count(b"\n")
        if columns is None and block.strip():
            columns, lines, block = _header(name, block, layout)
            yield Block(name, line + lines, columns, block)
        elif block and columns:
            yield Block(name, line, columns, block)
        line += count
    if columns is None:
        raise DataError(f"{name} is empty: there is no header.")


def _then_none(pieces: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from pieces
    yield None


def _last_row_end(block: bytes, quoted: bool) -> int:
    """The offset at which the last whole row of a block ends; 0 if there is none."""
    end = block.rfind(b"\n") + 1
    if quoted:
        unclosed = block.count(b'"', 0, end) % 2
        while end and unclosed:  # a line break in a quoted cell
            before = block.rfind(b"\n", 0, end - 1) + 1
            unclosed ^= block.count(b'"', before, end) % 2
            end = before
    return end


def _quotes_are_regular(block: bytes, end: int, delimiter: str) -> bool:
    """Whether quotes open at the start of a cell and close at its end, so that counting quotes finds the ends of rows."""
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
    """The column names in the first row of a file, the number of lines of that row, and the rest of the block."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    lines = _decoded(block.splitlines(keepends=True))
    reader = csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)
    columns = tuple(next(row for row in reader if row))
    check_header(columns, f"{name}, line 1")
    rows = block.split(b"\n", reader.line_num)
    return columns, reader.line_num, rows[-1] if len(rows) > reader.line_num else b""


def check_header(columns: Sequence[str], location: str) -> None:
    """Raise DataError if two columns have the same name."""
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        shown = ", ".join(name[:40] for name in repeated[:5])
        raise DataError(f"{location}: two columns have the same name: {shown}.")


def check_column(name: str, columns: Iterable[str], location: str) -> None:
    """Raise DataError, which lists all columns, if `name` is not one of them."""
    columns = list(columns)
    if name not in columns:
        close = difflib.get_close_matches(name, columns, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(column[:40] for column in columns[:20]) + ", ..." * (len(columns) > 20)
        raise DataError(f"{location}: there is no column {name!r}; the columns are {shown}.{hint}")


def _lines(block: bytes, stream: Iterable[bytes]) -> Iterator[bytes]:
    """The remaining lines of a file, of which `block` was read already."""
    for piece in stream:
        *lines, block = (block + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    *lines, block = block.split(b"\n")  # not `splitlines`: a CR by itself ends no row
    yield from (line + b"\n" for line in lines)
    if block:
        yield block


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    # Bytes that are not UTF-8 become lone surrogates, by which `_cells_or_reason` finds them: valid UTF-8 has none.
    for number, line in enumerate(lines):
        text = line.decode("utf-8-sig" if not number else "utf-8", "surrogateescape")
        yield text.replace("\r\n", "\n").replace("\r", " ")


def _rows(lines: Iterable[bytes], first: int, layout: Layout) -> Iterator[tuple[int, int, list[str] | str]]:
    """For each row: its line, its number of lines, and its cells, or the reason why they cannot be read. Uses Python's csv.

    If quotes are broken or never closed, the row's first line is lost, and the lines after it are parsed again.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    stream, pushed_back, consumed = _decoded(lines), deque[str](), list[str]()
    line = first

    def feed() -> Iterator[str]:
        while (text := pushed_back.popleft() if pushed_back else next(stream, None)) is not None:
            consumed.append(text)
            yield text

    done = False
    while not done:
        try:
            for cells in csv.reader(feed(), delimiter=layout.delimiter, quoting=quoting, strict=True):
                if cells:
                    yield line, len(consumed), cells
                line += len(consumed)
                consumed.clear()
            done = True
        except csv.Error as error:
            yield line, 1, f"broken quotes ({error})"
            line += 1
            pushed_back.extendleft(reversed(consumed[1:]))
            consumed.clear()


def _row_by_row(
    name: str, first: int, columns: tuple[str, ...] | None, layout: Layout, lines: Iterable[bytes]
) -> Iterator[Block]:
    """The rest of a file, parsed row by row: a quote within a cell is kept, and one that is never closed is reported."""
    parsed = _rows(lines, first, layout)
    if columns is None:
        line, _, header = next(parsed, (1, 1, ""))
        if isinstance(header, str):
            raise DataError(f"{name}, line {line}: there is no header{header and f': {header}'}.")
        check_header(columns := tuple(header), f"{name}, line {line}")
    while rows := list(islice(parsed, 100_000)):
        yield Block(name, rows[0][0], columns, None, rows)


def _cells_or_reason(cells: list[str] | str, width: int) -> list[str] | str:
    """The cells of a row, or the reason why it is broken."""
    if isinstance(cells, str):
        return cells
    if len(cells) != width:
        return _cell_count_reason(len(cells), width)
    return "not UTF-8" if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell) else cells


def _cell_count_reason(cells: int, width: int) -> str:
    return f"{'fewer' if cells < width else 'more'} than {width} cells"
