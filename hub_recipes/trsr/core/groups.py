"""Which suffixes go into a forward together, and what of them the prefix can take over. Lengths and token ids only."""

import math
from collections.abc import Iterator, Sequence


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning of all rows that leaves each at least one token."""
    # The first and the last in order differ the earliest.
    low, high = min(rows, key=list), max(rows, key=list)
    length, most = 0, min(map(len, rows)) - 1
    while length < most and low[length] == high[length]:
        length += 1
    return list(low[:length])


def hoist_common_prefix(prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Move what all suffixes begin with, such as a heading, to the prefix; each keeps a token at least."""
    lead = common_prefix(suffixes)
    return [*prefix, *lead], [list(suffix[len(lead) :]) for suffix in suffixes]


def split_evenly(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield places in order, in groups of about the same total length, `most` or less where no single one has more."""
    aim = sum(lengths) / math.ceil(sum(lengths) / most)
    group: list[int] = []
    held = 0
    for place, length in enumerate(lengths):
        if group and (held + length > most or held + length / 2 > aim):
            yield group
            group, held = [], 0
        group.append(place)
        held += length
    yield group


def batch_by_length(lengths: Sequence[int], most: int, padding: int) -> Iterator[list[int]]:
    """Yield places, longest first, in groups of similar lengths.

    Args:
        most: Most tokens in a group, padding included, where it has more than one place.
        padding: Most padding in a group.
    """
    group: list[int] = []
    width = padded = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        padded += width - lengths[place]
        if not group or padded > padding or (len(group) + 1) * width > most:
            if group:
                yield group
            group, width, padded = [], lengths[place], 0
        group.append(place)
    yield group
