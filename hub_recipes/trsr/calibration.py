"""Fit the temperature that turns log-odds of yes into probabilities.

Positives and negatives weigh the same in the fit, as they do in training: the probability is that of a candidate that is
as likely to be chosen as not. Among 20 negatives a candidate starts at 1 in 21; who needs that subtracts log(20) from
the log-odds. A temperature alone cannot undo such a shift, and it never changes a ranking.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

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
