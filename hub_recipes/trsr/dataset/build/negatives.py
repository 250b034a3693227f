"""Negatives of many users at once: different items that a user has not met, the same ones wherever they are drawn.

Every user has a key, and every key a stream of numbers. A user's negatives are the first items in that stream that are
new: a function of key, user and catalogue alone.

Reference:
    SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from trsr.dataset.build.sequences import Sequences, lengths
from trsr.errors import DataError

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
# Numbers of a stream that are looked at, a negative asked for; after that, only what is still free is drawn from.
_PATIENCE = 32
_CELLS = 1 << 20  # numbers in memory at once


def splitmix64(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Outputs of the generators that start with `keys`; the first has the number 0. Both are uint64 and broadcast."""
    mixed = keys + (numbers + np.uint64(1)) * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Pool:
    """Items that are drawn, each in proportion to its weight.

    Args:
        weights: Integers (items,), 0 for an item that is never drawn.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights.astype(np.int64)
        self._ends = None if (self.weights == 1).all() else np.cumsum(self.weights)
        self.total = int(self.weights.sum())

    @classmethod
    def uniform(cls, items: int) -> "Pool":
        """Every item of the catalogue alike."""
        return cls(np.ones(items, np.int64))

    @classmethod
    def popular(cls, sequences: Sequences) -> "Pool":
        """Items in proportion to how often users met them, targets included."""
        return cls(np.bincount(sequences.items.values.to_numpy(), minlength=len(sequences.catalogue)))

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """The items to which random numbers fall, int64: of a number, its upper 53 bits say where in the running total."""
        places = (numbers >> np.uint64(11)) * 2.0**-53 * self.total
        if self._ends is None:
            return places.astype(np.int64)
        return np.searchsorted(self._ends, places, side="right")

    def without(self, items: np.ndarray) -> "Pool":
        """The same without some items."""
        weights = self.weights.copy()
        weights[items] = 0
        return Pool(weights)


def draw(sequences: Sequences, keys: np.ndarray, pool: Pool, count: int = 20, sampling: str = "uniform") -> np.ndarray:
    """`count` different items for each user that the user has never met, as places in the catalogue.

    Args:
        sequences: Of the users; what they met counts whole, also where a part of it alone is used.
        keys: uint64 (users,).
        sampling: What the pool is, for the message.

    Returns:
        int32 (users, count), in the order they were drawn.

    Raises:
        DataError: If the pool has too few other items.
    """
    made = np.empty((len(sequences), count), np.int32)
    waiting, numbers = np.arange(len(sequences)), count
    if sequences.met is not None:
        # Before a cut, users differ much: one who met very much would make the rows of all others as long.
        waiting = np.argsort(-lengths(sequences.met), kind="stable")
    # What a user gets does not depend on how much of the stream is looked at: nearly always the shortest piece is enough.
    while len(waiting) and numbers <= _PATIENCE * count and pool.total:
        still = []
        for some in _parts(waiting, sequences, numbers):
            found, enough = _first_new(_met(sequences, some), _stream(keys[some], numbers, pool), count)
            made[some[enough]] = found
            still.append(some[~enough])
        waiting, numbers = np.concatenate(still), numbers * 2
    for user in waiting.tolist():
        made[user] = _one_by_one(sequences.take(np.array([user])), keys[user], pool, count, sampling)
    return made


def _stream(keys: np.ndarray, numbers: int, pool: Pool) -> np.ndarray:
    """The first items of each stream, (users, numbers)."""
    return pool.at(splitmix64(keys[:, None], np.arange(numbers, dtype=np.uint64)))


def _parts(users: np.ndarray, sequences: Sequences, numbers: int) -> Iterator[np.ndarray]:
    """Users in parts that fill the memory."""
    # The most that a user from here on met.
    longest = np.maximum.accumulate(lengths(sequences.all_met)[users][::-1])[::-1]
    start = 0
    while start < len(users):
        step = max(1, _CELLS // (int(longest[start]) + numbers))
        yield users[start : start + step]
        start += step


def _met(sequences: Sequences, users: np.ndarray) -> np.ndarray:
    """What users met, (users, longest); -1 where there is no more."""
    items = sequences.all_met.take(pa.array(users))
    counts = lengths(items)
    met = np.full((len(users), int(counts.max())), -1, np.int64)
    met[np.arange(met.shape[1]) < counts[:, None]] = items.values.to_numpy()
    return met


def _first_new(met: np.ndarray, drawn: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` different items in `drawn`, by rows, that are not in `met`; and which rows have as many.

    Returns:
        Items (rows that have enough, count) and bool (rows,).
    """
    items = np.concatenate([met, drawn], axis=1)
    width = items.shape[1]
    bits = width.bit_length()
    # Sorted with their columns, equal items stand in a row, and the first of them was met, or drawn first.
    cells = np.sort(items << bits | np.arange(width), axis=1)
    first = np.ones(cells.shape, dtype=bool)
    first[:, 1:] = cells[:, 1:] >> bits != cells[:, :-1] >> bits
    new = np.zeros(cells.shape, dtype=bool)
    np.put_along_axis(new, cells & (1 << bits) - 1, first, axis=1)
    new = new[:, met.shape[1] :]
    new &= np.cumsum(new, axis=1) <= count
    enough = new.sum(axis=1) == count
    return drawn[enough][new[enough]].reshape(-1, count), enough


def _one_by_one(sequences: Sequences, key: np.uint64, pool: Pool, count: int, sampling: str) -> list[int]:
    """As `draw`, for one user to whom little of the pool is left: met and drawn items are taken out of it.

    Drawing from the rest has the same distribution as drawing until an item is new.
    """
    met = sequences.all_met.values.to_numpy()
    made: list[int] = []
    if pool.total:
        seen = _stream(np.array([key]), _PATIENCE * count, pool)[0]
        made = list(dict.fromkeys(seen[~np.isin(seen, met)].tolist()))
    number = _PATIENCE * count
    while len(made) < count:
        pool = pool.without(np.append(met, made).astype(np.int64))
        if not pool.total:
            raise DataError(
                f"User {sequences.users[0].as_py()!r}: the catalogue is too small, it has {len(made)} items for "
                f"{count} negatives ({sampling} sampling) beside the user's own. Give more items, or ask for fewer "
                "negatives."
            )
        made.append(int(pool.at(splitmix64(np.array([key]), np.array([number], np.uint64)))[0]))
        number += 1
    return made
