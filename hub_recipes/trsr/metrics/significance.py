"""Statistics over users: bootstrap intervals, paired tests, and `evaluate`, all metrics with their intervals.

Takes arrays and returns numbers, as `ranking` does; the seed of every resampling is passed in.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trsr.metrics.ranking import calibration_gaps, checked, per_user

_CELLS = 2_000_000  # of one chunk of resamples, which bounds memory


def summary(
    values: Mapping[str, ArrayLike], seed: int, resamples: int = 1000, users: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Mean of each metric over rows, `value`, and its 95% percentile bootstrap interval, `low` and `high`.

    Args:
        values: Metric -> (rows,). All metrics share the resamples.
        users: User id of each row. Users are resampled with all of their rows, because rows of one user are not
            independent. Without it, each row is a user.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)  # (users, metrics)
    if not table.size or not np.isfinite(table).all():
        raise ValueError(f"Expected finite values of at least one user, got an array {table.shape}.")
    # Relative to the first user, so that a value that all users share is exact.
    shifted = table - table[0]
    means = table[0] + shifted.mean(0)
    rows = _by_user(np.ones((len(table), 1)), users)  # (users, 1)
    counts = _resampled(rows, seed, resamples) if len(rows) < len(table) else len(table)
    drawn = table[0] + _resampled(_by_user(shifted, users), seed, resamples) / counts  # (resamples, metrics)
    return {name: _interval(means[column], drawn[:, column]) for column, name in enumerate(values)}


def _by_user(columns: np.ndarray, users: Sequence[str] | None) -> np.ndarray:
    """Sums of (rows, m) `columns` over each user's rows, (users, m), in the order of first occurrence."""
    index_of = {user: index for index, user in enumerate(dict.fromkeys(users))} if users is not None else {}
    if users is None or len(index_of) == len(columns):
        return columns
    owner = [index_of[user] for user in users]
    return np.stack([np.bincount(owner, column) for column in columns.T], axis=1)


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


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    seed: int = 0,
    users: Sequence[str] | None = None,
) -> dict[str, object]:
    """All metrics of one system: `n_users`, `n_candidates` (a row, the mean), and value, low and high of each metric.

    Args:
        scores: (rows, candidates); without `users`, a row is a user.
        probabilities: (rows, candidates); adds `ece`. Its interval leans upward, since resampling adds noise to bins.
        seed: Of the bootstrap.
        users: Of the rows, as `summary` takes them.

    Raises:
        ValueError: As `per_user` and `calibration_gaps` do.
    """
    scores, labels, mask = checked(scores, labels, mask)
    counts = mask.sum(1)
    results: dict[str, object] = {
        "n_users": len(scores) if users is None else len(set(users)),
        "n_candidates": float(counts.mean()),
    }
    results |= summary(per_user(scores, labels, mask), seed, users=users)
    if probabilities is not None:
        checked_probabilities, _, _ = checked(probabilities, labels, mask, "probabilities")
        gaps = calibration_gaps(checked_probabilities[mask], labels[mask], np.nonzero(mask)[0])
        columns = _by_user(np.column_stack([gaps, counts]), users)
        sums = np.vstack([columns.sum(0), _resampled(columns, seed, 1000)])  # the observed sum, then the resamples
        errors = np.abs(sums[:, :-1]).sum(1) / sums[:, -1]
        results["ece"] = _interval(errors[0], errors[1:])
    return results


def paired_test(
    a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 10_000, users: Sequence[str] | None = None
) -> dict[str, float]:
    """Compare two systems on the same users.

    Args:
        a: (rows,) a metric of one system.
        b: (rows,) the same metric of the other, rows in the same order.
        users: Of the rows, as `summary` takes them.

    Returns:
        `difference` (mean of a - b), its 95% bootstrap interval `low` and `high`, and `p_value`: two-sided, from random
        sign flips of the users' differences, never below 1 / (resamples + 1).
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or not a.size or a.shape != b.shape:
        raise ValueError(f"Expected one value a user from both systems, got {a.shape} and {b.shape}.")
    difference = a - b
    interval = summary({"difference": difference}, seed, users=users)["difference"]
    difference = _by_user(difference[:, None], users)[:, 0]  # (users,)
    # Sums that are equal mathematically may differ in their last bits.
    bound = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    random = np.random.default_rng(seed)
    flips = (random.integers(2, size=(size, len(difference))) * 2 - 1 for size in _chunks(len(difference), resamples))
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


def paired_tests(
    values: Mapping[str, ArrayLike],
    pairs: Iterable[tuple[str, str]],
    metric: str,
    seed: int,
    users: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """`paired_test` of pairs of systems, one family: each with `metric`, `system`, `against` and `p_holm`.

    Args:
        values: System -> (rows,) its values of the metric.
        pairs: System, and the one that it is tested against.
        metric: Its name.
    """
    return with_holm(
        [
            {"metric": metric, "system": system, "against": against}
            | paired_test(values[system], values[against], seed, users=users)
            for system, against in pairs
        ]
    )


def with_holm(tests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tests of one family, each with `p_holm`, its `p_value` corrected over all of them."""
    adjusted = holm([test["p_value"] for test in tests])
    return [{**test, "p_holm": p} for test, p in zip(tests, adjusted, strict=True)]
