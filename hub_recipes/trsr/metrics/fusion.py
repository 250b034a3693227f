"""Add the scores of several systems: normalise them, fit a weight for each, and say how sure the sum is of its order.

Takes arrays and returns numbers; knows nothing of files, nor of which users the weights are fitted on.
"""

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata

PRIOR = 1.0  # strength of the L2 penalty on the weights: that of a normal prior with standard deviation 1


def normalise(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """z-scores over the candidates of each row, so that systems of any scale can be added.

    Args:
        scores: (rows, candidates).
        mask: (rows, candidates), which cells hold a candidate.

    Returns:
        (rows, candidates) with mean 0 and standard deviation 1 over a row's candidates; 0 in rows whose scores are all
        equal, and where there is no candidate.
    """
    mean, deviation = (part[:, None] for part in moments(scores, mask))
    centred = np.where(mask, scores - mean, 0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def moments(scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (rows,) of each row's scores under a mask; the deviation of equal scores is exactly 0."""
    counts = np.maximum(mask.sum(1), 1)
    mean = np.where(mask, scores, 0).sum(1) / counts
    deviation = np.sqrt((np.where(mask, scores - mean[:, None], 0) ** 2).sum(1) / counts)
    highest = np.where(mask, scores, -np.inf).max(1, initial=-np.inf)
    lowest = np.where(mask, scores, np.inf).min(1, initial=np.inf)
    # Rounding may leave equal scores a deviation.
    return mean, np.where(highest > lowest, deviation, 0.0)


def fit_weights(features: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weights (systems,) that maximise the likelihood of the positives under a softmax of the weighted sum.

    A linear conditional logit with an L2 penalty, by Newton's method: convex, so the result depends on nothing but the
    input. Several positives of a row share its weight.

    Args:
        features: (systems, rows, candidates), normalised scores, 0 where there is no candidate.
        labels: (rows, candidates), True for a positive.
        mask: (rows, candidates), which cells hold a candidate.

    Reference:
        McFadden, Conditional logit analysis of qualitative choice behavior (1974).
    """
    inputs = np.moveaxis(features, 0, -1)  # (rows, candidates, systems)
    flat = inputs.reshape(-1, len(features))
    target = labels / labels.sum(1, keepdims=True)

    def logits(weights: np.ndarray) -> np.ndarray:
        return np.where(mask, inputs @ weights, -np.inf)

    def loss(weights: np.ndarray) -> float:
        likelihood = (target * (inputs @ weights)).sum() - logsumexp(logits(weights), axis=1).sum()
        return float(PRIOR / 2 * weights @ weights - likelihood)

    weights = np.zeros(len(features))
    for _ in range(100):
        probabilities = softmax(logits(weights), axis=1)
        gradient = flat.T @ (probabilities - target).ravel() + PRIOR * weights
        means = (probabilities[..., None] * inputs).sum(1)  # (rows, systems)
        curvature = flat.T @ (probabilities.ravel()[:, None] * flat) - means.T @ means + PRIOR * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() < 1e-9:
            break
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
    return weights


def uncertainty(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Entropy (rows,) of the softmax over each row's candidates, relative to that of a uniform choice: from 0, sure, to 1."""
    probabilities = softmax(np.where(mask, logits, -np.inf), axis=1)
    information = -np.log(np.where(probabilities > 0, probabilities, 1))
    return (probabilities * information).sum(1) / np.log(mask.sum(1))


def top_overlap(first: np.ndarray, second: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Share (rows,) of the first k candidates of one system that are among the first k of the other.

    The expectation, where ties at the border are broken at random.
    """
    size = np.minimum(k, mask.sum(1))
    return (_in_top(first, mask, k) * _in_top(second, mask, k)).sum(1) / size


def _in_top(scores: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Probability (rows, candidates) to be among the first k."""
    falling = np.where(mask, -scores, np.inf)
    rank, last = (rankdata(falling, method, axis=1) for method in ("min", "max"))
    return np.where(mask, np.clip((k + 1 - rank) / (last + 1 - rank), 0, 1), 0)
