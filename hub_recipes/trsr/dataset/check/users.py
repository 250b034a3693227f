"""Who is in which split: no user twice, and the same rows in every config."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from trsr.dataset.check.batches import Batch
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.hashes import isin_sorted, joined
from trsr.dataset.check.histories import Histories


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


@dataclass(slots=True)
class Users:
    """The users of a split, 24 bytes each.

    Attributes:
        hashes: Of user ids; sorted.
        pairs: User and target, see `sets.pair`; sorted.
        fingerprints: Of rows, in their order; 0 for a row that was not examined.
    """

    hashes: np.ndarray = field(default_factory=_none)
    pairs: np.ndarray = field(default_factory=_none)
    fingerprints: np.ndarray = field(default_factory=_none)


def mark_users(findings: Findings, batch: Batch, rows: Histories, users: dict[str, Users]) -> None:
    """Mark users that were met before, and add those of the batch.

    Args:
        users: Split -> users met so far.
    """
    mine = users.setdefault(batch.split, Users())
    _, first = np.unique(rows.users, return_index=True)
    again = np.ones(len(rows.users), bool)
    again[first] = False
    findings.mark("user-repeated", batch, again | isin_sorted(rows.users, mine.hashes))
    for split, others in users.items():
        if split != batch.split:
            places = np.flatnonzero(isin_sorted(rows.users, others.hashes))
            said = pa.array([f"also in {split}"] * len(places), pa.string())
            findings.mark("user-in-two-splits", batch, places, said)
    mine.hashes = joined(mine.hashes, rows.users)
    mine.pairs = joined(mine.pairs, rows.pairs())
    read = np.zeros(batch.stop, np.uint64)
    read[: len(mine.fingerprints)] = mine.fingerprints
    read[batch.rows] = rows.fingerprints()
    mine.fingerprints = read


def mark_differing(findings: Findings, batch: Batch, rows: Histories, users: Users) -> None:
    """Mark rows of a summary config that are not those of the histories, row by row."""
    expected = np.zeros(batch.stop, np.uint64)
    known = users.fingerprints[: batch.stop]
    expected[: len(known)] = known
    beyond = batch.rows >= len(users.fingerprints)
    examined = expected[batch.rows] != 0
    findings.mark("row-differs", batch, beyond | (examined & (expected[batch.rows] != rows.fingerprints())))
