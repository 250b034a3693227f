"""Write trails beside the rows they belong to, a part of the users at a time: no more than a part is in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, Features

from trsr.core.summarize import SummaryResult
from trsr.dataset import contract

PART = 1000  # users


class SummaryWriter:
    """Trails of the rows of some splits, as they come: users in the order of the splits, for each user one a method.

    Args:
        folder: Gets a file a method and split, in Arrow's format.
    """

    def __init__(self, splits: Mapping[str, Dataset], methods: Sequence[str], folder: Path) -> None:
        self._methods = methods
        self._parts = (
            (split, table) for split, rows in splits.items() for table in rows.with_format("arrow").iter(PART)
        )
        self._paths = {(method, split): folder / f"{method}-{split}.arrow" for method in methods for split in splits}
        self._features = {split: _features(rows.features) for split, rows in splits.items()}
        self._writers = {
            (method, split): pa.ipc.new_stream(path, self._features[split].arrow_schema)
            for (method, split), path in self._paths.items()
        }
        self._trails: list[SummaryResult] = []
        self._part: tuple[str, pa.Table] | None = next(self._parts, None)

    def add(self, trail: SummaryResult | None) -> None:
        """Take the next trail; after a None, nothing more is written."""
        if trail is None:
            self._part = None
        if self._part is None or trail is None:
            return
        self._trails.append(trail)
        if len(self._trails) == len(self._methods) * len(self._part[1]):
            split, table = self._part
            for place, method in enumerate(self._methods):
                self._writers[method, split].write_table(
                    _with_trails(table, self._trails[place :: len(self._methods)], self._features[split])
                )
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


def _features(rows: Features) -> Features:
    """Those of the contract, and then what else the rows have: an impression's id, times."""
    more = {name: feature for name, feature in rows.items() if name not in contract.SUMMARIES}
    return Features({**contract.SUMMARIES, **more})


def _with_trails(table: pa.Table, trails: Sequence[SummaryResult], features: Features) -> pa.Table:
    made = {
        "block_summaries": [list(trail.block_summaries) for trail in trails],
        "summary": [trail.summary for trail in trails],
    }
    schema = features.arrow_schema
    columns = [made[name] if name in made else table[name].cast(schema.field(name).type) for name in schema.names]
    return pa.table(columns, schema=schema)
