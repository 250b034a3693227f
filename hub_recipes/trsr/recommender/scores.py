"""The scores file of an evaluation: a row per candidate, a column per system. Also describes the data, and the cost.

Knows nothing of metrics, nor of the systems.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import ResultsError
from trsr.recommender import results
from trsr.recommender.run import data_checksums
from trsr.recommender.system_names import KEYS, ROW
from trsr.records.costs import peak_mib
from trsr.records.files import whole_file

SCORES_FILE = "scores.parquet"


def write(folder: Path, systems: Mapping[str, np.ndarray], candidates: Candidates) -> None:
    """Write SCORES_FILE: the columns ROW and KEYS, and one float64 column a system. The file is complete or absent.

    A results file of an earlier evaluation goes first: it would stand beside scores that it does not describe.

    Args:
        systems: Name -> scores (users, candidates).
        candidates: What was scored.
    """
    lists, mask = candidates.item_ids, candidates.mask
    users = [user_id for user_id, ids in zip(candidates.rows["user_id"], lists, strict=True) for _ in ids]
    keys = users, [item_id for ids in lists for item_id in ids], candidates.labels[mask].astype(int)
    columns: dict[str, Any] = {ROW: np.nonzero(mask)[0], **dict(zip(KEYS, keys, strict=True))}
    columns |= {name: scores[mask] for name, scores in systems.items()}
    (folder / results.RESULTS_FILE).unlink(missing_ok=True)
    with whole_file(folder / SCORES_FILE) as draft:
        pq.write_table(pa.table(columns), draft)


def first_rows(folder: Path, system: str, rows: int) -> list[dict[str, float]]:
    """For each of the first `rows` rows: item id -> score of a system, in the order of the file.

    Raises:
        ResultsError: If there are no scores.
    """
    path = folder / SCORES_FILE
    if not path.is_file():
        raise ResultsError(f"No scores at {path}. Make them: trsr evaluate {folder.parent}")
    scores_by_row: dict[int, dict[str, float]] = {}
    table = pq.read_table(path, columns=[ROW, "item_id", system], filters=[(ROW, "<", rows)])
    for row in table.to_pylist():
        scores_by_row.setdefault(row[ROW], {})[row["item_id"]] = row[system]
    return [scores_by_row[row] for row in sorted(scores_by_row)]


def about(source: str, config: str, split: str, revision: str | None = None) -> dict[str, Any]:
    """The fields of a results file that describe the scored data."""
    provenance = contract.provenance(source, revision)
    return {
        "dataset": provenance.terms.name,
        "config": config,
        "split": split,
        "protocol": provenance.protocol,
        "dataset_checksums": data_checksums(source, config, revision),
    }


def cost(began: float) -> dict[str, float]:
    """Cost of the process so far: `cpu_seconds`, all threads, since `time.process_time()` was `began`, and `peak_mib`.

    Memory is the largest resident size since the process started, including earlier work.
    """
    return {"cpu_seconds": round(time.process_time() - began, 2), "peak_mib": round(peak_mib(), 1)}
