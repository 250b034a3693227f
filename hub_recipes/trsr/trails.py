"""Write trails beside the rows they belong to, a part of the users at a time: no more than a part is in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict

from trsr import data
from trsr.core.summarize import Trail

PART = 1000  # users


class Trails:
    """Trails of the rows of some splits, as they come: users in the order of the splits, for each user one a method.

    Args:
        folder: Gets a file a method and split, in Arrow's format.
    """

    def __init__(self, splits: Mapping[str, Dataset], methods: Sequence[str], folder: Path) -> None:
        self._methods = methods
        self._parts = (
            (split, table)
            for split, rows in splits.items()
            for table in rows.select_columns(list(data.HISTORIES)).with_format("arrow").iter(PART)
        )
        self._paths = {(method, split): folder / f"{method}-{split}.arrow" for method in methods for split in splits}
        self._writers = {
            place: pa.ipc.new_stream(path, data.SUMMARIES.arrow_schema) for place, path in self._paths.items()
        }
        self._trails: list[Trail] = []
        self._part: tuple[str, pa.Table] | None = next(self._parts, None)

    def add(self, trail: Trail | None) -> None:
        """Take the next trail; after a None, nothing more is written."""
        if trail is None:
            self._part = None
        if self._part is None or trail is None:
            return
        self._trails.append(trail)
        if len(self._trails) == len(self._methods) * len(self._part[1]):
            split, table = self._part
            for place, method in enumerate(self._methods):
                self._writers[method, split].write_table(_with_trails(table, self._trails[place :: len(self._methods)]))
            self._trails.clear()
            self._part = next(self._parts, None)

    def tables(self) -> dict[str, DatasetDict]:
        """Rows of `histories` with their summaries, read from the files."""
        for writer in self._writers.values():
            writer.close()
        splits = list(dict.fromkeys(split for _, split in self._paths))
        return {
            method: DatasetDict({split: Dataset.from_file(str(self._paths[method, split])) for split in splits})
            for method in self._methods
        }


def _with_trails(table: pa.Table, trails: Sequence[Trail]) -> pa.Table:
    table = table.cast(data.HISTORIES.arrow_schema)
    schema = data.SUMMARIES.arrow_schema
    made = [[list(trail.block_summaries) for trail in trails], [trail.summary for trail in trails]]
    columns = [pa.array(column, schema.field(name).type) for name, column in zip(schema.names[-2:], made, strict=True)]
    return pa.Table.from_arrays([*table.columns, *columns], schema=schema)
