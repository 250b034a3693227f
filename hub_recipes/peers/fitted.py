"""What every peer takes and gives: a budget, and scores over the whole catalogue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from peers.material import Material
from trsr.errors import UsageError
from trsr.retrieval import catalogue
from trsr.retrieval.catalogue import CatalogueScorer

METRIC = "ndcg@100"  # over the catalogue, of validation users: what the search and early stopping look at


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on a peer.

    Attributes:
        trials: Settings tried, the defaults counted.
        cpu_minutes: After which no further trial begins; 0 = no bound.
        epochs: Of a network, at most.
        patience: Epochs of a network that bring nothing on validation before it ends.
    """

    trials: int = 6
    cpu_minutes: float = 0
    epochs: int = 100
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}, expected at least 1.")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted peer.

    Attributes:
        score: From rows of `histories`, as columns, to scores (rows, items) of the whole catalogue.
        record: What fitting found out, such as the epoch that was kept.
    """

    score: CatalogueScorer
    record: Mapping[str, Any] = field(default_factory=dict)


def over_known(
    score: Callable[[Sequence[Sequence[str]]], np.ndarray], known: Sequence[str], material: Material
) -> CatalogueScorer:
    """Spread scores of the items that a model knows over the catalogue.

    Args:
        score: From histories to scores (rows, known items).
        known: Item ids in the order of its columns. An item that nobody met in training is unknown: it gets the lowest
            score of the row. Where the history holds no known item, all are tied.
    """
    numbers = material.numbers
    columns, known_ids = [numbers[item_id] for item_id in known], set(known)

    def spread(part: Mapping[str, Any]) -> np.ndarray:
        scores = np.zeros((len(part["history"]), len(numbers)))
        scored_rows = [row for row, history in enumerate(part["history"]) if not known_ids.isdisjoint(history)]
        if scored_rows:
            known_scores = np.asarray(score([part["history"][row] for row in scored_rows]), np.float64)
            rows = np.broadcast_to(known_scores.min(axis=1, keepdims=True), (len(scored_rows), len(numbers))).copy()
            rows[:, columns] = known_scores
            scores[scored_rows] = rows
        return scores

    return spread


def figure(fitted: Fitted, rows: Dataset, material: Material) -> float:
    """METRIC of a fitted peer on some rows."""
    measured = catalogue.measure({"peer": fitted.score}, rows, material.numbers, material.counts)["peer"]
    return float(measured.per_user[METRIC].mean())
