"""Slice test users by history length, popularity of the target, and whether the last items share its category.

Takes rows and returns a label per row; knows nothing of scores.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from datasets import Dataset

from trsr.dataset.sequences import popularity

CATEGORIES = ("category", "genre", "genres", "topic", "subcategory")
LAST = 5  # items that may share the category of the target: as many as the ranking prompt shows by default


def thirds(values: Sequence[int], unit: str) -> list[str]:
    """Label each value with the third that it falls into: "10 to 14 items", "1 item".

    Equal values fall into the same part, so the parts may be uneven, and fewer than three.
    """
    table = np.asarray(values)
    part = np.searchsorted(np.quantile(table, [1 / 3, 2 / 3]), table, side="left")
    names = {}
    for number in np.unique(part):
        low, high = table[part == number].min(), table[part == number].max()
        plural = f"{unit}s"
        names[number] = f"{low} {unit if low == 1 else plural}" if low == high else f"{low} to {high} {plural}"
    return [names[number] for number in part]


def by_length(rows: Iterable[Mapping]) -> list[str]:
    """Label rows by the number of items in the history."""
    return thirds([len(row["history"]) for row in rows], "item")


def by_popularity(rows: Iterable[Mapping], train: Dataset) -> list[str]:
    """Label rows by how often the target occurs in the histories and targets of the training users."""
    counts = popularity(train)
    return thirds([counts[row["target"]] for row in rows], "time")


def by_category(rows: Iterable[Mapping], categories: Mapping[str, str | None], last: int = LAST) -> list[str]:
    """Label rows by whether one of the last items shares a category with the target.

    Args:
        categories: Item id to its categories, comma-separated; None or empty for an item without one.
    """
    categories_of = {item_id: _values(text) for item_id, text in categories.items()}
    labels = []
    for row in rows:
        near = set().union(*(categories_of[item_id] for item_id in row["history"][-last:]))
        target = categories_of[row["target"]]
        labels.append("covered" if target & near else "not covered" if target else "no category")
    return labels


def _values(text: str | None) -> set[str]:
    return {part.strip().lower() for part in (text or "").split(",") if part.strip()}
