"""Guess the unit of times since 1970 from their size; right for dates from 1973 to 2286."""

import numpy as np

UNITS = {"seconds": 1e8, "milliseconds": 1e11, "microseconds": 1e14, "nanoseconds": 1e17}  # the smallest time of each


def unit_indices(times: np.ndarray) -> np.ndarray:
    """The index in UNITS of each time's unit, -1 if its size fits none: (times,)."""
    times = np.asarray(times, dtype=float)
    indices = np.full(len(times), -1)
    for index, smallest in enumerate(UNITS.values()):
        indices[(times >= smallest) & (times < 100 * smallest)] = index
    return indices


def parts_of_second(times: np.ndarray) -> int:
    """How many units of most times make a second; 1 if no time fits a unit."""
    indices = unit_indices(times)
    return 1000 ** int(np.bincount(indices[indices >= 0], minlength=1).argmax())


def count_units(times: np.ndarray) -> dict[str, int]:
    """Unit -> number of times in it, for units that occur."""
    indices = unit_indices(times)
    counts = np.bincount(indices[indices >= 0], minlength=len(UNITS)).tolist()
    return {unit: count for unit, count in zip(UNITS, counts, strict=True) if count}
