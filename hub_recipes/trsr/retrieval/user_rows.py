"""The rows of each user of a dataset: which one is the newest, and what the user met in all of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from trsr.dataset import contract
from trsr.errors import DataError


class UserRows:
    """Users of a dataset, in the order of their newest rows.

    The newest row of a user is the one with the latest time where all splits have `timestamps`; else it is one of the user's last
    split, and of several there the one with the longest history, the last of equally long ones.

    Args:
        splits: Split -> rows of `histories`, in the order of time.

    Attributes:
        by_time: Whether times say which row is the newest.
        guessed: Users who have several rows in their last split, where no times say which one is the newest.
    """

    def __init__(self, splits: Mapping[str, Dataset]) -> None:
        self._splits = list(splits.values())
        tables = [rows.with_format("arrow") for rows in self._splits]
        ids = [contract.one_chunk(table["user_id"]).cast(pa.string()) for table in tables]
        users = pa.concat_arrays(ids).dictionary_encode().indices.to_numpy()
        split = np.repeat(np.arange(len(ids)), [len(part) for part in ids])
        lengths = np.concatenate([pc.list_value_length(table["history"]).to_numpy() for table in tables])
        self.by_time = all("timestamps" in rows.column_names for rows in self._splits)
        times = np.concatenate([_last_times(table["timestamps"]) for table in tables]) if self.by_time else split
        # Of each user the rows lie together, the newest last: numbers of rows in all splits, one behind the other.
        self._rows = np.lexsort((lengths, split, times, users))
        last = np.flatnonzero(np.diff(users[self._rows], append=-1))
        first = np.concatenate([[0], last[:-1] + 1])
        order = np.argsort(self._rows[last])
        self._first, self._last = first[order], last[order]
        several = (first < last) & (split[self._rows[last]] == split[self._rows[np.maximum(last - 1, 0)]])
        self.guessed = 0 if self.by_time else int(several.sum())

    def __len__(self) -> int:
        return len(self._last)

    def read(self, start: int, end: int) -> list[dict[str, Any]]:
        """The newest rows of some users; under `also_met` is what else each met in any row: histories, targets and `also_met`.

        Args:
            start, end: Numbers of the first user and of the one after the last.
        """
        groups = [
            self._rows[first : last + 1]
            for first, last in zip(self._first[start:end], self._last[start:end], strict=True)
        ]
        rows = self._read(np.sort(np.concatenate(groups))) if groups else {}
        users = []
        for group in groups:
            newest = rows[int(group[-1])]
            met = {item_id: None for number in group for item_id in _met(rows[int(number)])}
            newest_ids = {*newest["history"], newest["target"]}
            users.append({**newest, "also_met": [item_id for item_id in met if item_id not in newest_ids]})
        return users

    def _read(self, numbers: np.ndarray) -> dict[int, dict[str, Any]]:
        """Rows by their numbers in all splits."""
        rows: dict[int, dict[str, Any]] = {}
        start = 0
        for split in self._splits:
            inside = numbers[(numbers >= start) & (numbers < start + len(split))]
            rows |= dict(zip(inside.tolist(), split.select(inside - start).to_list(), strict=True))
            start += len(split)
        return rows


def _met(row: Mapping[str, Any]) -> list[str]:
    return [*row["history"], row["target"], *(row.get("also_met") or ())]


def _last_times(column: pa.ChunkedArray) -> np.ndarray:
    """The latest time of each row, (rows,) float64; -inf for a row without times, or with missing ones alone.

    Raises:
        DataError: If times are neither numbers nor Arrow timestamps.
    """
    lists = contract.one_chunk(column)
    values = lists.flatten()
    kind = pa.types
    if kind.is_timestamp(values.type) or kind.is_date(values.type):
        values = values.cast(pa.timestamp("us")).cast(pa.int64())
    elif not (kind.is_integer(values.type) or kind.is_floating(values.type) or kind.is_null(values.type)):
        raise DataError(
            f"Times in the column timestamps of histories are of the type {values.type}, expected numbers or Arrow timestamps. Build "
            "the dataset again with such times, or without this column. See: trsr check DATASET"
        )
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    times = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    times = np.where(np.isnan(times), -np.inf, times)  # missing ones
    filled = lengths > 0
    latest = np.full(len(lengths), -np.inf)
    if len(times):
        latest[filled] = np.maximum.reduceat(times, (np.cumsum(lengths) - lengths)[filled])
    return latest
