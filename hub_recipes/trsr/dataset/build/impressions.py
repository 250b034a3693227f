"""The protocol `impressions`: a clicked item is ranked against the items shown beside it, and splits are divided by time.

Works on columns, in which an item is its index in the catalogue. Rows are written in the order of a seeded hash of impression
and user, so that the order in which they are read does not matter; memory holds a part of them. Knows nothing of file formats.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features, Value

from trsr.dataset.build.protocol import USE, sizes
from trsr.dataset.build.sequences import decode
from trsr.dataset.contract import HISTORIES, Tables

FEATURES = Features({**HISTORIES, "impression_id": Value("string")})
BITS = 6  # the first ones of a key, which say in which file a row is sorted
_INDICES = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "key": pa.uint64(),
        "impression_id": pa.int64(),
        "day": pa.int32(),
        "user_id": pa.string(),
        "history": _INDICES,
        "clicked": _INDICES,
        "others": _INDICES,
    }
)


def keys(impressions: pa.Array, users: pa.Array, seed: int) -> pa.Array:
    """For each impression, the number by which rows are sorted."""
    digests = [
        hashlib.sha256(f'["impression", {seed}, {impression}, {json.dumps(user)}]'.encode()).digest()[:8]
        for impression, user in zip(impressions.to_pylist(), users.to_pylist(), strict=True)
    ]
    return pa.array(np.frombuffer(b"".join(digests), ">u8").astype(np.uint64))


class Sorter:
    """Sorts impressions by key on disk: rows are split into files by the first BITS of the key, and sorted file by file.

    Args:
        folder: An empty folder for the files: 2 ** BITS, of which one is in memory at a time.

    Attributes:
        rows: Number of added impressions, including repeated ones.
        days: Days of the impressions, counted from 1970.
    """

    def __init__(self, folder: Path) -> None:
        self.rows, self.days = 0, set[int]()
        self._folder, self._shift, self._count = folder, np.uint64(64 - BITS), 1 << BITS
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._keys: list[np.ndarray] = []

    def add(self, table: pa.Table) -> None:
        """Add rows of SCHEMA."""
        keys = table["key"].to_numpy()
        self.rows += len(keys)
        self.days |= set(pc.unique(table["day"]).to_pylist())
        self._keys.append(keys)
        numbers = keys >> self._shift
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(self._count + 1))
        table = table.take(pa.array(order))
        for number in np.flatnonzero(np.diff(ends)).tolist():
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_stream(self._folder / f"{number}.arrow", SCHEMA)
            self._writers[number].write_table(table.slice(ends[number], ends[number + 1] - ends[number]))

    def repeated(self) -> int:
        """Number of impressions that repeat an earlier one."""
        return self.rows - len(np.unique(np.concatenate([*self._keys, np.array([], np.uint64)])))

    def read(self, days: Collection[int]) -> Iterator[pa.Table]:
        """The impressions of some days in order, one file at a time. Of repeated ones, the smallest row is kept."""
        for number in sorted(self._writers):
            self._writers[number].close()
            with pa.ipc.open_stream(self._folder / f"{number}.arrow") as reader:
                table = reader.read_all()
            table = table.filter(pc.is_in(table["day"], value_set=pa.array(sorted(days), pa.int32())))
            keys = table["key"].to_numpy()
            order = np.argsort(keys, kind="stable")
            repeats = keys[order][1:] == keys[order][:-1]
            yield table.take(pa.array(_without_repeats(table, order, repeats) if repeats.any() else order))


def _without_repeats(table: pa.Table, order: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """`order` with one row for each key.

    Args:
        repeats: For each row in that order, whether the next row has the same key.
    """
    rows: list[int] = []
    equal: list[int] = []
    for row, repeated_next in zip(order.tolist(), [*repeats.tolist(), False], strict=True):
        equal.append(row)
        if not repeated_next:
            rows.append(
                min(equal, key=lambda number: [*table.slice(number, 1).to_pylist()[0].values()]) if equal[1:] else row
            )
            equal = []
    return np.array(rows)


def histories(table: pa.Table, ids: pa.Array) -> pa.Table:
    """Rows of the config `histories`, one for each clicked item, with the column `impression_id`.

    Args:
        table: Rows of SCHEMA.
        ids: Item ids of the catalogue.
    """
    clicked = table["clicked"].combine_chunks()
    owner = pc.list_parent_indices(clicked)
    rows = table.select(["user_id", "history", "others", "impression_id"]).take(owner)
    columns = [rows["user_id"], decode(rows["history"].combine_chunks(), ids), ids.take(pc.list_flatten(clicked))]
    columns += [decode(rows["others"].combine_chunks(), ids), rows["impression_id"].cast(pa.string())]
    return pa.table(columns, schema=FEATURES.arrow_schema)


class ParquetSplit:
    """A split in a Parquet file, which `contract.write` accepts in place of a Dataset that does not fit into memory.

    Args:
        path: File to write. It is moved into the dataset folder, so it should be on the same disk.
        parts: Tables of FEATURES.
    """

    def __init__(self, path: Path, parts: Iterable[pa.Table]) -> None:
        self.path, self.rows = path, 0
        with pq.ParquetWriter(path, FEATURES.arrow_schema) as writer:
            for part in parts:
                if len(part):  # `datasets` cannot read an empty row group
                    writer.write_table(part)
                    self.rows += len(part)

    def __len__(self) -> int:
        return self.rows

    def to_parquet(self, path: Path) -> None:
        self.path.rename(path)


def first_rows(parts: Iterable[pa.Table], count: int | None) -> Iterator[pa.Table]:
    """The first `count` rows of a sequence of tables; None for all."""
    for part in parts:
        if count is None:
            yield part
        elif count > 0:
            yield part.slice(0, count)
            count -= len(part)


def describe(tables: Tables, newest: int, seed: int) -> str:
    """Sizes, protocol and use in Markdown, for a dataset card.

    Args:
        newest: Number of newest items that histories keep.
    """
    return f"""\
{sizes(tables)}

Protocol `impressions`: `test` is the official later part, `validation` the last day before it, `train` the days before
that. A row is one clicked item of one impression, its `target`; the `negatives` are the items that were shown beside it
and not clicked, as many as there are. The `history` is the user's as logged, oldest first, at most {newest} items. Users
stand in several rows and splits; `impression_id` tells rows of one impression apart from others. Rows are in the order
of a hash with the seed {seed}.

{USE}"""
