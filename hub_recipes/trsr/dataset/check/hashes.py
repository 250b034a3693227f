"""64-bit hashes of users and pairs, and sets of them as sorted arrays: small, with fast look-up of many values."""

import numpy as np


def mix(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64 numbers: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def pair(users: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """A hash of a user's hash and an item's code: (n,) uint64."""
    return mix(users ^ mix(codes.astype(np.uint64)))


def isin_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array: (n,) bool."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def joined(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A sorted array of the values of both arrays, of which `ordered` is sorted."""
    # The stable sort detects sorted runs and merges them.
    return np.sort(np.concatenate([ordered, values]), kind="stable")
