"""Rules across rows: no user in two splits, no later target in an earlier split, and the same rows in every config."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset.check.batches import Batch, mask
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.hashes import isin_sorted, joined, pair
from trsr.dataset.check.histories import Histories


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


@dataclass(slots=True)
class Users:
    """The users of a split, 24 bytes each; if users are in several splits, also 8 bytes an interaction.

    Attributes:
        hashes: Of user ids, sorted.
        pairs: Of user and target, see `hashes.pair`; sorted.
        fingerprints: Of rows, in their order; 0 for a row that was not checked.
        seen: Pairs of user and item, for histories and targets; sorted. Only if users are in several splits.
        negatives: Pairs of user and negative, likewise.
    """

    hashes: np.ndarray = field(default_factory=_none)
    pairs: np.ndarray = field(default_factory=_none)
    fingerprints: np.ndarray = field(default_factory=_none)
    seen: np.ndarray = field(default_factory=_none)
    negatives: np.ndarray = field(default_factory=_none)


def mark_users(
    findings: Findings, batch: Batch, rows: Histories, users: dict[str, Users], within_users: bool = False
) -> None:
    """Mark users without an id and users that occurred before, and add those of the batch.

    Args:
        users: Split -> users read so far.
        within_users: Whether each user's items are divided. A user is then in several splits, and the target of a later split
            must not be in an earlier one.
    """
    own = users.setdefault(batch.split, Users())
    _, first = np.unique(rows.users, return_index=True)
    repeated_here = np.ones(len(rows.users), bool)
    repeated_here[first] = False
    findings.mark("user-without-id", batch, mask(pc.equal(pc.utf8_trim_whitespace(batch.ids), "")))
    findings.mark("user-repeated", batch, repeated_here | isin_sorted(rows.users, own.hashes))
    if within_users:
        _mark_leaks(findings, batch, rows, users)
    for split, other in users.items():
        if split != batch.split and not within_users:
            positions = np.flatnonzero(isin_sorted(rows.users, other.hashes))
            shown = pa.array([f"also in {split}"] * len(positions), pa.string())
            findings.mark("user-in-two-splits", batch, positions, shown)
    own.hashes = joined(own.hashes, rows.users)
    own.pairs = joined(own.pairs, rows.pairs())
    read = np.zeros(batch.stop, np.uint64)
    read[: len(own.fingerprints)] = own.fingerprints
    read[batch.rows] = rows.fingerprints()
    own.fingerprints = read


def _mark_leaks(findings: Findings, batch: Batch, rows: Histories, users: dict[str, Users]) -> None:
    """Mark targets that are in the user's row of an earlier split, items that are negatives there, and negatives that were met there;
    add the batch's pairs."""
    targets, seen = rows.pairs(), rows.seen()
    negatives = pair(rows.users[rows.negatives.rows], rows.negatives.codes)
    # A target that is also in the history of its own row is marked for that already.
    repeated = np.isin(rows.target.rows, rows.history.rows[rows.history.codes == rows.target.codes[rows.history.rows]])
    positions = np.concatenate([rows.history.rows, rows.target.rows])
    for split, other in users.items():
        if split == batch.split:
            continue
        leaked = np.flatnonzero(isin_sorted(targets, other.seen) & ~repeated)
        shown = pa.array([f"{item} is in {split}" for item in rows.target.ids.take(pa.array(leaked)).to_pylist()])
        findings.mark("target-in-earlier-split", batch, leaked, shown)
        denied = positions[isin_sorted(seen, other.negatives)]
        shown = pa.array([f"a negative in {split}"] * len(denied), pa.string())
        findings.mark("negative-met", batch, denied, shown)
        met = isin_sorted(negatives, other.seen)
        items = rows.negatives.ids.filter(pa.array(met)).to_pylist()
        shown = pa.array([f"{item} is in {split}" for item in items], pa.string())
        findings.mark("negative-met", batch, rows.negatives.rows[met], shown)
    own = users[batch.split]
    own.seen = joined(own.seen, seen)
    own.negatives = joined(own.negatives, negatives)


def mark_differing(findings: Findings, batch: Batch, rows: Histories, users: Users) -> None:
    """Mark rows of a config of summaries that differ from the same rows of `histories`."""
    expected = np.zeros(batch.stop, np.uint64)
    fingerprints_before = users.fingerprints[: batch.stop]
    expected[: len(fingerprints_before)] = fingerprints_before
    beyond = batch.rows >= len(users.fingerprints)
    examined = expected[batch.rows] != 0
    findings.mark("row-differs", batch, beyond | (examined & (expected[batch.rows] != rows.fingerprints())))
