"""SplitMix64: random numbers that depend on a key and a count alone, the same on every machine.

Reference:
    Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
"""

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.zeros(1, np.uint64)


def splitmix64(keys: np.ndarray, numbers: np.ndarray = _FIRST) -> np.ndarray:
    """Outputs of the generators with the seeds `keys`, counted from 0. Both arguments are uint64 and broadcast."""
    mixed = keys + (numbers + np.uint64(1)) * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
