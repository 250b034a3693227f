"""What users met, as columns: no step in Python for each of them. An item is its place in the sorted catalogue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Sequences:
    """What users met.

    Attributes:
        users: Ids, all different; string (users,).
        items: Places in `catalogue`, oldest first; lists of int32 (users,).
        catalogue: Ids of all items, sorted; string (items,).
        times: Of `items`, as numbers, where the log has them; lists of float64 (users,).
        met: All of the catalogue that each user ever met, where `items` are a part of it only; lists of int32 (users,).
    """

    users: pa.StringArray
    items: pa.ListArray
    catalogue: pa.StringArray
    times: pa.ListArray | None = None
    met: pa.ListArray | None = None

    @classmethod
    def of(cls, found: Mapping[str, Sequence[str]], catalogue: Iterable[str]) -> "Sequences":
        """From user id -> item ids, oldest first; items that are not in the catalogue are left out."""
        ids = pa.array(sorted(catalogue), pa.string())
        texts = pa.array(found.values(), pa.list_(pa.string()))
        return cls(pa.array(found, pa.string()), encode(texts, ids), ids)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def all_met(self) -> pa.ListArray:
        """All that each user ever met."""
        return self.items if self.met is None else self.met

    def take(self, places: np.ndarray) -> "Sequences":
        """The users at these places."""
        chosen = pa.array(places)
        times, met = (None if column is None else column.take(chosen) for column in (self.times, self.met))
        return Sequences(self.users.take(chosen), self.items.take(chosen), self.catalogue, times, met)

    def where(self, mask: np.ndarray) -> "Sequences":
        """The same users with a part of their items.

        Args:
            mask: Which items stay, bool (values of `items`,).
        """
        kept = np.diff(np.append(0, np.cumsum(mask))[self.items.offsets.to_numpy()])
        return self._with_items(kept, np.flatnonzero(mask))

    def between(self, starts: np.ndarray, ends: np.ndarray) -> "Sequences":
        """The same users with their items from place `starts` up to, but not with, place `ends`; ints (users,)."""
        kept = ends - starts
        first = self.items.offsets.to_numpy()[:-1] + starts - (np.cumsum(kept) - kept)
        return self._with_items(kept, np.arange(kept.sum()) + np.repeat(first, kept))

    def newest(self, count: int) -> "Sequences":
        """The same users with their last `count` items."""
        counts = lengths(self.items)
        return self.between(np.maximum(counts - count, 0), counts)

    def _with_items(self, kept: np.ndarray, chosen: np.ndarray) -> "Sequences":
        if len(chosen) == len(self.items.values):
            return self
        places = pa.array(chosen)
        times = None if self.times is None else lists(kept, self.times.values.take(places))
        return replace(self, items=lists(kept, self.items.values.take(places)), times=times, met=self.all_met)


def lists(lengths: np.ndarray, values: pa.Array) -> pa.ListArray:
    """Values in a row as lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), values)


def lengths(values: pa.ListArray) -> np.ndarray:
    """Of each list."""
    return np.diff(values.offsets.to_numpy())


def encode(texts: pa.ListArray, ids: pa.Array) -> pa.ListArray:
    """Lists of item ids as places in `ids`; items that are not in it are left out."""
    places = pc.index_in(texts.values, value_set=ids)
    counts = lengths(texts)
    if places.null_count:
        known = places.is_valid().to_numpy(zero_copy_only=False)
        counts = np.bincount(np.repeat(np.arange(len(texts)), counts)[known], minlength=len(texts))
    return lists(counts, pc.drop_null(places))


def decode(places: pa.ListArray, ids: pa.Array) -> pa.ListArray:
    """Lists of places in `ids` as item ids."""
    return pa.ListArray.from_arrays(places.offsets, ids.take(places.values))


def newest(places: pa.ListArray, count: int) -> pa.ListArray:
    """The last `count` values of each list."""
    ends = places.offsets.to_numpy()
    kept = np.minimum(np.diff(ends), count)
    return lists(
        kept, places.values.take(pa.array(np.arange(kept.sum()) + np.repeat(ends[1:] - np.cumsum(kept), kept)))
    )
