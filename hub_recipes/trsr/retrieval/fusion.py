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
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender
from trsr.records.files import whole_folder
from trsr.retrieval.carried import catalogue_of, with_weight, write_catalogue

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
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
    """Choose the weight of WEIGHTS with the highest NDCG of the true next item; of equal ones, the one nearest to 1.

    A target that the first stage does not pass on counts as 0, with every weight.

    Args:
        recommender: A pipeline with a catalogue.
        rows: Of `histories`, or of a config of summaries, whose summaries are then used.

    Returns:
        The weight; and the figures: users, the share of targets that the first stage passed on, and NDCG by weight, of the
        first stage alone and of the language model alone.
    """
    gains: dict[str, list[float]] = {}
    passed = []
    for row in tqdm(rows, desc="weight", unit="user", mininterval=1):
        answer = recommender(request_of(row), stage_one=stage_one)["candidates"]
        answer.sort(key=lambda item: -item["stage_one"])  # as they were retrieved: ties then fall as in serving
        ids = [item["item_id"] for item in answer]
        at = ids.index(row["target"]) if row["target"] in ids else None
        passed.append(at is not None)
        log_odds, first = ([item[name] for item in answer] for name in ("log_odds", "stage_one"))
        systems = {str(weight): add_scores(log_odds, first, weight) for weight in WEIGHTS} | {"first stage": first}
        for name, scores in systems.items():
            gains.setdefault(name, []).append(_gain(scores, at))
    ndcg = {name: float(np.mean(values)) for name, values in gains.items()}
    best = max(WEIGHTS, key=lambda weight: (ndcg[str(weight)], -abs(np.log2(max(weight, 2**-9)))))
    return best, {
        "users": len(passed),
        "stage_one": stage_one,
        "retrieved": float(np.mean(passed)),
        f"ndcg@{K}": {name: round(value, 4) for name, value in ndcg.items()},
    }


def request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What to ask a recommender with a catalogue, to find the target of a row: nothing that the user has met."""
    return {
        "history": [{"item_id": item_id} for item_id in row["history"]],
        "exclude": [item_id for item_id in row.get("also_met") or () if item_id != row["target"]],
        **({"summary": row["summary"]} if row.get("summary") else {}),
    }


def _gain(scores: Sequence[float], at: int | None) -> float:
    """NDCG at K of the item at an index, the only relevant one."""
    position = rank(scores).index(at) if at is not None else K
    return 1 / float(np.log2(2 + position)) if position < K else 0.0
