"""Fit the weight of the first stage where its scores and the language model's are added, on validation users."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trsr.core.catalogue import STAGE_ONE, add_scores
from trsr.core.modeling import CATALOGUE
from trsr.core.scoring import rank
from trsr.dataset import contract
from trsr.metrics.fusion import fit_weights, normalise
from trsr.metrics.ranking import padded
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender
from trsr.records.files import locked, whole_folder
from trsr.retrieval.answers import answers, resumable_answers_file
from trsr.retrieval.carried import DEFAULT_WEIGHT, catalogue_of, with_fitted_weight, write_catalogue

logger = logging.getLogger(__name__)
LARGEST_WEIGHT = 100.0  # weight of the first stage where the language model adds nothing to it
USERS = 200
K = 10


def fuse_run(folder: Path, retriever: Path, *, users: int = USERS, stage_one: int = STAGE_ONE) -> dict[str, Any]:
    """Give a finished run a catalogue: its dataset's items, a retriever's vectors, and the weight fitted on validation.

    It is written to RUN/catalogue, from where `load_recommender` and `trsr publish --retriever` take it. A killed one goes on after
    the last user that was answered.

    Args:
        users: Validation users to fit on, the first of the split.
        stage_one: Items that the first stage passes on for each.

    Returns:
        The catalogue's record.

    Raises:
        RunError: If there is no finished run or no retriever, or the two were trained on different datasets.
        UsageError: If another process is fusing this run.
    """
    run = Run.read(folder)
    recipe = run.recipe
    catalogue = catalogue_of(retriever, recipe.dataset, recipe.dataset_revision)
    recommender = load_recommender(str(folder))
    recommender.catalogue = catalogue
    rows = contract.read(recipe.dataset, recipe.config, "validation", recipe.dataset_revision)
    rows = rows.select(range(min(users, len(rows))))
    with locked(folder / CATALOGUE):
        with resumable_answers_file(folder, run, recommender, stage_one) as answers_file:
            weight, figures = fit(recommender, rows, stage_one, answers_file)
        catalogue = with_fitted_weight(catalogue, weight, {**figures, "split": "validation", "run": run.weights})
        with whole_folder(folder / CATALOGUE) as draft:
            write_catalogue(catalogue, draft)
    return dict(catalogue.record)


def fit(
    recommender: Any, rows: Iterable[Mapping[str, Any]], stage_one: int = STAGE_ONE, kept: Path | None = None
) -> tuple[float, dict[str, Any]]:
    """The weight of the first stage's z-scores beside the language model's, as a conditional logit on these users gives it.

    A target that the first stage does not pass on counts as 0 in the figures, and says nothing of the weight.

    Args:
        recommender: A pipeline with a catalogue.
        rows: Of `histories`, or of a config of summaries, whose summaries are then used.
        kept: File of `resumable_answers_file`, from which a killed fit goes on.

    Returns:
        The weight, from 0 to LARGEST_WEIGHT; and the figures: `users`, `retrieved`, the share of targets that the first stage passed on, and
        NDCG of each stage and of both, on these users, which `ndcg_of` says. Where they do not say how much the first stage should
        count, the weight is DEFAULT_WEIGHT and `not_fitted` says why.
    """
    lists: list[tuple[list[float], list[float]]] = []  # of log-odds, and of scores of the first stage
    targets: list[int] = []  # index of the target in the lists, -1 where it was not passed on
    for row, answer in answers(recommender, rows, stage_one, "weight", kept):
        answer.sort(key=lambda item: -item["stage_one"])  # as they were retrieved: ties then fall as in serving
        ids = [item["item_id"] for item in answer]
        targets.append(ids.index(row["target"]) if row["target"] in ids else -1)
        lists.append(([item["log_odds"] for item in answer], [item["stage_one"] for item in answer]))
    weight, problem = _weight(lists, targets)
    if problem:
        logger.warning(f"The weight of the first stage was not fitted, and is {weight:g}: {problem}.")
    scores = {
        "first stage": [first for _, first in lists],
        "language model": [log_odds for log_odds, _ in lists],
        "both": [add_scores(log_odds, first, weight) for log_odds, first in lists],
    }
    ndcg = {
        name: np.mean([_gain(scores_of_user, target) for scores_of_user, target in zip(values, targets, strict=True)])
        for name, values in scores.items()
    }
    return weight, {
        "users": len(targets),
        "stage_one": stage_one,
        "retrieved": float(np.mean([target >= 0 for target in targets])),
        f"ndcg@{K}": {name: round(float(value), 4) for name, value in ndcg.items()},
        "ndcg_of": "the users that the weight was fitted on",
        **({"not_fitted": problem} if problem else {}),
    }


def _weight(lists: Sequence[tuple[list[float], list[float]]], targets: Sequence[int]) -> tuple[float, str | None]:
    """Weight of the first stage's scores beside the language model's, fitted on the lists that hold their target; and why not."""
    passed = [(scores, target) for scores, target in zip(lists, targets, strict=True) if target >= 0]
    if not passed:
        return DEFAULT_WEIGHT, f"the first stage passed on none of the targets of {len(lists)} users"
    labels = [[number == target for number in range(len(first))] for (_, first), target in passed]
    tables = [padded(system_scores, labels) for system_scores in zip(*(scores for scores, _ in passed), strict=True)]
    _, truth, mask = tables[0]
    features = np.stack([normalise(table, mask) for table, _, _ in tables])
    llm_weight, retriever_weight = fit_weights(features, truth, mask)
    if max(llm_weight, retriever_weight) <= 0:
        return DEFAULT_WEIGHT, f"neither stage ranks the targets of {len(passed)} users better than chance"
    if llm_weight <= 0:
        return LARGEST_WEIGHT, None
    return round(float(np.clip(retriever_weight / llm_weight, 0, LARGEST_WEIGHT)), 4), None


def _gain(scores: Sequence[float], target: int) -> float:
    """NDCG at K of the item at an index, the only relevant one; 0 where the index is negative."""
    position = rank(scores).index(target) if target >= 0 else K
    return 1 / float(np.log2(2 + position)) if position < K else 0.0
