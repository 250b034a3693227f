"""Recommendation lists of some users, as tables. Knows nothing of files, shards or machines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from trsr.core.catalogue import Catalogue, Query
from trsr.errors import DataError, InputError

CELLS = 4_000_000  # scores of the first stage in memory at once
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("log_odds", pa.list_(pa.float64())),
        ("stage_one", pa.list_(pa.float64())),
        ("summary", pa.string()),
    ]
)


def recommendations(
    rows: Sequence[Mapping[str, Any]], catalogue: Catalogue, recommender: Any, *, top_k: int, stage_one: int
) -> Iterator[pa.Table]:
    """Recommend to users, and yield a table of SCHEMA for some of them at a time, in order.

    Args:
        rows: Of `histories`, one a user: history and target are what the user met, `also_met` what else.
        recommender: A pipeline with this catalogue; None for the first stage alone.
        top_k: Items a user.
        stage_one: Items that the first stage passes on to the language model.

    Raises:
        DataError: For a user with an item in the history that the catalogue lacks, or with one that cannot be read.
    """
    step = 1 if recommender is not None else max(1, CELLS // len(catalogue.item_ids))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        for row in part:
            _check_known(row, catalogue)
        if recommender is None:
            retrieved = catalogue.retrieve([_query(row, catalogue, top_k) for row in part])
            lists = [catalogue.ranked(candidates, None) for candidates in retrieved]
            summaries: list[str | None] = [None] * len(part)
        else:
            [row] = part
            request = {
                "history": [{"item_id": item_id} for item_id in (*row["history"], row["target"])],
                "exclude": list(row.get("also_met") or ()),
            }
            try:
                answer = recommender(request, stage_one=stage_one, top_k=top_k, return_summary=True)
            except InputError as error:
                raise DataError(f"User {row['user_id']!r}: {error}") from error
            lists, summaries = [answer["candidates"]], [answer["summary"]]
        columns = {
            "user_id": [row["user_id"] for row in part],
            "item_ids": [[item["item_id"] for item in chosen] for chosen in lists],
            "scores": [[item["score"] for item in chosen] for chosen in lists],
            "log_odds": [
                [item["log_odds"] for item in chosen] if recommender is not None else None for chosen in lists
            ],
            "stage_one": [[item["stage_one"] for item in chosen] for chosen in lists],
            "summary": summaries,
        }
        yield pa.table(columns, SCHEMA)


def _check_known(row: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Raise DataError for the first item of history and target that the catalogue lacks."""
    for item_id in (*row["history"], row["target"]):
        if item_id not in catalogue.rows:
            raise DataError(f"User {row['user_id']!r}: the catalogue has no item {item_id!r}.")


def _query(row: Mapping[str, Any], catalogue: Catalogue, count: int) -> Query:
    """What to retrieve for the user of a row of `histories`."""
    also = [catalogue.rows[item_id] for item_id in row.get("also_met") or () if item_id in catalogue.rows]
    history = [catalogue.rows[item_id] for item_id in (*row["history"], row["target"])]
    return Query(history, [*history, *also], count=count)
