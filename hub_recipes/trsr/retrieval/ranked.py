"""The best items of a catalogue for each row of a split, by several systems, as a file: what can be counted, tested and added later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from trsr.errors import ResultsError
from trsr.metrics import ranking
from trsr.records.files import whole_file

FILE = "catalogue.parquet"
AT = (10, 20, 100)


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a system makes of a catalogue.

    Attributes:
        items: (rows, k) numbers of items that the user has not met, best first; what stands past the last does not matter.
        scores: (rows, k), -inf past the last.
        mean, deviation: (rows,) of the scores of all items that the user has not met.
    """

    items: np.ndarray
    scores: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, slots=True)
class Lists:
    """What FILE holds of one system.

    Attributes:
        users, targets: (rows,) ids.
        metrics: Metric -> (rows,).
        scores: For each row item id -> z-score over what the user has not met, best first.
    """

    users: list[str]
    targets: list[str]
    metrics: dict[str, np.ndarray]
    scores: list[dict[str, float]]


def moments(scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (rows,) of each row's scores under a mask."""
    counts = mask.sum(1)
    mean = np.where(mask, scores, 0).sum(1) / counts
    centred = np.where(mask, scores - mean[:, None], 0)
    return mean, np.sqrt((centred**2).sum(1) / counts)


def write(
    folder: Path,
    systems: Mapping[str, Ranked],
    metrics: Mapping[str, Mapping[str, np.ndarray]],
    rows: Dataset,
    item_ids: Sequence[str],
) -> None:
    """Write FILE: for each system, a row for each row of the split. The file is complete or absent.

    Args:
        metrics: System -> metric -> (rows,).
        rows: Of `histories`.
        item_ids: Of the catalogue, in the order of its numbers.
    """
    ids = pa.array(item_ids, pa.string())
    tables = []
    for name, one in systems.items():
        real = np.isfinite(one.scores)
        ends = pa.array(np.concatenate([[0], np.cumsum(real.sum(1))]), pa.int32())
        columns = {
            "system": pa.array([name] * len(rows), pa.string()),
            "user_id": pa.array(rows["user_id"][:], pa.string()),
            "target": pa.array(rows["target"][:], pa.string()),
            "items": pa.ListArray.from_arrays(ends, ids.take(pa.array(one.items[real]))),
            "scores": pa.ListArray.from_arrays(ends, pa.array(one.scores[real], pa.float64())),
            "mean": pa.array(one.mean),
            "deviation": pa.array(one.deviation),
            **{metric: pa.array(values) for metric, values in metrics[name].items()},
        }
        tables.append(pa.table(columns))
    with whole_file(folder / FILE) as draft:
        pq.write_table(pa.concat_tables(tables), draft)


def read(folder: Path, system: str) -> Lists:
    """What FILE holds of a system.

    Raises:
        ResultsError: If there is no such file, or it does not hold the system.
    """
    if not (folder / FILE).is_file():
        raise ResultsError(
            f"No {FILE} in {folder}: its evaluation is of an earlier version. Make it anew: trsr retrieve evaluate"
        )
    table = pq.read_table(folder / FILE, filters=[("system", "=", system)])
    if not len(table):
        raise ResultsError(f"{folder / FILE} holds no system {system!r}.")
    scores = []
    for row in table.select(["items", "scores", "mean", "deviation"]).to_pylist():
        scale = row["deviation"] or 1.0  # all scores are equal where it is 0
        standard = ((score - row["mean"]) / scale for score in row["scores"])
        scores.append(dict(zip(row["items"], standard, strict=True)))
    metrics = {name: table[name].to_numpy() for name in table.column_names if "@" in name}
    return Lists(table["user_id"].to_pylist(), table["target"].to_pylist(), metrics, scores)


def measured(scores: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Recall and NDCG (rows,) of lists that may lack the target: it then counts as not found.

    Args:
        scores, labels, mask: (rows, items), as `ranking.per_user` takes them.
    """
    listed = labels.any(1)
    found = ranking.per_user(scores[listed], labels[listed], mask[listed], at=AT) if listed.any() else {}
    figures = {f"{metric}@{k}": np.zeros(len(labels)) for metric in ("recall", "ndcg") for k in AT}
    for name in figures if found else ():
        figures[name][listed] = found[name]
    return figures
