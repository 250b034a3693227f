"""The interactions of all users as Arrow columns, without Python objects. An item is its index in the sorted catalogue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Sequences:
    """The items that each user interacted with.

    Attributes:
        users: Ids, all different; string (users,).
        items: Indices in `catalogue`, oldest first; lists of int32 (users,).
        catalogue: Ids of all items, sorted; string (items,).
        times: Times of `items` as numbers, if the log has them; lists of float64 (users,).
        seen: All items that each user ever interacted with, if `items` are only a part of them; lists of int32 (users,).
    """

    users: pa.StringArray
    items: pa.ListArray
    catalogue: pa.StringArray
    times: pa.ListArray | None = None
    seen: pa.ListArray | None = None

    @classmethod
    def of(cls, items_of_users: Mapping[str, Sequence[str]], catalogue: Iterable[str]) -> "Sequences":
        """Build from user id -> item ids, oldest first. Items that are not in the catalogue are left out."""
        ids = pa.array(sorted(catalogue), pa.string())
        texts = pa.array(items_of_users.values(), pa.list_(pa.string()))
        return cls(pa.array(items_of_users, pa.string()), encode(texts, ids), ids)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def all_seen(self) -> pa.ListArray:
        """All items that each user ever interacted with."""
        return self.items if self.seen is None else self.seen

    def take(self, indices: np.ndarray) -> "Sequences":
        """The users with these indices."""
        chosen = pa.array(indices)
        times, seen = (None if column is None else column.take(chosen) for column in (self.times, self.seen))
        return Sequences(self.users.take(chosen), self.items.take(chosen), self.catalogue, times, seen)

    def where(self, mask: np.ndarray) -> "Sequences":
        """The same users with a part of their items.

        Args:
            mask: Which items are kept, bool (values of `items`,).
        """
        sizes = np.diff(np.append(0, np.cumsum(mask))[self.items.offsets.to_numpy()])
        return self._with_items(sizes, np.flatnonzero(mask))

    def between(self, starts: np.ndarray, ends: np.ndarray) -> "Sequences":
        """The same users with their items from position `starts` up to, but not including, `ends`; ints (users,)."""
        sizes = ends - starts
        first = self.items.offsets.to_numpy()[:-1] + starts - (np.cumsum(sizes) - sizes)
        return self._with_items(sizes, np.arange(sizes.sum()) + np.repeat(first, sizes))

    def newest(self, count: int) -> "Sequences":
        """The same users with their last `count` items."""
        counts = lengths(self.items)
        return self.between(np.maximum(counts - count, 0), counts)

    def _with_items(self, sizes: np.ndarray, chosen: np.ndarray) -> "Sequences":
        if len(chosen) == len(self.items.values):
            return self
        indices = pa.array(chosen)
        times = None if self.times is None else lists(sizes, self.times.values.take(indices))
        return replace(self, items=lists(sizes, self.items.values.take(indices)), times=times, seen=self.all_seen)


def lists(lengths: np.ndarray, values: pa.Array) -> pa.ListArray:
    """Cut consecutive values into lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), values)


def lengths(values: pa.ListArray) -> np.ndarray:
    """The length of each list."""
    return np.diff(values.offsets.to_numpy())


def encode(texts: pa.ListArray, ids: pa.Array) -> pa.ListArray:
    """Lists of item ids as indices in `ids`; items that are not in it are left out."""
    indices = pc.index_in(texts.values, value_set=ids)
    counts = lengths(texts)
    if indices.null_count:
        mask = indices.is_valid().to_numpy(zero_copy_only=False)
        counts = np.bincount(np.repeat(np.arange(len(texts)), counts)[mask], minlength=len(texts))
    return lists(counts, pc.drop_null(indices))


def decode(indices: pa.ListArray, ids: pa.Array) -> pa.ListArray:
    """Lists of indices in `ids` as item ids."""
    return pa.ListArray.from_arrays(indices.offsets, ids.take(indices.values))


def newest(indices: pa.ListArray, count: int) -> pa.ListArray:
    """The last `count` values of each list."""
    ends = indices.offsets.to_numpy()
    sizes = np.minimum(np.diff(ends), count)
    return lists(
        sizes, indices.values.take(pa.array(np.arange(sizes.sum()) + np.repeat(ends[1:] - np.cumsum(sizes), sizes)))
    )
