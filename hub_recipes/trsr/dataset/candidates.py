"""The candidates of a user, in an order that tells nothing of which one is the positive.

Does not choose negatives: the dataset releases them. Does not score: every system scores these lists, in this order.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trsr.errors import DataError


def candidates(row: Mapping, seed: int) -> tuple[list[str], list[bool]]:
    """Shuffle the target among the negatives.

    The order hangs on the seed, the user and the items alone: not on other rows, nor on the order of the negatives.

    Args:
        row: A row of `histories`: `user_id`, `target`, `negatives`.

    Returns:
        Item ids, and for each whether it is the target.

    Raises:
        DataError: If there are no negatives, or the target is one of them.
    """
    user_id, target, negatives = row["user_id"], row["target"], row["negatives"]
    if not negatives:
        raise DataError(f"User {user_id!r} has no negatives: there is nothing to rank the target against.")
    if target in negatives:
        raise DataError(f"User {user_id!r}: the target {target!r} is also a negative. Sample the negatives without it.")

    # Sorting by digest is a shuffle that stays the same on every machine and version of Python.
    def digest(item_id: str) -> bytes:
        return hashlib.sha256(json.dumps([seed, user_id, item_id]).encode()).digest()

    ids = sorted([target, *negatives], key=digest)
    return ids, [item_id == target for item_id in ids]


def candidate_table(rows: Iterable[Mapping], seed: int) -> tuple[list[list[str]], np.ndarray]:
    """The candidates of every row.

    Returns:
        Lists of item ids, one a user, and labels (users, candidates) bool. Lists may differ in length: labels are as
        wide as the longest, False past a list's end; `presence` says which cells hold a candidate.

    Raises:
        DataError: If there are no rows, or as `candidates` does.
    """
    pairs = [candidates(row, seed) for row in rows]
    if not pairs:
        raise DataError("No rows, so no candidates. Give a split with at least one user.")
    lists = [ids for ids, _ in pairs]
    labels = np.zeros((len(lists), max(map(len, lists))), dtype=bool)
    for place, (_, chosen) in enumerate(pairs):
        labels[place, : len(chosen)] = chosen
    return lists, labels


def presence(lists: Sequence[Sequence[str]]) -> np.ndarray:
    """Which cells of the table hold a candidate: (users, candidates) bool, the `mask` of `trsr.metrics.ranking`."""
    lengths = np.array([len(ids) for ids in lists])
    return np.arange(lengths.max()) < lengths[:, None]
