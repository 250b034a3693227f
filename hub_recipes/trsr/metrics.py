"""Ranking metrics of scored candidates, with intervals and paired tests.

Takes arrays and returns numbers; knows nothing of models, files or how candidates were chosen. Ties count half: every
ranking metric is its exact expectation when tied candidates are put in random order, so a constant scorer gets chance.
`mask` (users, candidates) says which cells hold a candidate, for lists of unequal length; without it, all do.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

RECALL_AT = (1, 3, 5, 10)
MRR_AT = NDCG_AT = (3, 5, 10)
BINS = 15  # of the calibration error
_CELLS = 2_000_000  # of one chunk of resamples, so that many users do not fill the memory


def per_user(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> dict[str, np.ndarray]:
    """Metrics of each user.

    A user may have several positives: `recall@k` is the share of them among the first k, `mrr@k` is 1 / rank of the
    first of them, 0 past k, `ndcg@k` has gain 1 for each and the best possible order as ideal, `auc` is the share of
    (positive, negative) pairs in the right order.

    Args:
        scores: (users, candidates), higher is better.
        labels: (users, candidates), 1 or True for a positive.

    Returns:
        `recall@k`, `mrr@k`, `ndcg@k` and `auc`, each (users,) from 0 to 1.

    Raises:
        ValueError: If shapes differ, a scored cell is not finite, or a user lacks a positive or a negative.
    """
    scores, labels, mask = _checked(scores, labels, mask)
    ranked = np.where(mask, scores, -np.inf)  # an absent candidate is never above, nor tied with, a present one
    positives, negatives = labels.sum(1), (mask & ~labels).sum(1)

    # One row a positive: `better` candidates above it, `group` tied with it, itself counted.
    user, place = np.nonzero(labels)
    own = ranked[user, place, None]  # (positives, 1)
    above, tied = ranked[user] > own, ranked[user] == own  # (positives, candidates)
    better, group = above.sum(1), tied.sum(1)
    wrong = ((above + tied / 2) * ~labels[user]).sum(1)  # negatives above it, tied ones by half

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(user, values, len(scores))  # (users,)

    found = {f"recall@{k}": total(np.clip(k - better, 0, group) / group) / positives for k in RECALL_AT}

    # The first positive stands in the group of the highest positive score.
    top = np.where(labels, ranked, -np.inf).max(1, keepdims=True)
    first = (ranked > top).sum(1), (ranked == top).sum(1), (labels & (ranked == top)).sum(1)
    found |= {f"mrr@{k}": _reciprocal_rank(*first, k) for k in MRR_AT}

    for k in NDCG_AT:
        gains = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])  # of the first 0, 1, ... k ranks
        expected = (gains[np.minimum(better + group, k)] - gains[np.minimum(better, k)]) / group
        found[f"ndcg@{k}"] = total(expected) / gains[np.minimum(positives, k)]
    return found | {"auc": total(1 - wrong / negatives[user]) / positives}


def _reciprocal_rank(better: np.ndarray, group: np.ndarray, hits: np.ndarray, k: int) -> np.ndarray:
    """Expected 1 / rank of the first of `hits` positives in a tied group that starts after `better` others."""
    total = np.zeros(len(group))
    unseen = np.ones(len(group))  # probability that no positive stands among the places of the group so far
    for step in range(1, k + 1):
        chance = np.minimum(hits / np.maximum(group - step + 1, 1), 1)
        rank = better + step
        total += np.where(rank <= k, unseen * chance / rank, 0)
        unseen *= 1 - chance
    return total


def _checked(scores, labels, mask, what: str = "scores") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    mask = np.ones(scores.shape, dtype=bool) if mask is None else np.asarray(mask)
    if scores.ndim != 2 or not scores.size or not scores.shape == labels.shape == mask.shape:
        raise ValueError(
            f"Expected {what}, labels and mask of one shape (users, candidates), "
            f"got {scores.shape}, {labels.shape} and {mask.shape}."
        )
    for name, values in (("labels", labels), ("mask", mask)):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{name} must hold 0 and 1 (or False and True) alone, got {np.unique(values)[:5]}.")
    labels, mask = labels.astype(bool), mask.astype(bool)
    for broken, why in (
        (mask & ~np.isfinite(scores), f"{what} must be finite; leave cells without a candidate out by `mask`"),
        (labels & ~mask, "a positive stands where `mask` says there is no candidate"),
        (~labels.any(1, keepdims=True), "no positive, so its rank is undefined; leave the user out"),
        (~(mask & ~labels).any(1, keepdims=True), "no negative, so there is nothing to rank against; leave it out"),
    ):
        if broken.any():
            raise ValueError(f"User in row {np.argmax(broken.any(1))} ({broken.any(1).sum()} such users): {why}.")
    return scores, labels, mask


def summary(values: Mapping[str, ArrayLike], seed: int, resamples: int = 1000) -> dict[str, dict[str, float]]:
    """Mean of each metric over users, `value`, and its 95% percentile bootstrap interval, `low` and `high`.

    Args:
        values: Metric -> (users,). All metrics share the resamples of users.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)  # (users, metrics)
    if not table.size or not np.isfinite(table).all():
        raise ValueError(f"Expected finite values of at least one user, got an array {table.shape}.")
    # Measured from the first user, so that a value that all users share comes out exact.
    shifted = table - table[0]
    means = table[0] + shifted.mean(0)
    drawn = table[0] + _resampled(shifted, seed, resamples) / len(table)  # (resamples, metrics)
    return {name: _interval(means[column], drawn[:, column]) for column, name in enumerate(values)}


def _resampled(columns: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Sums of (users, m) `columns` over users drawn with replacement, (resamples, m)."""
    random, users, sums = np.random.default_rng(seed), len(columns), []
    for size in _chunks(users, resamples):
        drawn = random.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        sums.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(size, users) @ columns)
    return np.concatenate(sums)


def _chunks(users: int, resamples: int) -> list[int]:
    most = max(1, _CELLS // users)
    return [min(most, resamples - start) for start in range(0, resamples, most)]


def _interval(value: float, drawn: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Distance of mean probability and share of positives, over equal-width bins weighted by their candidates.

    Holds for the share of positives in `labels` only: with 20 negatives a user, 1 in 21.

    Args:
        probabilities: Of any shape, from 0 to 1.
        labels: Of the same shape, 1 or True for a positive.

    Reference:
        Guo et al., On calibration of modern neural networks (arXiv 1706.04599), here for the answer yes alone.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if not labels.size or probabilities.shape != labels.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Expected a label 0 or 1 a probability, got {labels.shape} for {probabilities.shape}.")
    return float(np.abs(_gaps(probabilities.ravel(), labels.ravel(), 0, bins)).sum() / labels.size)


def _gaps(probabilities: np.ndarray, labels: np.ndarray, user: np.ndarray | int, bins: int) -> np.ndarray:
    """Sums of probability - label, (users, bins), of flat probabilities and labels; `user` is the row each goes to."""
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("Probabilities must lie from 0 to 1. Log-odds become probabilities by the logistic function.")
    cell = user * bins + np.minimum((probabilities * bins).astype(int), bins - 1)
    return np.bincount(cell, probabilities - labels, (np.max(user) + 1) * bins).reshape(-1, bins)


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, object]:
    """All metrics of one system: `n_users`, `n_candidates` (a user, the mean), and value, low and high of each metric.

    Args:
        probabilities: (users, candidates); adds `ece`. Its interval leans upward, since resampling adds noise to bins.
        seed: Of the bootstrap.

    Raises:
        ValueError: As `per_user` and `expected_calibration_error` do.
    """
    scores, labels, mask = _checked(scores, labels, mask)
    counts = mask.sum(1)
    found: dict[str, object] = {"n_users": len(scores), "n_candidates": float(counts.mean())}
    found |= summary(per_user(scores, labels, mask), seed)
    if probabilities is not None:
        given, _, _ = _checked(probabilities, labels, mask, "probabilities")
        gaps = _gaps(given[mask], labels[mask], np.nonzero(mask)[0], BINS)
        columns = np.column_stack([gaps, counts])
        sums = np.vstack([columns.sum(0), _resampled(columns, seed, 1000)])  # what was observed, then the resamples
        errors = np.abs(sums[:, :-1]).sum(1) / sums[:, -1]
        found["ece"] = _interval(errors[0], errors[1:])
    return found


def paired_test(a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 10_000) -> dict[str, float]:
    """Compare two systems on the same users.

    Args:
        a: (users,) a metric of one system.
        b: (users,) the same metric of the other, users in the same order.

    Returns:
        `difference` (mean of a - b), its 95% bootstrap interval `low` and `high`, and `p_value`: two-sided, from random
        sign flips of the users' differences, never below 1 / (resamples + 1).
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or not a.size or a.shape != b.shape:
        raise ValueError(f"Expected one value a user from both systems, got {a.shape} and {b.shape}.")
    difference = a - b
    interval = summary({"difference": difference}, seed)["difference"]
    # Sums that are equal on paper may differ in their last bits.
    bound = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    random = np.random.default_rng(seed)
    flips = (random.integers(2, size=(size, len(a))) * 2 - 1 for size in _chunks(len(a), resamples))
    reached = sum(int((np.abs(signs @ difference) >= bound).sum()) for signs in flips)
    return {
        "difference": interval["value"],
        "low": interval["low"],
        "high": interval["high"],
        "p_value": (reached + 1) / (resamples + 1),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several comparisons, in the order given (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"Expected a list of p-values from 0 to 1, got {p_values}.")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()
