"""Sets of 64-bit numbers that stand for rows, users and pairs: small, and quick to ask of many at once."""

import numpy as np


def mix(values: np.ndarray) -> np.ndarray:
    """Scatter the bits of uint64 numbers: SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def pair(users: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """A user's hash and an item's code in one number: (n,) uint64."""
    return mix(users ^ mix(codes.astype(np.uint64)))


def isin_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values stand in a sorted array: (n,) bool."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def joined(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A sorted array with more values in it, sorted."""
    # The stable sort finds what is sorted already, and merges.
    return np.sort(np.concatenate([ordered, values]), kind="stable")
