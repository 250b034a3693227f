"""What users met, oldest first, as numbers of items: what a user model is trained on, and what is popular.

Does not decide which users are in which split: the dataset does.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from trsr.dataset.contract import one_chunk
from trsr.errors import DataError
from trsr.records.checksums import PREFIX

COLUMNS = ("user_id", "history", "target")


@dataclass(frozen=True, slots=True)
class Sequences:
    """Items of many users, one sequence behind the other.

    Attributes:
        items: (interactions,) int32, numbers of items in the catalogue.
        ends: (sequences,) int64, where each sequence ends in `items`.
        learn_from: (sequences,) int64, the first position to learn from: what comes before it also begins an earlier sequence of
            the same user.
        following: (sequences,) int64, how many items follow each in the sequence that it is a window of; None = none.
    """

    items: np.ndarray
    ends: np.ndarray
    learn_from: np.ndarray
    following: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        """Items of each sequence."""
        return np.diff(self.ends, prepend=0)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.items[self.ends[number - 1] if number else 0 : self.ends[number]]

    def counts(self, n_items: int) -> np.ndarray:
        """Interactions with each item, (n_items,) int64; one that several sequences of a user have counts once."""
        starts = self.ends - self.lengths + self.learn_from
        changes = np.bincount(starts, minlength=len(self.items) + 1) - np.bincount(
            self.ends, minlength=len(self.items) + 1
        )
        return np.bincount(self.items[np.cumsum(changes)[:-1] > 0], minlength=n_items)


def item_numbers(column: pa.ChunkedArray, numbers: Mapping[str, int], what: str) -> np.ndarray:
    """Numbers of item ids, int32. Raises DataError for an id that the catalogue lacks."""
    encoded = one_chunk(column).dictionary_encode()
    ids = encoded.dictionary.to_pylist()
    if unknown := [item_id for item_id in ids if item_id not in numbers]:
        raise DataError(f"{what}: item {unknown[0]!r} is not in the items config.")
    table = np.array([numbers[item_id] for item_id in ids], np.int32)
    return table[encoded.indices.to_numpy()] if len(ids) else np.zeros(0, np.int32)


def training_sequences(splits: Mapping[str, Dataset], numbers: Mapping[str, int]) -> Sequences:
    """What may be trained on, as `training_rows` says.

    Raises:
        DataError: If an item is not in the catalogue, or no sequence has two items.
    """
    return joined(training_rows(splits, numbers))


def joined(rows: Iterable[tuple[str, np.ndarray, int]]) -> Sequences:
    """Rows as `training_rows` yields them, one behind the other. Raises DataError if none has two items."""
    sequences = _concatenated(rows)
    if not (sequences.lengths > 1).any():
        raise DataError("No training user has two items: there is no next item to learn from.")
    return sequences


def training_rows(splits: Mapping[str, Dataset], numbers: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray, int]]:
    """What may be trained on: histories with targets of the training split, and where each user stands in one split
    alone, the histories of the others without their targets, as is usual for sequential models.

    Where a user stands in several splits, a later one's history may hold the earlier one's target: it is left out. So is, where
    a user of validation or test has several rows there, what follows the first target of another row in a history.

    Args:
        splits: Split -> rows of `histories`.
        numbers: Item id -> number.

    Yields:
        User id, items, and the first position that is new, as `Sequences` holds it.

    Raises:
        DataError: If an item is not in the catalogue.
    """
    yield from _new_rows(training_splits(splits), numbers)


def training_splits(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits whose rows may be trained on: where a user stands in several of them, the training split alone."""
    return {"train": splits["train"]} if _share_users(splits) else dict(splits)


def usable_lengths(rows: Dataset) -> dict[int, int]:
    """How much of a history of validation or test may be trained on, for rows of which not all may: what comes before the first
    target of another row of the same user.

    Args:
        rows: Of `histories`, or of a config with summaries.

    Returns:
        Number of the row -> items of its history.
    """
    targets = _targets_of_several(rows)
    lengths: dict[int, int] = {}
    row = 0
    for table in rows.select_columns(["user_id", "history"]).with_format("arrow").iter(1000) if targets else ():
        for user_id, history in zip(table["user_id"].to_pylist(), table["history"], strict=True):
            others = {target for number, target in targets.get(user_id, ()) if number != row}
            item_ids = history.as_py() if others else []
            length = next((index for index, item_id in enumerate(item_ids) if item_id in others), None)
            if length is not None:
                lengths[row] = length
            row += 1
    return lengths


def popularity(train: Dataset) -> Counter[str]:
    """Item id -> interactions with it in histories and targets; one that several rows of a user have counts once.

    Args:
        train: The training split of `histories`.
    """
    numbers: dict[str, int] = {}
    for table in train.select_columns(["history", "target"]).with_format("arrow").iter(1000):
        for ids in (one_chunk(table["history"]).flatten(), one_chunk(table["target"])):
            for item_id in ids.unique().to_pylist():
                numbers.setdefault(item_id, len(numbers))
    counts = _concatenated(_new_rows({"train": train}, numbers)).counts(len(numbers))
    return Counter(dict(zip(numbers, counts.tolist(), strict=True)))


def _concatenated(rows: Iterable[tuple[str, np.ndarray, int]]) -> Sequences:
    pieces = [(items, first) for _, items, first in rows]
    items = np.concatenate([np.zeros(0, np.int32), *(items for items, _ in pieces)])
    ends = np.cumsum([len(items) for items, _ in pieces], dtype=np.int64)
    return Sequences(items, ends, np.array([first for _, first in pieces], np.int64))


def _new_rows(splits: Mapping[str, Dataset], numbers: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Rows that hold something new of their user, those of the training split with their targets."""
    earlier: dict[str, list[np.ndarray]] = {}  # of each user, the sequences that no later one goes on from
    for split, rows in splits.items():
        usable = {} if split == "train" else usable_lengths(rows)
        for row, (user_id, items) in enumerate(_rows(rows, numbers, split, with_target=split == "train")):
            items = items[: usable.get(row, len(items))]
            sequences = earlier.setdefault(user_id, [])
            common = [_common_prefix(sequence, items) for sequence in sequences]
            longest = max(common, default=0)
            if longest < len(items):
                yield user_id, items, longest
                continued = [length == len(sequence) for length, sequence in zip(common, sequences, strict=True)]
                sequences[:] = [sequence for sequence, gone in zip(sequences, continued, strict=True) if not gone] + [
                    items
                ]


def _targets_of_several(rows: Dataset) -> dict[str, list[tuple[int, str]]]:
    """User who has several rows -> number and target of each of them."""
    counts = Counter(rows["user_id"])
    targets: dict[str, list[tuple[int, str]]] = {user_id: [] for user_id, count in counts.items() if count > 1}
    if targets:
        for row, (user_id, target) in enumerate(zip(rows["user_id"], rows["target"], strict=True)):
            if user_id in targets:
                targets[user_id].append((row, target))
    return targets


def interactions_checksum(splits: Mapping[str, Dataset]) -> str:
    """Checksum of who met what in which split: datasets that differ in nothing but their negatives have the same."""
    checksum = hashlib.sha256()
    for split, rows in splits.items():
        checksum.update(json.dumps([split, len(rows)]).encode())
        for table in rows.select_columns(list(COLUMNS)).with_format("arrow").iter(1000):
            for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True):
                checksum.update(json.dumps(row).encode())
    return PREFIX + checksum.hexdigest()


def _share_users(splits: Mapping[str, Dataset]) -> bool:
    """Whether a user stands in several splits."""
    users = pa.array([], pa.string())
    for rows in splits.values():
        own = one_chunk(rows.with_format("arrow")["user_id"]).cast(pa.string())
        if pc.any(pc.is_in(own, value_set=users)).as_py():
            return True
        users = pa.concat_arrays([users, own])
    return False


def windows(sequences: Sequences, longest: int) -> Sequences:
    """The same sequences in pieces of at most `longest` + 1 items, from their ends; neighbours share one item."""
    pieces, learn_from, following = [], [], []
    for number in range(len(sequences)):
        items, earliest = sequences[number], int(sequences.learn_from[number])
        for end in range(len(items), min(earliest, len(items) - 1), -longest):
            start = max(0, end - longest - 1)
            if end - start > 1 or end == len(items):
                pieces.append(items[start:end])
                learn_from.append(max(int(start > 0), earliest - start))
                following.append(len(items) - end)
    lengths = np.array([len(piece) for piece in pieces])
    return Sequences(np.concatenate(pieces), np.cumsum(lengths), np.array(learn_from), np.array(following))


def histories(rows: Dataset, numbers: Mapping[str, int], what: str) -> Iterator[np.ndarray]:
    """The history of each row as numbers of items."""
    for _, items in _rows(rows, numbers, what, with_target=False):
        yield items


def also_met(rows: Dataset, numbers: Mapping[str, int]) -> list[np.ndarray] | None:
    """Of each row, numbers of the items in the column `also_met` that the catalogue has; None without that column."""
    if "also_met" not in rows.column_names:
        return None
    return [
        np.array([numbers[item_id] for item_id in ids or () if item_id in numbers], np.int64)
        for ids in rows["also_met"]
    ]


def _rows(rows: Dataset, numbers: Mapping[str, int], what: str, with_target: bool) -> Iterator[tuple[str, np.ndarray]]:
    """User id and items of each row."""
    for table in rows.select_columns(list(COLUMNS)).with_format("arrow").iter(1000):
        history = one_chunk(table["history"])
        items = item_numbers(pa.chunked_array([history.flatten()]), numbers, what)
        ends = np.cumsum(history.value_lengths().to_numpy(zero_copy_only=False))
        targets = item_numbers(table["target"], numbers, what) if with_target else None
        for row, (user_id, end) in enumerate(zip(table["user_id"].to_pylist(), ends.tolist(), strict=True)):
            own = items[ends[row - 1] if row else 0 : end]
            yield user_id, own if targets is None else np.append(own, targets[row])


def _common_prefix(first: np.ndarray, other: np.ndarray) -> int:
    """How many items two sequences have in common from their beginning."""
    shorter = min(len(first), len(other))
    differ = np.flatnonzero(first[:shorter] != other[:shorter])
    return int(differ[0]) if len(differ) else shorter
