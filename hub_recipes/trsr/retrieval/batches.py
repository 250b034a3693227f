"""Batches of sequences for training: neighbours in length together, padded behind, in a random order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trsr.dataset.sequences import Sequences

POOL = 16  # batches whose sequences are sorted by length together


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of one step.

    Attributes:
        items: (sequences, longest - 1) the items that are seen, 0 past the end of a sequence.
        counts: (sequences,) how many items the user has seen, from the first of `items` to the last before a target.
        row, column: (positions,) the positions that are learnt from: what came after `column` items of `row`.
        targets: (positions,) the item that came.
        met: (positions, longest - 1) the items before it, -1 past them.
    """

    items: torch.Tensor
    counts: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    targets: torch.Tensor
    met: torch.Tensor


def padded(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Lists of item numbers as one table (rows, longest) int64, 0 behind the end of a list."""
    table = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)


def batch_of(sequences: Sequences, numbers: Sequence[int]) -> Batch:
    """The batch of some sequences."""
    rows = [sequences[number] for number in numbers]
    table = padded(rows)
    ends = torch.tensor([[len(row)] for row in rows])
    chosen = np.asarray(numbers)
    counts = ends[:, 0] - 1
    if sequences.following is not None:
        counts = counts + torch.from_numpy(sequences.following[chosen])
    learn_from = torch.from_numpy(sequences.learn_from[chosen])[:, None]
    places = torch.arange(table.shape[1])
    row, column = torch.nonzero((places < ends) & (places >= learn_from), as_tuple=True)
    seen = table[:, :-1]
    met = seen[row].masked_fill(places[:-1] >= column[:, None], -1)
    return Batch(seen, counts, row, column, table[row, column], met)


def epoch(sequences: Sequences, size: int, generator: np.random.Generator) -> Iterator[Batch]:
    """All sequences once, `size` at a time."""
    order, lengths = generator.permutation(len(sequences)), sequences.lengths
    groups = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        groups += [pool[at : at + size] for at in range(0, len(pool), size)]
    for number in generator.permutation(len(groups)):
        yield batch_of(sequences, groups[number].tolist())
