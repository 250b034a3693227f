"""What peers are fitted on, and whom they are asked about: datasets that differ in nothing but their negatives."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from trsr.dataset import contract
from trsr.dataset.sequences import COLUMNS, joined, training_rows
from trsr.errors import DataError

ORDER = 0  # seed of the candidates' order; no peer sees it
ASKED = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Material:
    """What a peer works on.

    Attributes:
        train: Training rows, with targets.
        asked: (dataset, split) -> rows of validation and test; those of the datasets differ in their negatives alone.
        texts: Item id -> text.
        fields: Name of a further column of the items -> a value an item.
        sequences: Item ids of a user, oldest first: all that may be trained on. A user may have several.
        users: User id of each sequence.
        counts: (items,) interactions with each item in `sequences`.
    """

    train: Dataset
    asked: dict[tuple[str, str], Dataset]
    texts: dict[str, str]
    fields: dict[str, list[str]]
    sequences: list[list[str]]
    users: list[str]
    counts: np.ndarray

    @property
    def validation(self) -> Dataset:
        """The rows that a search looks at."""
        return next(rows for (_, split), rows in self.asked.items() if split == "validation")

    @property
    def sources(self) -> list[str]:
        """The datasets, in their order."""
        return list(dict.fromkeys(source for source, _ in self.asked))

    @property
    def items_of_users(self) -> list[list[str]]:
        """Item ids of all sequences of a user, one list a user."""
        met: dict[str, list[str]] = {}
        for user_id, items in zip(self.users, self.sequences, strict=True):
            met.setdefault(user_id, []).extend(items)
        return list(met.values())

    @property
    def numbers(self) -> dict[str, int]:
        """Item id -> column of scores over the catalogue."""
        return {item_id: number for number, item_id in enumerate(self.texts)}


def load(sources: Sequence[str]) -> Material:
    """Read datasets that differ in nothing but their negatives.

    What is trained on is what a retriever is trained on: `trsr.dataset.sequences`.

    Raises:
        DataError: If they differ in more, have one name, or as `trsr.dataset.contract` does.
    """
    if len({Path(source).name for source in sources}) < len(sources):
        raise DataError(f"Two of {', '.join(sources)} have one name, and would be written to one folder. Rename one.")
    splits = {
        source: {split: contract.read(source, "histories", split) for split in contract.SPLITS} for source in sources
    }
    texts = contract.texts(sources[0])
    first = splits[sources[0]]
    items = contract.read(sources[0], "items", "train")
    for source in sources:
        if contract.read(source, "items", "train").to_dict() != items.to_dict():
            raise DataError(
                f"{sources[0]!r} and {source!r} differ in their items, so they share no fits. Give each its own run."
            )
        for split, rows in splits[source].items():
            contract.check_ids(rows, texts, f"{source}, split {split}")
            if any(list(rows[name]) != list(first[split][name]) for name in COLUMNS):
                raise DataError(
                    f"{sources[0]!r} and {source!r} differ in the users or histories of {split!r}, so they share no fits. "
                    "Give each its own run."
                )
    fields = {
        name: list(items[name])
        for name in items.column_names
        if name not in contract.ITEM_COLUMNS and items.features[name].dtype == "string"
    }
    sequences, users, counts = _sequences(first, list(texts))
    rows_of_splits = {(source, split): splits[source][split] for source in sources for split in ASKED}
    return Material(first["train"], rows_of_splits, texts, fields, sequences, users, counts)


def _sequences(splits: Mapping[str, Dataset], item_ids: list[str]) -> tuple[list[list[str]], list[str], np.ndarray]:
    """Sequences of item ids, their users, and the interactions with each item; a sequence that a later row of its user goes on
    with is left out."""
    numbers = {item_id: number for number, item_id in enumerate(item_ids)}
    new_rows = list(training_rows(splits, numbers))
    counts = joined(new_rows).counts(len(item_ids))
    rows = [(user_id, items.tobytes(), items[:first].tobytes()) for user_id, items, first in new_rows]
    continued = Counter((user_id, prefix) for user_id, _, prefix in rows)
    sequences, users = [], []
    for user_id, items, _ in rows:
        if continued[user_id, items]:
            continued[user_id, items] -= 1
        else:
            sequences.append([item_ids[number] for number in np.frombuffer(items, np.int32)])
            users.append(user_id)
    return sequences, users, counts
