"""Write summaries together with the rows they belong to, in parts of users, so that one part is in memory at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, Features

from trsr.core.summarize import SummaryResult
from trsr.dataset import contract

PART = 1000  # users


class SummaryWriter:
    """Takes results in the order of the users in the splits, for each user one for each method, and writes rows.

    Args:
        folder: For the Arrow files, one for each method and split.
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
        self._results: list[SummaryResult] = []
        self._part: tuple[str, pa.Table] | None = next(self._parts, None)

    def add(self, result: SummaryResult | None) -> None:
        """Add the next result. After a None, nothing more is written."""
        if result is None:
            self._part = None
        if self._part is None or result is None:
            return
        self._results.append(result)
        if len(self._results) == len(self._methods) * len(self._part[1]):
            split, table = self._part
            for number, method in enumerate(self._methods):
                self._writers[method, split].write_table(
                    _with_summaries(table, self._results[number :: len(self._methods)], self._features[split])
                )
            self._results.clear()
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
    """The features of the contract, followed by the other features of the rows, such as the id of an impression."""
    others = {name: feature for name, feature in rows.items() if name not in contract.SUMMARIES}
    return Features({**contract.SUMMARIES, **others})


def _with_summaries(table: pa.Table, results: Sequence[SummaryResult], features: Features) -> pa.Table:
    new_columns = {
        "block_summaries": [list(result.block_summaries) for result in results],
        "summary": [result.summary for result in results],
    }
    schema = features.arrow_schema
    columns = [
        new_columns[name] if name in new_columns else table[name].cast(schema.field(name).type) for name in schema.names
    ]
    return pa.table(columns, schema=schema)
