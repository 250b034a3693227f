"""Fit the weight of the first stage where its scores and the language model's are added, on validation users."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from trsr.core.catalogue import STAGE_ONE, add_scores
from trsr.core.modeling import CATALOGUE
from trsr.core.scoring import rank
from trsr.dataset import contract
from trsr.metrics.fusion import fit_weights, normalise
from trsr.metrics.ranking import padded
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender
from trsr.records.files import whole_folder
from trsr.retrieval.carried import UNFITTED, catalogue_of, with_weight, write_catalogue

MOST = 100.0  # weight of the first stage where the language model adds nothing to it
USERS = 200
K = 10


def fuse_run(folder: Path, retriever: Path, *, users: int = USERS, stage_one: int = STAGE_ONE) -> dict[str, Any]:
    """Give a finished run a catalogue: its dataset's items, a retriever's vectors, and the weight fitted on validation.

    It is written to RUN/catalogue, from where `load_recommender` and `trsr publish --retriever` take it.

    Args:
        users: Validation users to fit on, the first of the split.
        stage_one: Items that the first stage passes on for each.

    Returns:
        The catalogue's record.

    Raises:
        RunError: If there is no finished run or no retriever, or the two were trained on different datasets.
    """
    run = Run.read(folder)
    recipe = run.recipe
    catalogue = catalogue_of(retriever, recipe.dataset, recipe.dataset_revision)
    recommender = load_recommender(str(folder))
    recommender.catalogue = catalogue
    rows = contract.read(recipe.dataset, recipe.config, "validation", recipe.dataset_revision)
    rows = rows.select(range(min(users, len(rows))))
    weight, figures = fit(recommender, rows, stage_one)
    catalogue = with_weight(catalogue, weight, {**figures, "split": "validation", "run": run.weights})
    with whole_folder(folder / CATALOGUE) as draft:
        write_catalogue(catalogue, draft)
    return dict(catalogue.record)


def fit(
    recommender: Any, rows: Iterable[Mapping[str, Any]], stage_one: int = STAGE_ONE
) -> tuple[float, dict[str, Any]]:
    """The weight of the first stage's z-scores beside the language model's, as a conditional logit on these users gives it.

    A target that the first stage does not pass on counts as 0 in the figures, and says nothing of the weight.

    Args:
        recommender: A pipeline with a catalogue.
        rows: Of `histories`, or of a config of summaries, whose summaries are then used.

    Returns:
        The weight, from 0 to MOST; and the figures: users, the share of targets that the first stage passed on, and NDCG of each
        stage and of both.
    """
    lists: list[tuple[list[float], list[float]]] = []  # of log-odds, and of scores of the first stage
    at: list[int] = []
    for row in tqdm(rows, desc="weight", unit="user", mininterval=1):
        answer = recommender(request_of(row), stage_one=stage_one)["candidates"]
        answer.sort(key=lambda item: -item["stage_one"])  # as they were retrieved: ties then fall as in serving
        ids = [item["item_id"] for item in answer]
        at.append(ids.index(row["target"]) if row["target"] in ids else -1)
        lists.append(([item["log_odds"] for item in answer], [item["stage_one"] for item in answer]))
    weight = _weight(lists, at)
    ndcg = {
        "first stage": [_gain(first, place) for (_, first), place in zip(lists, at, strict=True)],
        "language model": [_gain(log_odds, place) for (log_odds, _), place in zip(lists, at, strict=True)],
        "both": [_gain(add_scores(*scores, weight), place) for scores, place in zip(lists, at, strict=True)],
    }
    return weight, {
        "users": len(at),
        "stage_one": stage_one,
        "retrieved": float(np.mean([place >= 0 for place in at])),
        f"ndcg@{K}": {name: round(float(np.mean(gains)), 4) for name, gains in ndcg.items()},
    }


def _weight(lists: Sequence[tuple[list[float], list[float]]], at: Sequence[int]) -> float:
    """Weight of the second of two scores beside the first, fitted on the lists that hold their target."""
    passed = [(scores, place) for scores, place in zip(lists, at, strict=True) if place >= 0]
    if not passed:
        return UNFITTED
    labels = [[number == place for number in range(len(first))] for (_, first), place in passed]
    tables = [padded(one, labels) for one in zip(*(scores for scores, _ in passed), strict=True)]
    _, truth, mask = tables[0]
    second, first = fit_weights(np.stack([normalise(table, mask) for table, _, _ in tables]), truth, mask)
    return round(float(np.clip(first / second, 0, MOST)), 4) if second > 0 else MOST


def request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What to ask a recommender with a catalogue, to find the target of a row: nothing that the user has met."""
    return {
        "history": [{"item_id": item_id} for item_id in row["history"]],
        "exclude": [item_id for item_id in row.get("also_met") or () if item_id != row["target"]],
        **({"summary": row["summary"]} if row.get("summary") else {}),
    }


def _gain(scores: Sequence[float], at: int) -> float:
    """NDCG at K of the item at an index, the only relevant one; 0 where the index is negative."""
    position = rank(scores).index(at) if at >= 0 else K
    return 1 / float(np.log2(2 + position)) if position < K else 0.0
