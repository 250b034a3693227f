"""Group suffixes into forwards, and move what they have in common to the prefix. Lengths and token ids only."""

import math
from collections.abc import Iterator, Sequence


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest common prefix of all rows that leaves each row at least one token."""
    # The smallest and the largest in lexicographic order share the shortest prefix.
    low, high = min(rows, key=list), max(rows, key=list)
    length, most = 0, min(map(len, rows)) - 1
    while length < most and low[length] == high[length]:
        length += 1
    return list(low[:length])


def hoist_common_prefix(prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Move the common prefix of all suffixes, such as a heading, to `prefix`; each suffix keeps at least one token."""
    lead = common_prefix(suffixes)
    return [*prefix, *lead], [list(suffix[len(lead) :]) for suffix in suffixes]


def split_evenly(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield indices in order, in groups of about equal total length: at most `most`, unless a single length exceeds it."""
    aim = sum(lengths) / math.ceil(sum(lengths) / most)
    group: list[int] = []
    total = 0
    for index, length in enumerate(lengths):
        if group and (total + length > most or total + length / 2 > aim):
            yield group
            group, total = [], 0
        group.append(index)
        total += length
    yield group


def batch_by_length(lengths: Sequence[int], most: int, padding: int) -> Iterator[list[int]]:
    """Yield indices of `lengths`, longest first, in groups of similar lengths.

    Args:
        most: Most tokens in a group, padding included, where it has more than one row.
        padding: Most padding in a group.
    """
    group: list[int] = []
    width = padded = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        padded += width - lengths[index]
        if not group or padded > padding or (len(group) + 1) * width > most:
            if group:
                yield group
            group, width, padded = [], lengths[index], 0
        group.append(index)
    yield group
