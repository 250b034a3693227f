"""Validate during training: loss and ranking on validation users, and their curves as a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.dataset.candidates import Candidates
from trsr.metrics import ranking as metrics
from trsr.recommender.score_split import score
from trsr.report import plots

WATCHED = ("recall@3", "mrr@10")

Ranking = Callable[[Any], dict[str, float]]


def ranking(rows: Dataset, texts: Mapping[str, str], encoder: Encoder, seed: int) -> Ranking:
    """A function from a model to its ranking metrics on `rows` of the data contract. It uses no random numbers."""
    candidates = Candidates.of(rows, seed)

    def measure(model) -> dict[str, float]:
        mode = model.training
        model.eval()
        try:
            scorer = Scorer(model, encoder.yes_id, encoder.no_id)
            scores = score(candidates, texts, encoder, scorer, "validation").log_odds
        finally:
            model.train(mode)
        user_metrics = metrics.per_user(scores, candidates.labels, candidates.mask)
        return {name: float(np.mean(user_metrics[name])) for name in WATCHED}

    return measure


class RankingMixin:
    """Mixin for a Trainer: `evaluate` also logs ranking metrics, if there is a `ranking` function. See `ranking`."""

    def __init__(self, *args, ranking: Ranking | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._ranking = ranking

    def evaluate(self, *args, metric_key_prefix: str = "eval", **kwargs) -> dict[str, float]:
        # A data loader draws a random seed even without shuffling, which would change the training that follows.
        with torch.random.fork_rng():
            measured = super().evaluate(*args, metric_key_prefix=metric_key_prefix, **kwargs)  # type: ignore[misc]
        if self._ranking:
            with torch.no_grad():
                ranks = {f"{metric_key_prefix}_{k}": v for k, v in self._ranking(self.model).items()}  # type: ignore[attr-defined]
            self.log(ranks)  # type: ignore[attr-defined]
            measured |= ranks
        return measured


def curves(log: Sequence[Mapping[str, float]]) -> dict[str, list[list[float]]]:
    """Name -> [step, value] from the log of the Trainer: training and validation loss, and the ranking metrics."""
    names = ("loss", "eval_loss", *(f"eval_{name}" for name in WATCHED))
    points_by_name = {
        name: [[int(entry["step"]), float(entry[name])] for entry in log if name in entry] for name in names
    }
    return {name: points for name, points in points_by_name.items() if points}


def draw(points_by_name: Mapping[str, Sequence[Sequence[float]]], path: Path) -> bool:
    """Write a PNG of `curves`. Returns False, and writes nothing, without matplotlib or without points."""
    panels = [
        [name for name in points_by_name if "loss" in name],
        [name for name in points_by_name if "loss" not in name],
    ]
    panels = [names for names in panels if names]
    if not panels:
        return False
    try:
        figure = plots.figure(5 * len(panels), 3.5)
    except ImportError:
        return False
    for panel, names in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), panel)
        for name in names:
            axes.plot(*zip(*points_by_name[name], strict=True), marker=".", label=name.removeprefix("eval_"))
        axes.set(xlabel="step", ylabel="loss" if "loss" in names[0] else "validation users")
        axes.legend()
    figure.savefig(path, dpi=120)
    return True
