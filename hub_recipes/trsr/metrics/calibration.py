"""Fit the temperature and the bias that turn log-odds of yes into probabilities, and measure their calibration.

P(yes) = sigmoid(log-odds / temperature + bias). Positives and negatives have the same total weight in the fit, so
the prior probability is 1/2. For a prior of 1 in 21, as among 20 negatives, subtract log(20) from the log-odds of P(yes).
Training with several negatives a positive, or with a listwise loss, shifts
the log-odds by a constant: the bias corrects that, which a temperature cannot. Neither changes a ranking.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from trsr.errors import CalibrationError
from trsr.metrics.ranking import BINS

LOWEST, HIGHEST = 0.05, 20.0  # of temperatures
SIGNAL = 2.0  # 1 / temperature must exceed this many standard errors


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted parameters that turn log-odds into probabilities.

    Attributes:
        value: The temperature: log-odds are divided by it.
        bias: Added after that.
        log_loss_before: Balanced log loss, nats, with temperature 1 and no bias.
        log_loss_after: The same with both.
        n_users: Number of users in the fit.
    """

    value: float
    bias: float
    log_loss_before: float
    log_loss_after: float
    n_users: int


def fit_calibration(
    log_odds: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, users: Sequence[str] | None = None
) -> Calibration:
    """Minimise the balanced log loss over temperature, from 0.05 to 20, and bias.

    Args:
        log_odds: (rows, candidates).
        labels: (rows, candidates), 1 or True for a positive.
        mask: (rows, candidates), which cells hold a candidate; without it, all do.
        users: User id of each row, if a user has several rows.

    Raises:
        ValueError: If shapes differ, a value is not finite, or there are no positives or no negatives.
        CalibrationError: If the rows do not determine a temperature: it ends at a bound, or 1 / temperature is not more
            than two standard errors (clustered by user) above 0.

    Reference:
        Platt, Probabilistic outputs for support vector machines (1999); Guo et al., On calibration of modern neural
        networks (arXiv 1706.04599), for the temperature.
    """
    odds, chosen = np.asarray(log_odds, dtype=np.float64), np.asarray(labels).astype(bool)
    present = np.ones(odds.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if odds.ndim != 2 or not odds.shape == chosen.shape == present.shape or not np.isfinite(odds[present]).all():
        raise ValueError(f"Expected finite log-odds and labels of one shape, got {odds.shape} and {chosen.shape}.")
    user_index = np.unique(np.arange(len(odds)) if users is None else np.asarray(users), return_inverse=True)[1]
    n_users, user_index = int(user_index.max(initial=-1)) + 1, np.broadcast_to(user_index[:, None], odds.shape)[present]
    odds, chosen = odds[present], chosen[present]
    if chosen.all() or not chosen.any():
        raise ValueError("A temperature needs positives and negatives among the labels.")
    weight = _weights(chosen)
    inputs = np.stack([odds, np.ones_like(odds)], axis=1)  # (candidates, 2): times (1 / temperature, bias)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = inputs @ parameters
        losses = np.logaddexp(0, np.where(chosen, -scaled, scaled))
        return float(weight @ losses), inputs.T @ (weight * (expit(scaled) - chosen))

    best = minimize(
        loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=((1 / HIGHEST, 1 / LOWEST), (None, None)),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )  # fmt: skip
    slope, bias = best.x
    error = _standard_error(inputs, expit(inputs @ best.x), chosen, weight, user_index)
    if slope >= 0.999 / LOWEST:
        raise CalibrationError(
            f"No temperature was fitted: the log-odds tell all chosen candidates of {n_users} users from all others, too few "
            "users to say how sure they are. Evaluate on more validation users."
        )
    if slope <= 1.001 / HIGHEST or not slope > SIGNAL * error:
        raise CalibrationError(
            f"No temperature was fitted: on {n_users} users the log-odds do not tell chosen candidates from others (1 / "
            f"temperature is {slope:.3g}, its standard error {error:.2g}). Evaluate on more validation users, or train longer."
        )
    # Four digits: platforms differ in the last bits, releases should not.
    before, after = loss(np.array([1.0, 0.0]))[0], float(best.fun)
    return Calibration(round(float(1 / slope), 4), round(float(bias), 4), round(before, 6), round(after, 6), n_users)


def _standard_error(
    inputs: np.ndarray, probability: np.ndarray, chosen: np.ndarray, weight: np.ndarray, users: np.ndarray
) -> float:
    """Standard error of the slope: the sandwich estimate, clustered by user."""
    curvature = (inputs * (weight * probability * (1 - probability))[:, None]).T @ inputs
    gradients = inputs * (weight * (probability - chosen))[:, None]
    user_gradients = np.stack([np.bincount(users, weights=column) for column in gradients.T])  # (2, users)
    inverse = np.linalg.pinv(curvature)
    return float(np.sqrt((inverse @ user_gradients @ user_gradients.T @ inverse)[0, 0]))


def _weights(chosen: np.ndarray) -> np.ndarray:
    """Weights of candidates: positives sum to 1/2, and so do negatives."""
    return np.where(chosen, 0.5 / chosen.sum(), 0.5 / (~chosen).sum())


@dataclass(frozen=True, slots=True)
class Bin:
    """Statistics of the candidates whose probability lies in one of the equal-width bins.

    Attributes:
        probability: Their mean probability of yes.
        positives: Their share of positives.
        weight: Their share of all weight.
        n_candidates: Their number.
    """

    probability: float
    positives: float
    weight: float
    n_candidates: int


def reliability(
    log_odds: ArrayLike, labels: ArrayLike, temperature: float = 1.0, bins: int = BINS, bias: float = 0.0
) -> list[Bin]:
    """Compare predicted probabilities with the share of positives, bin by bin, weighted as in `fit_calibration`.

    Args:
        log_odds: Of any shape, finite.
        labels: Of the same shape, 1 or True for a positive; both must occur.

    Returns:
        The bins with candidates, in ascending order of probability.
    """
    odds, chosen = np.asarray(log_odds, dtype=np.float64).ravel(), np.asarray(labels).astype(bool).ravel()
    if odds.shape != chosen.shape or not np.isfinite(odds).all() or chosen.all() or not chosen.any():
        raise ValueError(
            f"Expected finite log-odds and a label each, with both labels, got {odds.shape}, {chosen.shape}."
        )
    probability = expit(odds / temperature + bias)
    weight = _weights(chosen)
    bin_index = np.minimum((probability * bins).astype(int), bins - 1)
    filled_bins = []
    for number in np.unique(bin_index):
        inside = bin_index == number
        share = weight[inside].sum()
        filled_bins.append(
            Bin(
                float(weight[inside] @ probability[inside] / share),
                float(weight[inside & chosen].sum() / share),
                float(share),
                int(inside.sum()),
            )
        )
    return filled_bins


def balanced_error(bins: Iterable[Bin]) -> float:
    """Expected calibration error of `reliability`: distance of probability and share of positives, by weight."""
    return sum(bucket.weight * abs(bucket.probability - bucket.positives) for bucket in bins)
