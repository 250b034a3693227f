"""Measure a recommender over its catalogue: the language model on what the first stage passes on, alone and with both scores added."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trsr.core.catalogue import STAGE_ONE
from trsr.metrics.fusion import moments
from trsr.retrieval.answers import answers
from trsr.retrieval.catalogue import Measured, of_lists
from trsr.retrieval.ranked import Ranked, measured

LANGUAGE_MODEL, BOTH = "log_odds", "score"  # of an answer


def measure_stages(
    recommender: Any,
    rows: Iterable[Mapping[str, Any]],
    numbers: Mapping[str, int],
    counts: np.ndarray,
    stage_one: int = STAGE_ONE,
    kept: Path | None = None,
) -> dict[str, Measured]:
    """What the language model alone makes of the items that are passed on, and what both stages do.

    A target that is not passed on counts as not found. Means and deviations are those of the lists.

    Args:
        recommender: A pipeline with a catalogue.
        rows: Of `histories`, or of a config of summaries, whose summaries are then used.
        numbers, counts: As `catalogue.measure` takes them.
        stage_one: Items that the first stage passes on.
        kept: File of `resumable_answers_file`, from which a killed measurement goes on.

    Returns:
        LANGUAGE_MODEL and BOTH.
    """
    answered = list(answers(recommender, rows, stage_one, "both stages", kept))
    targets = np.array([numbers[row["target"]] for row, _ in answered])
    items = np.zeros((len(answered), max(len(answer) for _, answer in answered)), np.int32)
    stage_scores = {name: np.full(items.shape, -np.inf, np.float32) for name in (LANGUAGE_MODEL, BOTH)}
    for number, (_, answer) in enumerate(answered):
        items[number, : len(answer)] = [numbers[item["item_id"]] for item in answer]
        for name, scores in stage_scores.items():
            scores[number, : len(answer)] = [item[name] for item in answer]
    mask = np.isfinite(stage_scores[BOTH])
    labels = mask & (items == targets[:, None])
    return {name: _measured(items, scores, labels, mask, counts) for name, scores in stage_scores.items()}


def _measured(
    items: np.ndarray, scores: np.ndarray, labels: np.ndarray, mask: np.ndarray, counts: np.ndarray
) -> Measured:
    order = np.argsort(-scores, axis=1, kind="stable")
    items, scores, labels, mask = (np.take_along_axis(table, order, 1) for table in (items, scores, labels, mask))
    shown = np.where(mask, scores, 0)
    return of_lists(Ranked(items, scores, *moments(scores, mask)), measured(shown, labels, mask), counts)
