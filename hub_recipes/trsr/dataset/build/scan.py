"""Large raw files -> columns: text tables read block by block on several threads, and every row that cannot be used named.

Knows files and rows, not what a column means: `work` says which rows are broken, and why. Memory holds a few blocks,
however large the file. Results come in the order of the file, whatever the number of threads.
"""

import gzip
import hashlib
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar, cast

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from trsr.dataset.build.csv_blocks import Block, Broken, Layout, blocks, check_column, parse
from trsr.dataset.build.text_files import recoded
from trsr.errors import DataError

BLOCK = 16 << 20  # bytes that are parsed at once
NAMED = 5  # rows that a report names of each kind of fault

Result = TypeVar("Result")
Masks = dict[str, np.ndarray]  # why rows are broken -> which, bool (rows,); a row has one reason at most
Work = Callable[[pa.Table], tuple[Result, Masks]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, plain or .gz, or a member of a zip archive.

    Attributes:
        name: What messages call it.
        size: Bytes, for the progress bar: unpacked, but of .gz as they are.
        encoding: As Python calls it.
        separator: One of several bytes, in UTF-8; None for any other.
    """

    path: Path
    member: str | None
    name: str
    size: int
    encoding: str = "utf-8"
    separator: bytes | None = None

    @property
    def as_read(self) -> bool:
        """Whether readers can take the bytes as they are."""
        return self.encoding == "utf-8" and self.separator is None

    def open(self, saw: Callable[[bytes], object] | None = None) -> IO[bytes]:
        """The unpacked file in UTF-8, with a separator of one byte.

        Args:
            saw: Is called with its own bytes where they are not taken as they are.
        """
        raw = self._unpacked()
        return raw if self.as_read else recoded(raw, self.encoding, self.separator, self.name, saw)

    def _unpacked(self) -> IO[bytes]:
        if self.member:
            return zipfile.ZipFile(self.path).open(self.member)
        if self.path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(self.path))
        return self.path.open("rb")


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
        lines: Reason -> lines of a file that were lost with these rows.
        named: Reason -> places, as in "behaviors.tsv, line 12".
        notes: What else is to be told at the end.
        so_far: All counts of the steps that are done, for an ending in which a later one fails.
    """

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    so_far: dict[str, int] = field(default_factory=dict)

    def add(self, place: str, reason: str, lines: int = 1) -> None:
        if self.strict:
            raise DataError(f"{place}: {reason}. Mend the row; without --strict it is left out and counted.")
        self.counts[reason] += 1
        self.lines[reason] += lines
        places = self.named.setdefault(reason, [])
        if len(places) < NAMED:
            places.append(place)

    def report(self) -> str:
        """One line a reason or note."""
        left_out = "".join(
            f"left out, {reason}: {self._amount(reason)} ({'; '.join(self.named[reason])}{'; ...' if count > NAMED else ''})\n"
            for reason, count in sorted(self.counts.items())
        )
        return left_out + "".join(f"{note}\n" for note in dict.fromkeys(self.notes))

    def _amount(self, reason: str) -> str:
        rows, lines = self.counts[reason], self.lines[reason]
        return f"{rows:,}" if lines == rows else f"{rows:,} row{'s' * (rows > 1)}, {lines:,} lines"


@dataclass(slots=True)
class Reading:
    """What reading a file found besides its rows.

    Attributes:
        rows: Rows read, broken ones too; the header and empty lines are none.
        broken: Rows that were left out as faults.
        lines: Lines of the file that were lost with them.
        unescaped: Cells whose HTML entities were read as the characters that they stand for.
        sha256: Of the unpacked file; None as long as it was not read to its end.
    """

    rows: int = 0
    broken: int = 0
    lines: int = 0
    unescaped: int = 0
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

    def saw(piece: bytes) -> None:
        digest.update(piece)
        bar.update(len(piece))

    def nothing(_: object) -> None:
        pass

    try:
        with (
            source.open(saw) as raw,
            ThreadPoolExecutor(1 if limit else workers) as pool,
            tqdm(total=source.size, desc=source.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for block in blocks(raw, layout, size or BLOCK, saw if source.as_read else nothing, nothing, source.name):
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


def _take(made: tuple[Result, int, list[Broken]], name: str, faults: Faults, reading: Reading) -> Result:
    result, rows, broken = made
    reading.rows += rows
    reading.broken += len(broken)
    for line, reason, lines in sorted(broken):
        reading.lines += lines
        place = f"line {line}" if lines == 1 else f"lines {line} to {line + lines - 1}"
        faults.add(f"{name}, {place}", reason, lines)
    return result


def _work(
    block: Block, layout: Layout, wanted: Sequence[str], work: Work[Result], limit: int | None
) -> tuple[Result, int, list[Broken]]:
    """What `work` makes of a block, its number of rows, and the broken ones."""
    table, lines, broken = parse(block, layout, wanted)
    if limit is not None and limit < len(table) + len(broken):
        numbers, _ = lines()
        end = np.sort([*numbers, *(row.line for row in broken)])[limit]
        table = table.slice(0, int((numbers < end).sum()))
        broken = [row for row in broken if row.line < end]
    result, masks = work(table)
    rows = len(table) + len(broken)
    for reason, mask in masks.items():
        places = np.flatnonzero(mask)
        if len(places):
            numbers, spans = lines()
            broken += [Broken(int(numbers[place]), reason, int(spans[place])) for place in places]
    return result, rows, broken
