"""Aligned systems -> figures: intervals over users, means over seeds, paired tests, slices, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from trsr.errors import CompareError
from trsr.metrics.calibration import balanced_error, reliability
from trsr.metrics.ranking import per_user
from trsr.metrics.significance import holm, paired_test, summary
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
    """System -> `seeds`, `cost`, and for each metric value, low and high, and with several seeds `sd`, their deviation.

    The interval is a bootstrap over users (`owners` of the rows) of each one's mean over seeds: it holds for these users'
    kind, given these seeds; `sd` tells what another seed would change.
    """
    means, found = over_seeds(values), {}
    for name, seeds in values.items():
        figures: dict[str, Any] = {"seeds": len(seeds), "cost": _cost(name, about[name])}
        for metric, interval in summary(means[name], seed, users=owners).items():
            spread = [float(one[metric].mean()) for one in seeds]
            figures[metric] = interval | ({"sd": float(np.std(spread, ddof=1))} if len(seeds) > 1 else {})
        found[name] = figures
    return found


def _cost(name: str, about: Sequence[Mapping]) -> dict[str, float] | None:
    """Mean CPU seconds and largest memory of the seeds; None for a system that was scored beside another's run."""
    costs = [one["cost"] for one in about if _own(name, one) == one["run"] and one.get("cost")]
    if not costs:
        return None
    mean = {
        key: float(np.mean([one[key] for one in costs]))
        for key in ("train_seconds", "cpu_seconds")
        if all(one.get(key) is not None for one in costs)
    }
    return mean | {"peak_mib": max(one["peak_mib"] for one in costs)}


def paired(
    means: Mapping[str, Mapping[str, np.ndarray]],
    metric: str,
    owners: Sequence[str],
    seed: int,
    against: str | None = None,
) -> list[dict[str, Any]]:
    """Paired tests on one metric, of all pairs or of all against one; `p_holm` is corrected over all that are made.

    Raises:
        CompareError: If there is no system `against`.
    """
    if against is not None and against not in means:
        raise CompareError(f"No system {against!r} to test against; there are {', '.join(means)}.")
    pairs = [(name, against) for name in means if name != against] if against else list(combinations(means, 2))
    tests = [paired_test(means[one][metric], means[other][metric], seed, users=owners) for one, other in pairs]
    adjusted = holm([test["p_value"] for test in tests])
    return [
        {"system": one, "against": other, "metric": metric, **test, "p_holm": p}
        for (one, other), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def sliced(
    means: Mapping[str, Mapping[str, np.ndarray]],
    metric: str,
    parts: Mapping[str, Sequence[str]],
    owners: Sequence[str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Slicing -> part -> `n_users` and, for each system, value, low and high of the metric."""
    found: dict[str, dict[str, Any]] = {}
    for slicing, labels in parts.items():
        table = np.array(labels)
        found[slicing] = {}
        for part in sorted(set(labels), key=_numbered):
            inside = table == part
            values = {name: one[metric][inside] for name, one in means.items()}
            users = [owner for owner, kept in zip(owners, inside, strict=True) if kept]
            found[slicing][part] = {"n_users": len(set(users)), "systems": summary(values, seed, users=users)}
    return found


def _numbered(part: str) -> tuple[float, str]:
    first = part.split()[0]
    return (float(first), part) if first.replace(".", "", 1).isdigit() else (0.0, part)


def calibration(aligned: Aligned, fits: Mapping[str, Sequence[Mapping | None]]) -> dict[str, dict[str, Any]]:
    """Balanced calibration error and reliability bins of the systems that give log-odds.

    Args:
        fits: System -> temperature (`value`) and `bias` of each seed, None where they are not known.

    Returns:
        System -> `before` with `ece` and `bins`; with all fits known `after` too, with `temperatures` and `biases`. Errors
        are means over seeds; the bins are of the first seed.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, seeds in aligned.seeds.items():
        if not all("ece" in one["systems"].get(_own(name, one), {}) for one in aligned.about[name]):
            continue
        found[name] = {"before": _step(aligned, seeds, [(1.0, 0.0)] * len(seeds))}
        known = [(fit["value"], fit.get("bias", 0.0)) for fit in fits.get(name, []) if fit]
        if len(known) == len(seeds):
            temperatures, biases = zip(*known, strict=True)
            found[name] |= {
                "after": _step(aligned, seeds, known), "temperatures": list(temperatures), "biases": list(biases),
            }  # fmt: skip
    return found


def _own(name: str, about: Mapping) -> str:
    """A system's name in its results file, which NAME=FOLDER may have changed."""
    return name if name in about["systems"] else about["run"]


def _step(aligned: Aligned, seeds: Sequence[np.ndarray], fits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    mask = aligned.mask
    made = [
        reliability(scores[mask], aligned.labels[mask], temperature, bias=bias)
        for scores, (temperature, bias) in zip(seeds, fits, strict=True)
    ]
    return {"ece": float(np.mean([balanced_error(bins) for bins in made])), "bins": [asdict(one) for one in made[0]]}
