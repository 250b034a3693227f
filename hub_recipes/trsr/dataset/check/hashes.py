"""64-bit hashes of users and pairs, and sets of them as sorted arrays: small, with fast look-up of many values."""

import numpy as np

from trsr.dataset.splitmix import splitmix64


def pair(users: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """A hash of a user's hash and an item's code: (n,) uint64."""
    return splitmix64(users ^ splitmix64(codes.astype(np.uint64)))


def isin_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array: (n,) bool."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def joined(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A sorted array of the values of both arrays, of which `ordered` is sorted."""
    # The stable sort detects sorted runs and merges them.
    return np.sort(np.concatenate([ordered, values]), kind="stable")
