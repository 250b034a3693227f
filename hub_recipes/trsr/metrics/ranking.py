"""Ranking metrics of scored candidates, one value per user, and the calibration error.

Takes arrays and returns numbers; knows nothing of models, files or how candidates were chosen, and leaves statistics
over users to `significance`. Ties count half: every ranking metric is its exact expectation when tied candidates are
put in random order, so a constant scorer gets the score of chance. `mask` (users, candidates) says which cells hold a candidate, for
lists of unequal length; without it, all do.

Travels inside the metric Spaces: the standard library and numpy only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

RECALL_AT = (1, 3, 5, 10)
MRR_AT = NDCG_AT = (3, 5, 10)
BINS = 15  # of the calibration error


def per_user(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, at: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Metrics of each user.

    A user may have several positives: `recall@k` is the share of them among the first k, `mrr@k` is 1 / rank of the
    first of them, 0 past k, `ndcg@k` has gain 1 for each and the best possible order as ideal, `auc` is the share of
    (positive, negative) pairs in the right order.

    Args:
        scores: (users, candidates), higher is better.
        labels: (users, candidates), 1 or True for a positive.
        at: Cut-offs k of all three; without it, those of `RECALL_AT`, `MRR_AT` and `NDCG_AT`.

    Returns:
        `recall@k`, `mrr@k`, `ndcg@k` and `auc`, each (users,) from 0 to 1.

    Raises:
        ValueError: If shapes differ, a scored cell is not finite, a user lacks a positive or a negative, or a
            cut-off is no whole number from 1.
    """
    if at is not None and not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) and k > 0 for k in at):
        raise ValueError(f"Cut-offs are whole numbers from 1, got {list(at)}.")
    recall_at, mrr_at, ndcg_at = (RECALL_AT, MRR_AT, NDCG_AT) if at is None else (at, at, at)
    scores, labels, mask = checked(scores, labels, mask)
    ranked = np.where(mask, scores, -np.inf)  # an empty cell ranks below every candidate, and ties with none
    positives, negatives = labels.sum(1), (mask & ~labels).sum(1)

    # One row per positive: `better` candidates above it, `group` tied with it, itself included.
    user, column = np.nonzero(labels)
    own = ranked[user, column, None]  # (positives, 1)
    above, tied = ranked[user] > own, ranked[user] == own  # (positives, candidates)
    better, group = above.sum(1), tied.sum(1)
    wrong = ((above + tied / 2) * ~labels[user]).sum(1)  # negatives above it, tied ones by half

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(user, values, len(scores))  # (users,)

    metrics = {f"recall@{k}": total(expected_hits(better, group, k)) / positives for k in recall_at}

    # The first positive is in the tied group with the highest score of a positive.
    top = np.where(labels, ranked, -np.inf).max(1, keepdims=True)
    first = (ranked > top).sum(1), (ranked == top).sum(1), (labels & (ranked == top)).sum(1)
    width = scores.shape[1]  # the largest rank, whatever k is
    metrics |= {f"mrr@{k}": _reciprocal_rank(*first, min(k, width)) for k in mrr_at}

    for k in ndcg_at:
        last = min(k, width)
        ideal = _gains(last)[np.minimum(positives, last)]
        metrics[f"ndcg@{k}"] = total(expected_gain(better, group, last)) / ideal
    return metrics | {"auc": total(1 - wrong / negatives[user]) / positives}


def padded(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad lists of unequal length to arrays: scores, labels and mask, each (users, longest list).

    Raises:
        ValueError: If there are no users, or a user has not as many labels as scores.
    """
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(f"Expected a list of scores and one of labels a user, got {len(scores)} and {len(labels)}.")
    for user, (user_scores, user_labels) in enumerate(zip(scores, labels, strict=True)):
        if len(user_scores) != len(user_labels):
            raise ValueError(
                f"User in row {user} has {len(user_scores)} scores and {len(user_labels)} labels, expected as many."
            )
    mask = np.arange(max(map(len, scores))) < np.array([[len(user_scores)] for user_scores in scores])
    table, truth = np.zeros(mask.shape), np.zeros(mask.shape)
    table[mask] = np.concatenate([np.asarray(user_scores, dtype=np.float64) for user_scores in scores])
    truth[mask] = np.concatenate([np.asarray(user_labels, dtype=np.float64) for user_labels in labels])
    return table, truth, mask


def expected_hits(better: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """How likely each item is among the first `k`: `better` others stand above it, and `tied` ones, itself included, with it."""
    return np.clip(k - better, 0, tied) / tied


def expected_gain(better: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(1 + rank) of each item, 0 past `k`, as expected over the order of those tied. Arguments as in `expected_hits`."""
    gains = _gains(k)
    return (gains[np.minimum(better + tied, k)] - gains[np.minimum(better, k)]) / tied


def _gains(k: int) -> np.ndarray:
    """Gains of the first 0, 1, ... k ranks together, (k + 1,)."""
    return np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])


def _reciprocal_rank(better: np.ndarray, group: np.ndarray, hits: np.ndarray, k: int) -> np.ndarray:
    """Expected 1 / rank of the first of `hits` positives in a tied group that starts after `better` others."""
    total = np.zeros(len(group))
    none_so_far = np.ones(len(group))  # probability that no earlier position of the group holds a positive
    for step in range(1, k + 1):
        chance = np.minimum(hits / np.maximum(group - step + 1, 1), 1)
        rank = better + step
        total += np.where(rank <= k, none_so_far * chance / rank, 0)
        none_so_far *= 1 - chance
    return total


def checked(scores, labels, mask, what: str = "scores") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validate scores, labels and mask, and return them as arrays of float, bool and bool.

    Raises ValueError as `per_user` does; `what` names the scores in messages.
    """
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
        (
            mask & ~np.isfinite(scores),
            f"{what} must be finite; leave a cell without a candidate out, by `mask` or a shorter list",
        ),
        (labels & ~mask, "a positive stands where `mask` says there is no candidate"),
        (~labels.any(1, keepdims=True), "no positive, so its rank is undefined; leave the user out"),
        (~(mask & ~labels).any(1, keepdims=True), "no negative, so there is nothing to rank against; leave it out"),
    ):
        if broken.any():
            raise ValueError(f"User in row {np.argmax(broken.any(1))} ({broken.any(1).sum()} such users): {why}.")
    return scores, labels, mask


def calibration_gaps(probabilities: np.ndarray, labels: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Sums of probability - label, (users, BINS), over equal-width bins of flat probabilities; `user` is the row index of each.

    The expected calibration error is the sum over bins of |sum over users|, divided by the number of candidates. It is valid only
    for the share of positives in `labels`: with 20 negatives per user, 1 in 21.

    Reference:
        Guo et al., On calibration of modern neural networks (arXiv 1706.04599), here for the answer yes alone.
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("Probabilities must lie from 0 to 1. Log-odds become probabilities by the logistic function.")
    cell = user * BINS + np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return np.bincount(cell, probabilities - labels, (np.max(user) + 1) * BINS).reshape(-1, BINS)
