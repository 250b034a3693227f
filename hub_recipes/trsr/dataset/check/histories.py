"""Rules for the rows of histories: item ids are known, and neither history nor candidates reveal the target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trsr.dataset.check.batches import Batch, kind
from trsr.dataset.check.catalogue import Catalogue, hashes
from trsr.dataset.check.findings import Findings
from trsr.dataset.check.hashes import isin_sorted, pair
from trsr.dataset.splitmix import splitmix64


@dataclass(frozen=True, slots=True)
class Ids:
    """A column of item ids, or of lists of item ids, flattened.

    Attributes:
        ids: (elements,) the ids themselves.
        codes: (elements,) see `Catalogue.codes`.
        rows: (elements,) the position of each element's row in the batch.
        lengths: (rows,) number of elements of each row.
    """

    ids: pa.Array
    codes: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray

    def hits(self, matches: np.ndarray) -> "Hits":
        """The rows and ids of the elements that a mask selects."""
        return self.rows[matches], self.ids.filter(pa.array(matches))


# Positions of rows in a batch, and the id in question for each.
Hits = tuple[np.ndarray, pa.Array | None]


@dataclass(frozen=True, slots=True)
class Histories:
    """A batch of `histories`, with users and items as numbers."""

    catalogue: Catalogue
    users: np.ndarray  # (rows,) hashes
    history: Ids
    target: Ids
    negatives: Ids
    also_met: Ids | None = None  # if the dataset has that column

    @classmethod
    def of(cls, batch: Batch, catalogue: Catalogue) -> "Histories":
        history, target, negatives = (batch.columns[name] for name in ("history", "target", "negatives"))
        also_met = _also_met(batch)
        flat = [history.flatten(), target, negatives.flatten(), *(column.flatten() for column in also_met)]
        lengths = [_lengths(history), np.ones(len(target), np.int64), _lengths(negatives), *map(_lengths, also_met)]
        # One call for all columns: a look-up in a large catalogue is slow.
        codes = np.split(catalogue.codes(pa.concat_arrays(flat)), np.cumsum([len(ids) for ids in flat])[:-1])
        rows = np.arange(len(target))
        columns = (
            Ids(ids, code, np.repeat(rows, length), length)
            for ids, code, length in zip(flat, codes, lengths, strict=True)
        )
        return cls(catalogue, hashes(batch.ids), *columns)

    def pairs(self) -> np.ndarray:
        """A hash of (user, target) for each row: (rows,) uint64."""
        return pair(self.users, self.target.codes)

    def seen(self) -> np.ndarray:
        """A hash of (user, item) for each item of histories and targets: (elements,) uint64."""
        items = np.concatenate([self.history.codes, self.target.codes])
        return pair(self.users[np.concatenate([self.history.rows, self.target.rows])], items)

    def fingerprints(self) -> np.ndarray:
        """A hash of each row's user, history, target and negatives, never 0: (rows,) uint64."""
        total = self.pairs()
        for salt, column in enumerate((self.history, self.negatives), 1):
            starts = np.concatenate([[0], column.lengths.cumsum()])
            position = np.arange(len(column.codes)) - np.repeat(starts[:-1], column.lengths)
            mixed = splitmix64(
                column.codes.astype(np.uint64) + splitmix64(position.astype(np.uint64) * np.uint64(4) + np.uint64(salt))
            )
            sums = np.concatenate([np.zeros(1, np.uint64), mixed.cumsum(dtype=np.uint64)])
            total = splitmix64(total + sums[starts[1:]] - sums[starts[:-1]] + column.lengths.astype(np.uint64))
        return total | np.uint64(1)


def _also_met(batch: Batch) -> list[pa.Array]:
    """The optional column `also_met` in a list; empty if it is missing or of another type. A null in it stands for no item."""
    column = batch.columns.get("also_met")
    if column is None or kind(column.type) != "list of string":
        return []
    if column.null_count or column.flatten().null_count:
        filled = [[item for item in row or () if item is not None] for row in column.to_pylist()]
        return [pa.array(filled, pa.list_(pa.string()))]
    return [column.cast(pa.list_(pa.string()))]


def _lengths(lists: pa.Array) -> np.ndarray:
    return lists.value_lengths().to_numpy().astype(np.int64)


def unknown_items(rows: Histories) -> Hits:
    if not len(rows.catalogue.ids):
        return np.zeros(0, int), None  # a missing catalogue is reported once, elsewhere
    hits = [column.hits(column.codes < 0) for column in (rows.history, rows.target, rows.negatives)]
    return np.concatenate([positions for positions, _ in hits]), pa.concat_arrays([ids for _, ids in hits])


def no_history(rows: Histories) -> Hits:
    return np.flatnonzero(rows.history.lengths == 0), None


def no_negatives(rows: Histories) -> Hits:
    return np.flatnonzero(rows.negatives.lengths == 0), None


def target_in_negatives(rows: Histories) -> Hits:
    return rows.negatives.hits(rows.negatives.codes == rows.target.codes[rows.negatives.rows])


def target_in_history(rows: Histories) -> Hits:
    return rows.history.hits(rows.history.codes == rows.target.codes[rows.history.rows])


def negatives_in_history(rows: Histories) -> Hits:
    history, negatives = _in_row(rows.history, rows.negatives)
    return rows.negatives.hits(isin_sorted(negatives, np.sort(history)))


def negatives_seen(rows: Histories) -> Hits:
    if rows.also_met is None:
        return np.zeros(0, int), None
    seen, negatives = _in_row(rows.also_met, rows.negatives)
    return rows.negatives.hits(isin_sorted(negatives, np.sort(seen)))


def repeated_negatives(rows: Histories) -> Hits:
    (values,) = _in_row(rows.negatives)
    order = np.argsort(values, kind="stable")
    repeated = np.zeros(len(values), bool)
    repeated[order[1:]] = values[order[1:]] == values[order[:-1]]
    return rows.negatives.hits(repeated)


def negatives_like_target(rows: Histories) -> Hits:
    target = rows.target.codes[rows.negatives.rows]
    negatives = rows.negatives.codes
    same = rows.catalogue.same_text(negatives) == rows.catalogue.same_text(target)
    return rows.negatives.hits(same & (negatives != target))


def _in_row(*columns: Ids) -> list[np.ndarray]:
    """A number for (row, item) of each element; equal pairs have equal numbers in all columns."""
    _, dense = np.unique(np.concatenate([column.codes for column in columns]), return_inverse=True)
    parts = np.split(dense, np.cumsum([len(column.codes) for column in columns])[:-1])
    return [column.rows * (len(dense) + 1) + part for column, part in zip(columns, parts, strict=True)]


RULES: Mapping[str, Callable[[Histories], Hits]] = {
    "item-unknown": unknown_items,
    "history-empty": no_history,
    "negatives-missing": no_negatives,
    "target-in-negatives": target_in_negatives,
    "target-in-history": target_in_history,
    "negative-in-history": negatives_in_history,
    "negative-met": negatives_seen,
    "negative-repeated": repeated_negatives,
    "negative-like-target": negatives_like_target,
}


def mark_histories(findings: Findings, batch: Batch, rows: Histories) -> None:
    """Apply the rules to a batch."""
    for code, rule in RULES.items():
        findings.mark(code, batch, *rule(rows))
