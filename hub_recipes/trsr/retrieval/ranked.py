"""The best items of a catalogue for each row of a split, by several systems, as a file: what can be counted, tested and added later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from trsr.errors import EvaluationError, ResultsError
from trsr.metrics import ranking
from trsr.records.files import whole_file

RANKED_FILE = "catalogue.parquet"
CUTOFFS = (10, 20, 100)


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a system makes of a catalogue.

    Attributes:
        items: (rows, k) numbers of items that the user has not met, best first; what stands past the last does not matter.
        scores: (rows, k), -inf past the last.
        mean, deviation: (rows,) of the scores of all items that the user has not met, as `metrics.fusion.moments` gives them.
    """

    items: np.ndarray
    scores: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, slots=True)
class Lists:
    """What RANKED_FILE holds of one system.

    Attributes:
        users, targets: (rows,) ids.
        metrics: Metric -> (rows,).
        scores: For each row item id -> z-score over what the user has not met, best first.
    """

    users: list[str]
    targets: list[str]
    metrics: dict[str, np.ndarray]
    scores: list[dict[str, float]]


def write(
    folder: Path,
    systems: Mapping[str, Ranked],
    metrics: Mapping[str, Mapping[str, np.ndarray]],
    rows: Dataset,
    item_ids: Sequence[str],
) -> None:
    """Write RANKED_FILE: for each system, a row for each row of the split. The file is complete or absent.

    Args:
        metrics: System -> metric -> (rows,).
        rows: Of `histories`.
        item_ids: Of the catalogue, in the order of its numbers.
    """
    ids = pa.array(item_ids, pa.string())
    tables = []
    for name, lists in systems.items():
        real = np.isfinite(lists.scores)
        ends = pa.array(np.concatenate([[0], np.cumsum(real.sum(1))]), pa.int32())
        columns = {
            "system": pa.array([name] * len(rows), pa.string()),
            "user_id": pa.array(rows["user_id"][:], pa.string()),
            "target": pa.array(rows["target"][:], pa.string()),
            "items": pa.ListArray.from_arrays(ends, ids.take(pa.array(lists.items[real]))),
            "scores": pa.ListArray.from_arrays(ends, pa.array(lists.scores[real], pa.float64())),
            "mean": pa.array(lists.mean),
            "deviation": pa.array(lists.deviation),
            **{metric: pa.array(values) for metric, values in metrics[name].items()},
        }
        tables.append(pa.table(columns))
    with whole_file(folder / RANKED_FILE) as draft:
        pq.write_table(pa.concat_tables(tables), draft)


def read(folder: Path, system: str) -> Lists:
    """What RANKED_FILE holds of a system.

    Raises:
        ResultsError: If there is no such file, or it does not hold the system.
    """
    if not (folder / RANKED_FILE).is_file():
        raise ResultsError(
            f"No {RANKED_FILE} in {folder}. Make it: trsr retrieve evaluate, or hub_recipes/baselines.py."
        )
    table = pq.read_table(folder / RANKED_FILE, filters=[("system", "=", system)])
    if not len(table):
        raise ResultsError(f"{folder / RANKED_FILE} holds no system {system!r}.")
    scores = []
    for row in table.select(["items", "scores", "mean", "deviation"]).to_pylist():
        scale = row["deviation"]  # 0 where all scores are equal
        standard = ((score - row["mean"]) / scale if scale else 0.0 for score in row["scores"])
        scores.append(dict(zip(row["items"], standard, strict=True)))
    metrics = {name: table[name].to_numpy() for name in table.column_names if "@" in name}
    return Lists(table["user_id"].to_pylist(), table["target"].to_pylist(), metrics, scores)


def measured(scores: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Recall and NDCG (rows,) by the rank of the target, which shares its place with ties; one that is not listed is not found.

    The same as `metrics.ranking.per_user` gives; here the target may be the only item.

    Args:
        scores: (rows, items).
        labels: (rows, items) bool: which item is the target, one or none.
        mask: (rows, items) bool: which cells hold an item.

    Raises:
        EvaluationError: If a score is not finite.
    """
    if not np.isfinite(scores[mask]).all():
        raise EvaluationError(
            "Scores are not finite numbers, so there is no order. Train the model anew, with a lower learning rate."
        )
    listed = labels.any(1)
    values = np.where(mask, scores, -np.inf)
    own = np.where(labels, values, -np.inf).max(1, initial=-np.inf)[:, None]  # (rows, 1)
    better, tied = (values > own).sum(1), np.maximum((values == own).sum(1), 1)  # the target is one of those tied
    figures = {f"recall@{k}": ranking.expected_hits(better, tied, k) for k in CUTOFFS}
    figures |= {f"ndcg@{k}": ranking.expected_gain(better, tied, k) for k in CUTOFFS}
    return {metric: np.where(listed, values, 0.0) for metric, values in figures.items()}
