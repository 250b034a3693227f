"""The candidates of a user, in an order that tells nothing of which one is the positive.

Does not choose negatives: the dataset releases them. Does not score: every system scores these lists, in this order.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

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


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of every row of a split, as all systems score them.

    Attributes:
        rows: The split.
        seed: Of the candidates' order.
        item_ids: A list a row; lists may differ in length.
        labels: (rows, candidates) bool: which candidate is the target. As wide as the longest list, False past a list's end.
        mask: (rows, candidates) bool: which cells hold a candidate; the `mask` of `trsr.metrics.ranking`.
    """

    rows: Dataset
    seed: int
    item_ids: list[list[str]]
    labels: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, rows: Dataset, seed: int) -> "Candidates":
        """Build them once. Raises DataError if there are no rows, or as `candidates` does."""
        pairs = [candidates(row, seed) for row in rows.select_columns(["user_id", "target", "negatives"])]
        if not pairs:
            raise DataError("No rows, so no candidates. Give a split with at least one user.")
        lengths = np.array([len(ids) for ids, _ in pairs])
        mask = np.arange(lengths.max()) < lengths[:, None]
        labels = np.zeros(mask.shape, dtype=bool)
        for number, (_, is_target) in enumerate(pairs):
            labels[number, : len(is_target)] = is_target
        return cls(rows, seed, [ids for ids, _ in pairs], labels, mask)

    def __len__(self) -> int:
        return len(self.item_ids)

    def score(self, function: Callable[[Mapping, list[str]], Iterable[float]]) -> np.ndarray:
        """Scores (rows, candidates) float64 from a function of a row and its candidates' ids; NaN past the end of a list."""
        scores = np.full(self.mask.shape, np.nan)
        for number, (row, ids) in enumerate(zip(self.rows, self.item_ids, strict=True)):
            scores[number, : len(ids)] = function(row, ids)
        return scores
