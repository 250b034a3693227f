"""Read large text tables block by block on several threads, and report every row that cannot be used.

Knows files and rows, not what a column means: the caller's `process` says which rows are broken, and why. Memory holds a few
blocks, however large the file. Results come in the order of the file, whatever the number of threads.
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
EXAMPLES = 5  # rows that a report names for each reason

Result = TypeVar("Result")
Masks = dict[str, np.ndarray]  # reason -> which rows are broken for it, bool (rows,); a row has at most one reason
Process = Callable[[pa.Table], tuple[Result, Masks]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, plain or .gz, or a member of a zip archive.

    Attributes:
        name: For messages.
        size: Bytes, for the progress bar: unpacked, but for .gz the compressed size.
        encoding: Python's name of it.
        separator: A separator of several bytes, in UTF-8; None if it is a single byte.
        cr_ends_lines: Whether lines end in CR alone, as on old Macs.
    """

    path: Path
    member: str | None
    name: str
    size: int
    encoding: str = "utf-8"
    separator: bytes | None = None
    cr_ends_lines: bool = False

    @property
    def as_read(self) -> bool:
        """Whether readers can use the bytes of the file unchanged."""
        return self.encoding == "utf-8" and self.separator is None and not self.cr_ends_lines

    def open(self, on_read: Callable[[bytes], object] | None = None) -> IO[bytes]:
        """Open the unpacked file, converted to UTF-8, to a separator of one byte and to lines that end in LF.

        Args:
            on_read: Called with the file's original bytes, if they are converted.
        """
        raw = self._unpacked()
        if self.as_read:
            return raw
        return recoded(raw, self.encoding, self.separator, self.name, on_read, cr_ends_lines=self.cr_ends_lines)

    def _unpacked(self) -> IO[bytes]:
        if self.member:
            return zipfile.ZipFile(self.path).open(self.member)
        if self.path.suffix.lower() == ".gz":
            return cast(IO[bytes], gzip.open(self.path))
        return self.path.open("rb")


def find(folder_or_zip: Path, name: str, label: str = "") -> Source:
    """The file `name` in a folder or, at any depth, in a zip archive.

    Args:
        label: Name of the folder or archive, for messages and provenance; by default its own.

    Raises:
        DataError: If there is none, or several.
    """
    label = label or folder_or_zip.name
    if folder_or_zip.is_dir() and (path := folder_or_zip / name).is_file():
        return Source(path, None, f"{label}/{name}", path.stat().st_size)
    if folder_or_zip.is_file():
        try:
            with zipfile.ZipFile(folder_or_zip) as archive:
                members = [member for member in archive.infolist() if Path(member.filename).name == name]
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"{folder_or_zip} cannot be read as a zip archive: {error}. Give a folder or a zip."
            ) from error
        if len(members) == 1:
            return Source(folder_or_zip, members[0].filename, f"{label}/{name}", members[0].file_size)
        if members:
            raise DataError(
                f"{folder_or_zip} holds {len(members)} files {name!r}; expected one. Unpack it, and give a folder."
            )
    raise DataError(f"No {name!r} in {str(folder_or_zip)!r}. Give the folder or the zip archive that holds it.")


@dataclass(slots=True)
class Faults:
    """Rows that were left out: counted by reason, the first of each reason named.

    Attributes:
        strict: Raise at the first one instead.
        counts: Reason -> rows.
        lines: Reason -> lines of a file that were lost with these rows.
        named: Reason -> locations of the first rows, such as "behaviors.tsv, line 12".
        notes: Other messages for the report.
        counts_of_finished_steps: All counts of the finished steps, which are printed if a later step fails.
    """

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counts_of_finished_steps: dict[str, int] = field(default_factory=dict)

    def add(self, location: str, reason: str, lines: int = 1) -> None:
        if self.strict:
            raise DataError(f"{location}: {reason}. Mend the row; without --strict it is left out and counted.")
        self.counts[reason] += 1
        self.lines[reason] += lines
        examples = self.named.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(location)

    def report(self) -> str:
        """The report: one line for each reason and each note."""
        left_out = "".join(
            f"left out, {reason}: {self._amount(reason)} ({'; '.join(self.named[reason])}{'; ...' if count > EXAMPLES else ''})\n"
            for reason, count in sorted(self.counts.items())
        )
        return left_out + "".join(f"{note}\n" for note in dict.fromkeys(self.notes))

    def _amount(self, reason: str) -> str:
        rows, lines = self.counts[reason], self.lines[reason]
        return f"{rows:,}" if lines == rows else f"{rows:,} row{'s' * (rows > 1)}, {lines:,} lines"


@dataclass(slots=True)
class Reading:
    """Counts and the checksum of a file that was read.

    Attributes:
        rows: Rows read, including broken ones, without the header and empty lines.
        broken: Rows that were left out, or of which a part was, because they are broken.
        lines: Lines of the file that were lost with them.
        unescaped: Cells whose HTML entities were replaced by the characters that they stand for.
        sha256: Of the unpacked file; None unless it was read to its end.
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
    process: Process[Result],
    faults: Faults,
    reading: Reading,
    *,
    workers: int = 1,
    limit: int = 0,
    size: int | None = None,
) -> Iterator[Result]:
    """Read a table block by block, and yield the result of `process` for each block, in the order of the file.

    A row with too many or too few cells, or that is not UTF-8, is broken, and `process` does not see it. A line break is LF or
    CR LF; a CR elsewhere reads as a space, unless lines end in CR alone. Shows a progress bar.

    Args:
        wanted: Columns for `process`, as strings, in this order. An empty cell is an empty string.
        process: Returns its result and which rows are broken. Called on `workers` threads.
        faults: All broken rows are added to it.
        reading: Counts and the checksum are written to it.
        limit: Read only this many rows; 0 = all.
        size: Bytes of a block; default BLOCK.

    Raises:
        DataError: If the file cannot be read, has no header or lacks a wanted column; at a fault, if faults are strict.
    """
    digest, jobs = hashlib.sha256(), deque[Future]()

    def on_read(piece: bytes) -> None:
        digest.update(piece)
        bar.update(len(piece))

    def ignore(_: object) -> None:
        pass

    try:
        with (
            source.open(on_read) as raw,
            ThreadPoolExecutor(1 if limit else workers) as pool,
            tqdm(total=source.size, desc=source.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for block in blocks(raw, layout, size or BLOCK, on_read if source.as_read else ignore, ignore, source.name):
                for name in wanted:
                    check_column(name, block.columns, source.name)
                remaining = max(limit - reading.rows, 0) if limit else None
                jobs.append(pool.submit(_process_block, block, layout, wanted, process, remaining))
                if len(jobs) > (0 if limit else workers):
                    yield _add_to_reading(jobs.popleft().result(), source.name, faults, reading)
                if limit and reading.rows >= limit:
                    return
            while jobs:
                yield _add_to_reading(jobs.popleft().result(), source.name, faults, reading)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{source.name} cannot be read: {error}") from error
    finally:
        for job in jobs:
            job.cancel()
    reading.sha256 = digest.hexdigest()


def _add_to_reading(parsed: tuple[Result, int, list[Broken]], name: str, faults: Faults, reading: Reading) -> Result:
    result, rows, broken = parsed
    reading.rows += rows
    reading.broken += len(broken)
    for line, reason, lines in sorted(broken):
        reading.lines += lines
        location = f"line {line}" if lines == 1 else f"lines {line} to {line + lines - 1}"
        faults.add(f"{name}, {location}", reason, lines)
    return result


def _process_block(
    block: Block, layout: Layout, wanted: Sequence[str], process: Process[Result], limit: int | None
) -> tuple[Result, int, list[Broken]]:
    """The result of `process` for a block, its number of rows, and the broken rows."""
    table, lines, broken = parse(block, layout, wanted)
    if limit is not None and limit < len(table) + len(broken):
        numbers, _ = lines()
        end = np.sort([*numbers, *(row.line for row in broken)])[limit]
        table = table.slice(0, int((numbers < end).sum()))
        broken = [row for row in broken if row.line < end]
    result, masks = process(table)
    rows = len(table) + len(broken)
    for reason, mask in masks.items():
        masked = np.flatnonzero(mask)
        if len(masked):
            numbers, spans = lines()
            broken += [Broken(int(numbers[row]), reason, int(spans[row])) for row in masked]
    return result, rows, broken
