"""The protocol `impressions`: a clicked item is ranked against what was shown beside it, and time divides the splits.

Works on columns, in which an item is its place in the catalogue. Rows come in the order of a seeded hash of impression
and user, whatever the order they are read in; memory holds a part of them. Knows nothing of file formats.
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
_PLACES = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "key": pa.uint64(),
        "impression_id": pa.int64(),
        "day": pa.int32(),
        "user_id": pa.string(),
        "history": _PLACES,
        "clicked": _PLACES,
        "others": _PLACES,
    }
)


def keys(impressions: pa.Array, users: pa.Array, seed: int) -> pa.Array:
    """A number for each impression that says where it stands in the order."""
    made = [
        hashlib.sha256(f'["impression", {seed}, {impression}, {json.dumps(user)}]'.encode()).digest()[:8]
        for impression, user in zip(impressions.to_pylist(), users.to_pylist(), strict=True)
    ]
    return pa.array(np.frombuffer(b"".join(made), ">u8").astype(np.uint64))


class Sorter:
    """Impressions in the order of their keys: sorted into files by the key's first bits, and read back file by file.

    Args:
        folder: An empty one, for the files.
        bits: Of the key; 2 ** bits files. One file is held in memory at once.

    Attributes:
        rows: Impressions taken, repeated ones too.
        days: Days, counted from 1970, of which there are any.
    """

    def __init__(self, folder: Path, bits: int = 6) -> None:
        self.rows, self.days = 0, set[int]()
        self._folder, self._shift, self._count = folder, np.uint64(64 - bits), 1 << bits
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._keys: list[np.ndarray] = []

    def add(self, table: pa.Table) -> None:
        """Take rows of SCHEMA."""
        keys = table["key"].to_numpy()
        self.rows += len(keys)
        self.days |= set(pc.unique(table["day"]).to_pylist())
        self._keys.append(keys)
        places = keys >> self._shift
        order = np.argsort(places, kind="stable")
        ends = np.searchsorted(places[order], np.arange(self._count + 1))
        table = table.take(pa.array(order))
        for number in np.flatnonzero(np.diff(ends)).tolist():
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_stream(self._folder / f"{number}.arrow", SCHEMA)
            self._writers[number].write_table(table.slice(ends[number], ends[number + 1] - ends[number]))

    def repeated(self) -> int:
        """How many impressions were met before."""
        return self.rows - len(np.unique(np.concatenate([*self._keys, np.array([], np.uint64)])))

    def read(self, days: Collection[int]) -> Iterator[pa.Table]:
        """All impressions of some days in order, a part at a time; of repeated ones, the least by its columns."""
        for number in sorted(self._writers):
            self._writers[number].close()
            with pa.ipc.open_stream(self._folder / f"{number}.arrow") as reader:
                table = reader.read_all()
            table = table.filter(pc.is_in(table["day"], value_set=pa.array(sorted(days), pa.int32())))
            keys = table["key"].to_numpy()
            order = np.argsort(keys, kind="stable")
            again = keys[order][1:] == keys[order][:-1]
            yield table.take(pa.array(_once(table, order, again) if again.any() else order))


def _once(table: pa.Table, order: np.ndarray, again: np.ndarray) -> np.ndarray:
    """`order` with one row of each key. `again`: whether the row after it, in that order, has the same."""
    kept: list[int] = []
    tied: list[int] = []
    for place, more in zip(order.tolist(), [*again.tolist(), False], strict=True):
        tied.append(place)
        if not more:
            kept.append(
                min(tied, key=lambda row: [*table.slice(row, 1).to_pylist()[0].values()]) if tied[1:] else place
            )
            tied = []
    return np.array(kept)


def histories(table: pa.Table, ids: pa.Array) -> pa.Table:
    """Rows of the config `histories`, one a clicked item, with the column `impression_id`.

    Args:
        table: Rows of SCHEMA.
        ids: The catalogue.
    """
    clicked = table["clicked"].combine_chunks()
    owner = pc.list_parent_indices(clicked)
    made = table.select(["user_id", "history", "others", "impression_id"]).take(owner)
    columns = [made["user_id"], decode(made["history"].combine_chunks(), ids), ids.take(pc.list_flatten(clicked))]
    columns += [decode(made["others"].combine_chunks(), ids), made["impression_id"].cast(pa.string())]
    return pa.table(columns, schema=FEATURES.arrow_schema)


class Written:
    """A split in a Parquet file: what `data.write` takes in place of a Dataset that memory would not hold.

    Args:
        path: Where to write; beside the dataset folder, since the file is moved there.
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


def first(parts: Iterable[pa.Table], count: int | None) -> Iterator[pa.Table]:
    """The first `count` rows of tables; None for all."""
    for part in parts:
        if count is None:
            yield part
        elif count > 0:
            yield part.slice(0, count)
            count -= len(part)


def describe(tables: Tables, newest: int, seed: int) -> str:
    """Sizes, protocol and use in Markdown, for a dataset card.

    Args:
        newest: Items that histories keep.
    """
    return f"""\
{sizes(tables)}

Protocol `impressions`: `test` is the official later part, `validation` the last day before it, `train` the days before
that. A row is one clicked item of one impression, its `target`; the `negatives` are the items that were shown beside it
and not clicked, as many as there are. The `history` is the user's as logged, oldest first, at most {newest} items. Users
stand in several rows and splits; `impression_id` tells rows of one impression apart from others. Rows are in the order
of a hash with the seed {seed}.

{USE}"""
