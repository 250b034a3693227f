"""Fit the temperature that turns log-odds of yes into probabilities, and see how far these hold.

Positives and negatives weigh the same in the fit, as they do in training: the probability is that of a candidate that is
as likely to be chosen as not. Among 20 negatives a candidate starts at 1 in 21; who needs that subtracts log(20) from
the log-odds. A temperature alone cannot undo such a shift, and it never changes a ranking.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import expit

from trsr.metrics.ranking import BINS

LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: Log-odds are divided by it.
        log_loss_before: Balanced log loss, nats, with temperature 1.
        log_loss_after: The same with `value`.
        n_users: Users it was fitted on.
    """

    value: float
    log_loss_before: float
    log_loss_after: float
    n_users: int


def fit_temperature(log_odds: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Temperature:
    """Minimise the balanced log loss over the temperature, from 0.05 to 20.

    Args:
        log_odds: (users, candidates).
        labels: (users, candidates), 1 or True for a positive.
        mask: (users, candidates), which cells hold a candidate; without it, all do.

    Raises:
        ValueError: If shapes differ, a value is not finite, or there are no positives or no negatives.

    Reference:
        Guo et al., On calibration of modern neural networks (arXiv 1706.04599).
    """
    odds, chosen = np.asarray(log_odds, dtype=np.float64), np.asarray(labels).astype(bool)
    there = np.ones(odds.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if odds.ndim != 2 or not odds.shape == chosen.shape == there.shape or not np.isfinite(odds[there]).all():
        raise ValueError(f"Expected finite log-odds and labels of one shape, got {odds.shape} and {chosen.shape}.")
    n_users, odds, chosen = len(odds), odds[there], chosen[there]
    if chosen.all() or not chosen.any():
        raise ValueError("A temperature needs positives and negatives among the labels.")

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        return float(np.logaddexp(0, -scaled[chosen]).mean() + np.logaddexp(0, scaled[~chosen]).mean()) / 2

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    # Four digits: platforms differ in the last bits, releases should not.
    return Temperature(round(float(np.exp(found.x)), 4), round(loss(0.0), 6), round(float(found.fun), 6), n_users)


@dataclass(frozen=True, slots=True)
class Bin:
    """Candidates whose probability lies in one of the equal-width bins.

    Attributes:
        probability: Their mean probability of yes.
        positives: Their share of positives.
        weight: Their share of all weight.
        n_candidates: How many they are.
    """

    probability: float
    positives: float
    weight: float
    n_candidates: int


def reliability(log_odds: ArrayLike, labels: ArrayLike, temperature: float = 1.0, bins: int = BINS) -> list[Bin]:
    """Probabilities beside what came true, positives and negatives weighing the same as in `fit_temperature`.

    Args:
        log_odds: Of any shape, finite.
        labels: Of the same shape, 1 or True for a positive; both must occur.

    Returns:
        The bins that hold candidates, from the lowest probability up.
    """
    odds, chosen = np.asarray(log_odds, dtype=np.float64).ravel(), np.asarray(labels).astype(bool).ravel()
    if odds.shape != chosen.shape or not np.isfinite(odds).all() or chosen.all() or not chosen.any():
        raise ValueError(
            f"Expected finite log-odds and a label each, with both labels, got {odds.shape}, {chosen.shape}."
        )
    probability = expit(odds / temperature)
    weight = np.where(chosen, 0.5 / chosen.sum(), 0.5 / (~chosen).sum())
    place = np.minimum((probability * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        share = weight[inside].sum()
        found.append(
            Bin(
                float(weight[inside] @ probability[inside] / share),
                float(weight[inside & chosen].sum() / share),
                float(share),
                int(inside.sum()),
            )
        )
    return found


def balanced_error(bins: Iterable[Bin]) -> float:
    """Expected calibration error of `reliability`: distance of probability and share of positives, by weight."""
    return sum(one.weight * abs(one.probability - one.positives) for one in bins)
