"""Guess the unit of times since 1970 from their size; right for dates from 1973 to 2286."""

import re
from datetime import UTC, datetime

import numpy as np

UNITS = {"seconds": 1e8, "milliseconds": 1e11, "microseconds": 1e14, "nanoseconds": 1e17}  # the smallest time of each
UNKNOWN = "an_unknown_unit"
GAP = 10  # factor between times of no unit and the others, beyond which they are in another unit
_DAYS = 19000101, 21001231  # as numbers YYYYMMDD


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
    """Unit -> number of times in it, for units that occur. Times that fit none, and are far below the others, count as UNKNOWN."""
    indices = unit_indices(times)
    counts = np.bincount(indices[indices >= 0], minlength=len(UNITS)).tolist()
    units = {unit: count for unit, count in zip(UNITS, counts, strict=True) if count}
    others = times[indices < 0]
    if units and len(others) and others.max() * GAP < times[indices >= 0].min():
        units[UNKNOWN] = len(others)
    return units


def with_hyphens(text: str) -> str:
    """A day that is written YYYYMMDD as YYYY-MM-DD; any other text as it is."""
    is_day = re.fullmatch("[0-9]{8}", text) and seconds_of_days(np.array([float(text)])) is not None
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_day else text


def seconds_of_days(times: np.ndarray) -> np.ndarray | None:
    """Seconds since 1970 of days that are written as numbers YYYYMMDD; None if any is no day from 1900 to 2100."""
    days, inverse = np.unique(times, return_inverse=True)
    if not len(days) or days[0] < _DAYS[0] or days[-1] > _DAYS[1] or (days % 1).any():
        return None
    try:
        moments = [datetime.strptime(str(int(day)), "%Y%m%d").replace(tzinfo=UTC).timestamp() for day in days]
    except ValueError:
        return None
    return np.array(moments)[inverse]
