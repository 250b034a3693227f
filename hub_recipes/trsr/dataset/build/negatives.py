"""Draw negatives for many users at once: different items that a user has not seen, reproducible on every machine.

Every user has a key, and the key a stream of random numbers. A user's negatives are the first different unseen items in that
stream: they depend on the key, the user's items and the catalogue alone.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from trsr.dataset.build.sequences import Sequences, lengths
from trsr.dataset.splitmix import splitmix64
from trsr.errors import DataError

# Numbers of the stream that are tried per negative; after that, negatives are drawn from the unseen items alone.
_STREAM_FACTOR = 32
_BATCH_CELLS = 1 << 20  # numbers in memory at once


class Pool:
    """A distribution over items, from which negatives are drawn.

    Args:
        weights: Integers (items,); an item is drawn in proportion to its weight.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights.astype(np.int64)
        self._ends = None if (self.weights == 1).all() else np.cumsum(self.weights)
        self.total = int(self.weights.sum())

    @classmethod
    def uniform(cls, items: int) -> "Pool":
        """The uniform distribution over the catalogue."""
        return cls(np.ones(items, np.int64))

    @classmethod
    def popular(cls, sequences: Sequences) -> "Pool":
        """Items in proportion to their interactions, targets included."""
        return cls(np.bincount(sequences.items.values.to_numpy(), minlength=len(sequences.catalogue)))

    def items_at(self, numbers: np.ndarray) -> np.ndarray:
        """The items, int64, for random numbers, uint64: the upper 53 bits select a position in the cumulative weights."""
        positions = (numbers >> np.uint64(11)) * 2.0**-53 * self.total
        if self._ends is None:
            return positions.astype(np.int64)
        return np.searchsorted(self._ends, positions, side="right")

    def without(self, items: np.ndarray) -> "Pool":
        """The same distribution without some items."""
        weights = self.weights.copy()
        weights[items] = 0
        return Pool(weights)


def draw(sequences: Sequences, keys: np.ndarray, pool: Pool, count: int = 20, sampling: str = "uniform") -> np.ndarray:
    """Draw `count` different items for each user that the user has never seen.

    Args:
        sequences: Of the users; all seen items are excluded, also those that are not in `items`.
        keys: Seed of each user, uint64 (users,).
        sampling: Name of the pool, for the message.

    Returns:
        Indices in the catalogue, int32 (users, count), in the order in which they were drawn.

    Raises:
        DataError: If the pool has too few unseen items.
    """
    drawn = np.empty((len(sequences), count), np.int32)
    pending, numbers = np.arange(len(sequences)), count
    if sequences.seen is not None:
        # Sorted by number of seen items, because all rows of a batch are as long as its longest: one user with very many would
        # make them all long.
        pending = np.argsort(-lengths(sequences.seen), kind="stable")
    # A user's negatives do not depend on how much of the stream is computed. The first `count` numbers are nearly always enough.
    while len(pending) and numbers <= _STREAM_FACTOR * count and pool.total:
        unfinished = []
        for batch in _batches(pending, sequences, numbers):
            new_items, enough = _first_new(_seen_items(sequences, batch), _stream(keys[batch], numbers, pool), count)
            drawn[batch[enough]] = new_items
            unfinished.append(batch[~enough])
        pending, numbers = np.concatenate(unfinished), numbers * 2
    for user in pending.tolist():
        drawn[user] = _one_by_one(sequences.take(np.array([user])), keys[user], pool, count, sampling)
    return drawn


def _stream(keys: np.ndarray, numbers: int, pool: Pool) -> np.ndarray:
    """The first items of each stream, (users, numbers)."""
    return pool.items_at(splitmix64(keys[:, None], np.arange(numbers, dtype=np.uint64)))


def _batches(users: np.ndarray, sequences: Sequences, numbers: int) -> Iterator[np.ndarray]:
    """Users in batches of about _BATCH_CELLS numbers."""
    # The largest number of seen items, of each user and those after it.
    longest = np.maximum.accumulate(lengths(sequences.all_seen)[users][::-1])[::-1]
    start = 0
    while start < len(users):
        step = max(1, _BATCH_CELLS // (int(longest[start]) + numbers))
        yield users[start : start + step]
        start += step


def _seen_items(sequences: Sequences, users: np.ndarray) -> np.ndarray:
    """The seen items of users, (users, longest), filled up with -1."""
    items = sequences.all_seen.take(pa.array(users))
    counts = lengths(items)
    seen = np.full((len(users), int(counts.max())), -1, np.int64)
    seen[np.arange(seen.shape[1]) < counts[:, None]] = items.values.to_numpy()
    return seen


def _first_new(seen: np.ndarray, drawn: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the first `count` different items in `drawn` that are not in `seen`.

    Returns:
        Items (rows with enough of them, count), and which rows have enough, bool (rows,).
    """
    items = np.concatenate([seen, drawn], axis=1)
    width = items.shape[1]
    bits = width.bit_length()
    # Sorted by item and column, equal items are neighbours, and the first of them was seen, or drawn first.
    cells = np.sort(items << bits | np.arange(width), axis=1)
    first = np.ones(cells.shape, dtype=bool)
    first[:, 1:] = cells[:, 1:] >> bits != cells[:, :-1] >> bits
    new = np.zeros(cells.shape, dtype=bool)
    np.put_along_axis(new, cells & (1 << bits) - 1, first, axis=1)
    new = new[:, seen.shape[1] :]
    new &= np.cumsum(new, axis=1) <= count
    enough = new.sum(axis=1) == count
    return drawn[enough][new[enough]].reshape(-1, count), enough


def _one_by_one(sequences: Sequences, key: np.uint64, pool: Pool, count: int, sampling: str) -> list[int]:
    """`draw` for one user who has seen nearly all of the pool: seen and drawn items are removed from it.

    Drawing from the rest has the same distribution as drawing until an item is unseen.
    """
    seen = sequences.all_seen.values.to_numpy()
    drawn: list[int] = []
    if pool.total:
        tried = _stream(np.array([key]), _STREAM_FACTOR * count, pool)[0]
        drawn = list(dict.fromkeys(tried[~np.isin(tried, seen)].tolist()))
    number = _STREAM_FACTOR * count
    while len(drawn) < count:
        pool = pool.without(np.append(seen, drawn).astype(np.int64))
        if not pool.total:
            raise DataError(
                f"User {sequences.users[0].as_py()!r}: the catalogue is too small, it has {len(drawn)} items for "
                f"{count} negatives ({sampling} sampling) beside the user's own. Give more items, or ask for fewer "
                "negatives."
            )
        drawn.append(int(pool.items_at(splitmix64(np.array([key]), np.array([number], np.uint64)))[0]))
        number += 1
    return drawn
