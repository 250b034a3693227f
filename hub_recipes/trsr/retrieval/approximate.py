"""Approximate search for catalogues where a product with every item takes too long: an inverted file of faiss.

Items are put into lists by k-means; a user is compared with the items of the nearest lists alone. Scores are exact products, and an
item in another list is missed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsr.errors import UsageError

PROBED = 1 / 8  # of the lists, where nothing is said
POINTS = 64  # items a list that k-means sees


@dataclass(frozen=True, slots=True)
class ApproximateIndex:
    """Items in lists.

    Attributes:
        lists: How many; the square root of the number of items.
        probes: Lists that a user is compared with at first: more find more, and take longer.
    """

    lists: int
    probes: int
    _faiss: Any

    @classmethod
    def build(cls, items: np.ndarray, probes: int = 0, seed: int = 0) -> "ApproximateIndex":
        """Put items into lists; vectors are copied.

        Args:
            items: (items, width) float32.
            probes: 0 = PROBED of the lists.
            seed: Of k-means.

        Raises:
            UsageError: If the package faiss-cpu is missing, or `probes` is below 0.
        """
        try:
            import faiss
        except ModuleNotFoundError as error:
            raise UsageError("Approximate search takes one more package: pip install 'llm-trsr[search]'") from error
        if probes < 0:
            raise UsageError(f"probes is {probes}, expected at least 1 list, or 0.")
        lists = max(1, math.isqrt(len(items)))
        probes = min(probes or math.ceil(lists * PROBED), lists)
        index: Any = faiss.index_factory(items.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = seed, POINTS, 1
        index.train(items)
        index.add(items)
        return cls(lists, probes, index)

    def probing(self, probes: int) -> "ApproximateIndex":
        """The same lists, of which a user is compared with more or fewer."""
        return replace(self, probes=max(1, min(probes, self.lists)))

    def top_k_items(
        self, users: np.ndarray, k: int, exclude: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the largest inner products among those that are looked at, best first, as `search.top_k_items` gives them.

        Users for whom the nearest lists hold too few items are compared with more lists.

        Args:
            users: (users, width) float32.
            exclude: Items of each user that are left out.
        """
        numbers, scores = self._top_k_items(users, k, exclude, self.probes)
        probes = self.probes
        while probes < self.lists and (short := self._short(numbers, exclude)):
            probes = min(2 * probes, self.lists)
            left_out = [exclude[row] for row in short] if exclude is not None else None
            numbers[short], scores[short] = self._top_k_items(users[short], k, left_out, probes)
        return numbers, scores

    def _short(self, numbers: np.ndarray, exclude: Sequence[np.ndarray] | None) -> list[int]:
        """Rows of `numbers` with free places for items that are not left out."""
        counts = (numbers >= 0).sum(axis=1)
        rows = np.flatnonzero(counts < numbers.shape[1]).tolist()
        met = {row: len(np.unique(exclude[row])) if exclude is not None else 0 for row in rows}
        return [row for row in rows if counts[row] < self._faiss.ntotal - met[row]]

    def _top_k_items(
        self, users: np.ndarray, k: int, exclude: Sequence[np.ndarray] | None, probes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `top_k_items`, in so many lists alone."""
        k = min(k, self._faiss.ntotal)
        longest = max(map(len, exclude), default=0) if exclude is not None else 0
        self._faiss.nprobe = probes
        scores, numbers = self._faiss.search(np.ascontiguousarray(users), min(k + longest, self._faiss.ntotal))
        if exclude is not None:
            for row, met in enumerate(exclude):
                numbers[row, np.isin(numbers[row], met)] = -1
        scores[numbers < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(scores, order, axis=1)
