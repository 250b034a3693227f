"""In which unit points in time are counted since 1970, as far as their size tells: of dates from 1973 to 2286."""

import numpy as np

UNITS = {"seconds": 1e8, "milliseconds": 1e11, "microseconds": 1e14, "nanoseconds": 1e17}  # the least of each


def unit_places(times: np.ndarray) -> np.ndarray:
    """The place of each time's unit in UNITS, -1 where its size tells none: (times,)."""
    times = np.asarray(times, dtype=float)
    places = np.full(len(times), -1)
    for place, least in enumerate(UNITS.values()):
        places[(times >= least) & (times < 100 * least)] = place
    return places


def parts_of_second(times: np.ndarray) -> int:
    """How many of the unit that most times are in are a second; 1 where no size tells."""
    places = unit_places(times)
    return 1000 ** int(np.bincount(places[places >= 0], minlength=1).argmax())


def count_units(times: np.ndarray) -> dict[str, int]:
    """Unit -> times in it, of those units that occur."""
    places = unit_places(times)
    counts = np.bincount(places[places >= 0], minlength=len(UNITS)).tolist()
    return {unit: count for unit, count in zip(UNITS, counts, strict=True) if count}
