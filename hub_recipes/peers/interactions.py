"""Sequences of items as a dataset of RecTools."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from rectools import Columns
from rectools.dataset import Dataset

SHARED = 2  # items that have a value in common, for it to be a category


def dataset(sequences: Sequence[Sequence[str]], fields: Mapping[str, Mapping[str, str]] | None = None) -> Dataset:
    """A user for each sequence, numbered; the time of an interaction is its place in the sequence.

    Args:
        fields: Field -> item id -> value, for categorical features of items.
    """
    steps = [
        (user, item_id, 1, pd.Timestamp(number))
        for user, items in enumerate(sequences)
        for number, item_id in enumerate(items)
    ]
    met = {item_id for items in sequences for item_id in items}
    features = [
        {"id": item_id, "feature": name, "value": value}
        for name, values in (fields or {}).items()
        for item_id, value in categories(values)
        if item_id in met
    ]
    return Dataset.construct(
        pd.DataFrame(steps, columns=Columns.Interactions),
        item_features_df=pd.DataFrame(features) if features else None,
        cat_item_features=sorted({row["feature"] for row in features}),
    )


def categories(values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Pairs of item id and category: what stands between commas, where several items share it.

    A field of which less than half is shared is no category, but text: it gives none.
    """
    pairs = [
        (item_id, part)
        for item_id, value in values.items()
        for part in dict.fromkeys(part.strip() for part in (value or "").split(","))
        if part
    ]
    counts = pd.Series([part for _, part in pairs], dtype=object).value_counts()
    shared = [(item_id, part) for item_id, part in pairs if counts[part] >= SHARED]
    return shared if 2 * len(shared) >= len(pairs) else []
