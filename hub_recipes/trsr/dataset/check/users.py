"""Who is in which split: no user twice, or nothing of a later split in an earlier one; and the same rows in every config."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from trsr.dataset.check.batches import Batch
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.hashes import isin_sorted, joined, pair
from trsr.dataset.check.histories import Histories


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


@dataclass(slots=True)
class Users:
    """The users of a split, 24 bytes each; and of a user in several splits, 8 bytes an item.

    Attributes:
        hashes: Of user ids; sorted.
        pairs: User and target, see `sets.pair`; sorted.
        fingerprints: Of rows, in their order; 0 for a row that was not examined.
        met: User and item of histories and targets, where users stand in several splits; sorted.
        negatives: User and negative, likewise.
    """

    hashes: np.ndarray = field(default_factory=_none)
    pairs: np.ndarray = field(default_factory=_none)
    fingerprints: np.ndarray = field(default_factory=_none)
    met: np.ndarray = field(default_factory=_none)
    negatives: np.ndarray = field(default_factory=_none)


def mark_users(
    findings: Findings, batch: Batch, rows: Histories, users: dict[str, Users], within_users: bool = False
) -> None:
    """Mark users that were met before, and add those of the batch.

    Args:
        users: Split -> users met so far.
        within_users: Whether splits divide a user's own items. A user then stands in several, and what must not is an item:
            a later target in an earlier row.
    """
    mine = users.setdefault(batch.split, Users())
    _, first = np.unique(rows.users, return_index=True)
    again = np.ones(len(rows.users), bool)
    again[first] = False
    findings.mark("user-repeated", batch, again | isin_sorted(rows.users, mine.hashes))
    if within_users:
        _mark_leaks(findings, batch, rows, users)
    for split, others in users.items():
        if split != batch.split and not within_users:
            places = np.flatnonzero(isin_sorted(rows.users, others.hashes))
            said = pa.array([f"also in {split}"] * len(places), pa.string())
            findings.mark("user-in-two-splits", batch, places, said)
    mine.hashes = joined(mine.hashes, rows.users)
    mine.pairs = joined(mine.pairs, rows.pairs())
    read = np.zeros(batch.stop, np.uint64)
    read[: len(mine.fingerprints)] = mine.fingerprints
    read[batch.rows] = rows.fingerprints()
    mine.fingerprints = read


def _mark_leaks(findings: Findings, batch: Batch, rows: Histories, users: dict[str, Users]) -> None:
    """Mark targets that stand in an earlier split's row of their user, and items that are negatives there; add the batch's."""
    targets, met = rows.pairs(), rows.met()
    # A target that the user had met before stands in its own history, and is marked for that.
    repeated = np.isin(rows.target.rows, rows.history.rows[rows.history.codes == rows.target.codes[rows.history.rows]])
    places = np.concatenate([rows.history.rows, rows.target.rows])
    for split, others in users.items():
        if split == batch.split:
            continue
        leaked = np.flatnonzero(isin_sorted(targets, others.met) & ~repeated)
        shown = pa.array([f"{item} stands in {split}" for item in rows.target.ids.take(pa.array(leaked)).to_pylist()])
        findings.mark("target-in-earlier-split", batch, leaked, shown)
        denied = places[isin_sorted(met, others.negatives)]
        shown = pa.array([f"a negative in {split}"] * len(denied), pa.string())
        findings.mark("negative-met", batch, denied, shown)
    mine = users[batch.split]
    mine.met = joined(mine.met, met)
    mine.negatives = joined(mine.negatives, pair(rows.users[rows.negatives.rows], rows.negatives.codes))


def mark_differing(findings: Findings, batch: Batch, rows: Histories, users: Users) -> None:
    """Mark rows of a summary config that are not those of the histories, row by row."""
    expected = np.zeros(batch.stop, np.uint64)
    known = users.fingerprints[: batch.stop]
    expected[: len(known)] = known
    beyond = batch.rows >= len(users.fingerprints)
    examined = expected[batch.rows] != 0
    findings.mark("row-differs", batch, beyond | (examined & (expected[batch.rows] != rows.fingerprints())))
