"""A text table cut into blocks of whole rows, and a block as columns: the line of every row is known, odd rows are named.

Fast where a file is as it should be; from the first block on whose quotes are not, and for bytes that are not UTF-8, row
by row, with the same result.
"""

import codecs
import csv
import difflib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Literal, NamedTuple

import numpy as np
import pyarrow as pa

# On full-size MIND and Amazon-M2 pyarrow, polars and DuckDB took about the same; pyarrow is a dependency already, and
# tells which records it skips.
from pyarrow import csv as arrow

from trsr.dataset.build import jsonl
from trsr.errors import DataError

_LONGEST = 1 << 26  # characters of a cell

Lines = tuple[np.ndarray, np.ndarray]  # of each row, the line on which it starts and the number of its lines


class Broken(NamedTuple):
    """A row that cannot be used: where it starts, why, and how many lines of the file are lost with it."""

    line: int
    why: str
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text table is written.

    Attributes:
        quoted: Whether cells may stand in double quotes, and then hold delimiters, line breaks and doubled quotes.
        names: The columns, where the first row does not name them.
        objects: Whether a line is a JSON object, and `names` are those of its keys that are wanted.
    """

    delimiter: str
    quoted: bool
    names: tuple[str, ...] | None = None
    objects: bool = False


@dataclass(frozen=True, slots=True)
class Block:
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
    rows: Sequence[tuple[int, int, list[str] | str]] = ()


def parse(block: Block, layout: Layout, wanted: Sequence[str]) -> tuple[pa.Table, Callable[[], Lines], list[Broken]]:
    """The wanted columns, the lines of each row (worked out when asked for), and broken rows."""
    if layout.objects:
        table, numbers, faults = jsonl.parse(block.content or b"", block.first, wanted)
        return table, lambda: _single(numbers), [Broken(line, why) for line, why in faults]
    if block.content is None or not _is_text(block.content):
        found = block.rows or list(_rows((block.content or b"").splitlines(keepends=True), block.first, layout))
        found = [(line, lines, _checked(cells, len(block.columns))) for line, lines, cells in found]
        good = [(line, lines, cells) for line, lines, cells in found if isinstance(cells, list)]
        places = [block.columns.index(name) for name in wanted]
        columns = [pa.array([cells[place] for _, _, cells in good], pa.string()) for place in places]
        table = pa.table(dict(zip(wanted, columns, strict=True)))
        broken = [Broken(line, why, lines) for line, lines, why in found if isinstance(why, str)]
        starts, spans = (np.array([row[place] for row in good], dtype=int) for place in (0, 1))
        return table, lambda: (starts, spans), broken
    if not layout.quoted:
        return _plain(block, layout, wanted)
    odd: dict[int, str] = {}  # record, from 0 -> why

    def note(row) -> str:
        odd[row.number - 1] = _miscounted(row.actual_columns, row.expected_columns)
        return "skip"

    table = _columns(block, layout, wanted, note)

    def lines() -> Lines:
        starts, spans = _record_lines(block)
        return np.delete(starts, sorted(odd)), np.delete(spans, sorted(odd))

    if not odd:
        return table, lines, []
    starts, spans = _record_lines(block)
    return table, lines, [Broken(int(starts[record]), why, int(spans[record])) for record, why in sorted(odd.items())]


def _single(numbers: np.ndarray) -> Lines:
    return numbers, np.ones_like(numbers)


def _is_text(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def _plain(block: Block, layout: Layout, wanted: Sequence[str]) -> tuple[pa.Table, Callable[[], Lines], list[Broken]]:
    """`parse` without quoting: a cell ends where a delimiter or a line break stands, so that no cell is looked into.

    Many times as fast as a CSV reader, above all where long columns are not wanted.
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
    good = filled & (cells == len(block.columns))
    odd = np.flatnonzero(filled & ~good)
    # Cells, and in between what ends them, in one array over the block as it is.
    edges = np.column_stack([starts, ends]).ravel().astype(np.int32)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(text)]
    pieces = pa.Array.from_buffers(pa.string(), max(len(edges) - 1, 0), buffers)
    columns = [pieces.take(pa.array(2 * (first[good] + block.columns.index(name)))) for name in wanted]
    broken = [Broken(block.first + int(line), _miscounted(int(cells[line]), len(block.columns))) for line in odd]
    return pa.table(columns, names=list(wanted)), lambda: _single(block.first + np.flatnonzero(good)), broken


def _columns(block: Block, layout: Layout, wanted: Sequence[str], note: Callable[..., str]) -> pa.Table:
    assert block.content is not None
    if not block.content.strip(b"\n"):
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    return arrow.read_csv(
        pa.BufferReader(block.content),
        # In one piece on one thread: only then are broken rows numbered, and the threads have blocks of their own.
        arrow.ReadOptions(column_names=block.columns, use_threads=False, block_size=len(block.content) + 1),
        arrow.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=note),
        arrow.ConvertOptions(
            check_utf8=False,  # looked at already
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(wanted),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )


def _record_lines(block: Block) -> Lines:
    """The lines of each row of a quoted block; empty lines are no rows."""
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
    raw: IO[bytes], layout: Layout, size: int, saw: Callable[[bytes], None], bar: Callable[[int], object], name: str
) -> Iterator[Block]:
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
            yield Block(name, line + lines, columns, block)
        elif block and columns:
            yield Block(name, line, columns, block)
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


def _rows(lines: Iterable[bytes], first: int, layout: Layout) -> Iterator[tuple[int, int, list[str] | str]]:
    """(line, number of lines, cells or why they cannot be told) of each row, one by one, as Python's csv reads them.

    Where quotes are broken, or one is never closed, the row's first line is lost, and those after it are read anew.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    stream, again, taken = _decoded(lines), deque[str](), list[str]()
    line = first

    def feed() -> Iterator[str]:
        while (text := again.popleft() if again else next(stream, None)) is not None:
            taken.append(text)
            yield text

    done = False
    while not done:
        try:
            for cells in csv.reader(feed(), delimiter=layout.delimiter, quoting=quoting, strict=True):
                if cells:
                    yield line, len(taken), cells
                line += len(taken)
                taken.clear()
            done = True
        except csv.Error as error:
            yield line, 1, f"broken quotes ({error})"
            line += 1
            again.extendleft(reversed(taken[1:]))
            taken.clear()


def _slowly(
    name: str, first: int, columns: tuple[str, ...] | None, layout: Layout, lines: Iterable[bytes]
) -> Iterator[Block]:
    """The rest of a file row by row: a quote within a cell is taken as it is, and one that stays open is named."""
    found = _rows(lines, first, layout)
    if columns is None:
        line, _, header = next(found, (1, 1, ""))
        if isinstance(header, str):
            raise DataError(f"{name}, line {line}: there is no header{header and f': {header}'}.")
        check_header(columns := tuple(header), f"{name}, line {line}")
    while rows := list(islice(found, 100_000)):
        yield Block(name, rows[0][0], columns, None, rows)


def _checked(cells: list[str] | str, width: int) -> list[str] | str:
    """Cells, or why they are none."""
    if isinstance(cells, str):
        return cells
    if len(cells) != width:
        return _miscounted(len(cells), width)
    return "not UTF-8" if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell) else cells


def _miscounted(cells: int, width: int) -> str:
    return f"{'fewer' if cells < width else 'more'} than {width} cells"
