"""The file of scores that an evaluation leaves: a row a candidate, a column a system; what was scored, and at what cost.

Knows nothing of metrics, nor of who scored.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from trsr.dataset import contract
from trsr.dataset.candidates import candidate_table, presence
from trsr.records.costs import peak_mib
from trsr.records.files import whole_file

FILE = "scores.parquet"
ROW = "row"  # of the data; a user may have several
KEYS = ("user_id", "item_id", "label")


def write(folder: Path, systems: Mapping[str, np.ndarray], rows: Dataset, seed: int) -> None:
    """Write FILE: the columns ROW and KEYS, and one float64 column a system. It is there whole, or not at all.

    Args:
        systems: Name -> scores (users, candidates).
        rows: The users that were scored.
        seed: Of the candidates' order.
    """
    lists, labels = candidate_table(rows, seed)
    mask = presence(lists)
    users = [user_id for user_id, ids in zip(rows["user_id"], lists, strict=True) for _ in ids]
    keys = users, [item_id for ids in lists for item_id in ids], labels[mask].astype(int)
    columns: dict[str, Any] = {ROW: np.nonzero(mask)[0], **dict(zip(KEYS, keys, strict=True))}
    columns |= {name: made[mask] for name, made in systems.items()}
    with whole_file(folder / FILE) as draft:
        pq.write_table(pa.table(columns), draft)


def about(source: str, config: str, split: str, revision: str | None = None) -> dict[str, Any]:
    """What a results file says of the data that was scored."""
    made = contract.provenance(source, revision)
    drawn = made.get("sampling", {})
    protocol = f"1 positive and {drawn.get('negatives', 'the given')} {drawn.get('sampling', '')} negatives a user"
    if drawn.get("protocol") == "impressions":
        protocol = "a clicked item and what was shown beside it and not clicked, a row a click"
    return {
        "dataset": contract.Terms.of(made).name,
        "config": config,
        "split": split,
        "protocol": protocol,
    }


def cost(began: float) -> dict[str, float]:
    """What the process has spent: `cpu_seconds`, all threads, since `time.process_time()` was `began`, and `peak_mib`.

    Memory is the largest resident size since the process started, whatever it did before.
    """
    return {"cpu_seconds": round(time.process_time() - began, 2), "peak_mib": round(peak_mib(), 1)}
