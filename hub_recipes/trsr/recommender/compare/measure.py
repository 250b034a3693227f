"""Compute the figures of a comparison: intervals over users, means over seeds, paired tests, slices, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from trsr.errors import CompareError
from trsr.metrics.calibration import balanced_error, reliability
from trsr.metrics.ranking import per_user
from trsr.metrics.significance import paired_tests, summary
from trsr.recommender.compare.align import Aligned

PerUser = dict[str, list[dict[str, np.ndarray]]]  # system -> metrics of each seed, (users,) each


def each_user(aligned: Aligned) -> PerUser:
    """Metrics of every user, system and seed."""
    return {
        name: [per_user(scores, aligned.labels, aligned.mask) for scores in seeds]
        for name, seeds in aligned.seeds.items()
    }


def over_seeds(values: PerUser) -> dict[str, dict[str, np.ndarray]]:
    """System -> metric -> (users,) mean over the seeds."""
    return {
        name: {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in seeds[0]}
        for name, seeds in values.items()
    }


def systems(
    values: PerUser, about: Mapping[str, Sequence[Mapping]], owners: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """System -> `seeds`, `cost`, and for each metric value, low and high, and with several seeds `sd`, the standard deviation over seeds.

    The interval is a bootstrap over users (`owners` of the rows) of their means over seeds: it covers the sampling of users,
    given these seeds; `sd` shows the variation between seeds.
    """
    means, figures_of = over_seeds(values), {}
    for name, seeds in values.items():
        figures: dict[str, Any] = {"seeds": len(seeds), "cost": cost(name, about[name])}
        for metric, interval in summary(means[name], seed, users=owners).items():
            spread = [float(seed_metrics[metric].mean()) for seed_metrics in seeds]
            figures[metric] = interval | ({"sd": float(np.std(spread, ddof=1))} if len(seeds) > 1 else {})
        figures_of[name] = figures
    return figures_of


def cost(name: str, about: Sequence[Mapping]) -> dict[str, float] | None:
    """Mean CPU seconds and largest memory of the seeds; None for a baseline that was scored along with a run."""
    costs = [result["cost"] for result in about if is_own(name, result) and result.get("cost")]
    if not costs:
        return None
    mean = {
        key: float(np.mean([result[key] for result in costs]))
        for key in ("train_seconds", "cpu_seconds")
        if all(result.get(key) is not None for result in costs)
    }
    return mean | {"peak_mib": max(result["peak_mib"] for result in costs)}


def paired(
    means: Mapping[str, Mapping[str, np.ndarray]],
    metric: str,
    owners: Sequence[str],
    seed: int,
    against: str | None = None,
) -> list[dict[str, Any]]:
    """Paired tests on one metric, of all pairs or of all systems against one; `p_holm` is corrected over all these tests.

    Raises:
        CompareError: If there is no system `against`.
    """
    if against is not None and against not in means:
        raise CompareError(f"No system {against!r} to test against; there are {', '.join(means)}.")
    pairs = [(name, against) for name in means if name != against] if against else list(combinations(means, 2))
    values = {name: metrics[metric] for name, metrics in means.items()}
    return paired_tests(values, pairs, metric, seed, owners)


def sliced(
    means: Mapping[str, Mapping[str, np.ndarray]],
    metric: str,
    parts: Mapping[str, Sequence[str]],
    owners: Sequence[str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Slicing -> slice -> `n_users` and, for each system, value, low and high of the metric."""
    slices: dict[str, dict[str, Any]] = {}
    for slicing, labels in parts.items():
        table = np.array(labels)
        slices[slicing] = {}
        for part in sorted(set(labels), key=by_number):
            inside = table == part
            values = {name: metrics[metric][inside] for name, metrics in means.items()}
            users = [owner for owner, is_inside in zip(owners, inside, strict=True) if is_inside]
            slices[slicing][part] = {"n_users": len(set(users)), "systems": summary(values, seed, users=users)}
    return slices


def by_number(part: str) -> tuple[float, str]:
    """Key that sorts slices by the number that their names begin with."""
    first = part.split()[0]
    return (float(first), part) if first.replace(".", "", 1).isdigit() else (0.0, part)


def calibration(aligned: Aligned, fits: Mapping[str, Sequence[Mapping | None]]) -> dict[str, dict[str, Any]]:
    """Balanced calibration error and reliability bins of the systems that give log-odds.

    Args:
        fits: System -> temperature (`value`) and `bias` of each seed, None where there is none.

    Returns:
        System -> `before` with `ece` and `bins`; if all seeds have a fit also `after`, with `temperatures` and `biases`. Errors
        are means over seeds; the bins are of the first seed.
    """
    calibrations: dict[str, dict[str, Any]] = {}
    for name, seeds in aligned.seeds.items():
        if not all("ece" in result["systems"].get(_own(name, result), {}) for result in aligned.about[name]):
            continue
        calibrations[name] = {"before": _step(aligned, seeds, [(1.0, 0.0)] * len(seeds))}
        known_fits = [(fit["value"], fit["bias"]) for fit in fits.get(name, []) if fit]
        if len(known_fits) == len(seeds):
            temperatures, biases = zip(*known_fits, strict=True)
            calibrations[name] |= {
                "after": _step(aligned, seeds, known_fits), "temperatures": list(temperatures), "biases": list(biases),
            }  # fmt: skip
    return calibrations


def seconds_a_user(name: str, about: Sequence[Mapping], n_users: int) -> float | None:
    """Mean CPU seconds that scoring a user took; None where they are not recorded, as for a baseline beside a run, or not apart from
    those of training.

    Args:
        n_users: Compared users, for evaluations that do not record how many they were of.
    """
    costs = cost(name, about) or {}
    if not costs.keys() >= {"train_seconds", "cpu_seconds"}:
        return None
    return costs["cpu_seconds"] / (about[0].get("n_users") or n_users)


def total(parts: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The cost of several systems together, training apart from scoring where it is with all of them; None where none is known."""
    if not parts:
        return None
    apart = all("train_seconds" in part for part in parts)
    spent = {name: sum(part.get(name, 0.0) for part in parts) for name in ("train_seconds", "cpu_seconds")}
    return {
        **(spent if apart else {"cpu_seconds": sum(spent.values())}),
        "peak_mib": max(part["peak_mib"] for part in parts),
    }


def is_own(name: str, about: Mapping) -> bool:
    """Whether a system is the run that was evaluated, and no baseline beside it."""
    return _own(name, about) == about["run"]


def _own(name: str, about: Mapping) -> str:
    """A system's name in its results file, which NAME=FOLDER may have replaced."""
    return name if name in about["systems"] else about["run"]


def _step(aligned: Aligned, seeds: Sequence[np.ndarray], fits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    mask = aligned.mask
    bins_of_seeds = [
        reliability(scores[mask], aligned.labels[mask], temperature, bias=bias)
        for scores, (temperature, bias) in zip(seeds, fits, strict=True)
    ]
    return {
        "ece": float(np.mean([balanced_error(bins) for bins in bins_of_seeds])),
        "bins": [asdict(bucket) for bucket in bins_of_seeds[0]],
    }
