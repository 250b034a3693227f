"""Medians and maxima of lengths. Memory depends on the largest length alone."""

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.field_values import WORD


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of lengths. Quantiles are lengths that occur: the median of an even number is the lower middle one."""

    count: int
    median: int
    p90: int
    max: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class Lengths:
    """Collects lengths under names."""

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}

    def add(self, name: str, lengths: np.ndarray) -> None:
        """Add non-negative lengths, (n,)."""
        old = self._counts.get(name, np.zeros(1, np.int64))
        new = np.bincount(lengths, minlength=len(old))
        new[: len(old)] += old
        self._counts[name] = new

    def spreads(self) -> dict[str, Spread]:
        return {name: _spread(counts) for name, counts in self._counts.items() if counts.any()}


def _spread(counts: np.ndarray) -> Spread:
    cumulative = counts.cumsum()
    total = int(cumulative[-1])
    median, p90 = np.searchsorted(cumulative, [0.5 * total, 0.9 * total])
    return Spread(total, int(median), int(p90), int(np.flatnonzero(counts)[-1]))


def words(texts: pa.Array) -> np.ndarray:
    """Number of words of each text, as `core.field_values` counts them: (n,)."""
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        return pc.count_substring_regex(texts, WORD).to_numpy().astype(np.int64)
    return pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))).to_numpy() * ~blank(texts)


def blank(texts: pa.Array) -> np.ndarray:
    """Which texts are empty or white space alone: (n,) bool."""
    return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).to_numpy(zero_copy_only=False)
