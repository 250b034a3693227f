"""Figures of fused systems: how far their parts agree, who gains, and what quality costs where not all users get all parts."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from trsr.metrics.fusion import top_overlap, uncertainty
from trsr.metrics.ranking import per_user
from trsr.metrics.significance import paired_test, summary, with_holm
from trsr.recommender.compare.align import Aligned
from trsr.recommender.compare.fuse import Fused
from trsr.recommender.compare.measure import by_number, seconds_a_user

TOP = (3, 10)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ALL = "all"

Means = Mapping[str, Mapping[str, np.ndarray]]  # system -> metric -> (users,)


def figures(
    fused: Fused, aligned: Aligned, means: Means, metric: str, parts: Mapping[str, Sequence[str]], seed: int
) -> dict[str, Any]:
    """What a comparison says of one sum beside its metrics.

    Args:
        aligned, means: Of all systems, the sum among them.
        parts: Slicing -> slice of each user.
        seed: Of bootstrap and tests.

    Returns:
        `systems`, `train_seeds`, `weights` (system -> one for each of these), `fitted_on`, `seconds_a_user` (system -> CPU seconds;
        None if not recorded), `overlap`, `gains` and `curve`.
    """
    users = len(set(aligned.owners))
    seconds = {name: seconds_a_user(name, aligned.about[name], users) for name in fused.systems}
    return {
        "systems": list(fused.systems),
        "train_seeds": fused.train_seeds,
        "weights": {name: [float(w[number]) for w in fused.weights] for number, name in enumerate(fused.systems)},
        "fitted_on": fused.fitted_on,
        "seconds_a_user": seconds,
        "overlap": _overlap(fused, aligned.mask),
        "gains": _gains(fused, means, metric, parts, aligned.owners, seed),
        "curve": _curve(fused, aligned, seconds, metric, seed),
    }


def _overlap(fused: Fused, mask: np.ndarray) -> list[dict[str, Any]]:
    """Pairs of parts with the mean share of common items among their first ones, `chance` being that of random orders."""
    counts = mask.sum(1)
    overlaps = []
    for first, second in combinations(range(len(fused.systems)), 2):
        for k in TOP:
            shares = [top_overlap(scores[first], scores[second], mask, k).mean() for scores in fused.scores]
            overlaps.append(
                {
                    "systems": [fused.systems[first], fused.systems[second]],
                    "top": k,
                    "shared": float(np.mean(shares)),
                    "chance": float((np.minimum(k, counts) / counts).mean()),
                }
            )
    return overlaps


def _gains(
    fused: Fused, means: Means, metric: str, parts: Mapping[str, Sequence[str]], owners: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """For all users and each slice: the part that is best there by itself, and the sum's paired difference to it.

    The best part is chosen by the same test users, which favours it. `p_holm` is corrected over all rows.
    """
    groups = [(ALL, ALL, np.ones(len(owners), bool))]
    for slicing, labels in parts.items():
        table = np.array(labels)
        groups += [(slicing, part, table == part) for part in sorted(set(labels), key=by_number)]
    rows: list[dict[str, Any]] = []
    for slicing, part, inside in groups:
        best = max(fused.systems, key=lambda name: means[name][metric][inside].mean())
        users = [owner for owner, chosen in zip(owners, inside, strict=True) if chosen]
        test = paired_test(means[fused.name][metric][inside], means[best][metric][inside], seed, users=users)
        rows.append({"slicing": slicing, "part": part, "n_users": len(set(users)), "best": best, **test})
    return with_holm(rows)


def _curve(
    fused: Fused, aligned: Aligned, seconds: Mapping[str, float | None], metric: str, seed: int
) -> dict[str, Any] | None:
    """Quality and CPU time where the expensive part is added for some users only: those about whom the others are least sure.

    How sure they are is the entropy of the softmax of their sum, with the weights fitted without the expensive part. No
    label of the test split plays a role. `random` is what as many users drawn at random would give. None unless the time of
    two parts is recorded.
    """
    if fused.expensive is None or sum(value is not None for value in seconds.values()) < 2:
        return None  # nothing to weigh against each other
    by_share: dict[float, list[np.ndarray]] = {share: [] for share in SHARES}
    for scores, weights, without in zip(fused.scores, fused.weights, fused.without_expensive, strict=True):
        cheap, full = (np.tensordot(w, scores, 1) for w in (without, weights))
        order = np.argsort(-uncertainty(cheap, aligned.mask), kind="stable")
        values = [per_user(table, aligned.labels, aligned.mask)[metric] for table in (cheap, full)]
        for share, seeds in by_share.items():
            added = np.zeros(len(order), bool)
            added[order[: round(share * len(order))]] = True
            seeds.append(np.where(added, values[1], values[0]))
    means = {str(share): np.mean(seeds, axis=0) for share, seeds in by_share.items()}
    intervals = summary(means, seed, users=aligned.owners)
    start, end = (intervals[str(share)]["value"] for share in (SHARES[0], SHARES[-1]))
    others = [name for name in fused.systems if name != fused.expensive]
    base, extra = sum(seconds[name] or 0.0 for name in others), seconds[fused.expensive] or 0.0
    return {
        "metric": metric,
        "first": others,
        "added": fused.expensive,
        "not_recorded": [name for name in others if seconds[name] is None],
        "points": [
            {
                "share": share,
                "seconds_a_user": base + share * extra,
                **intervals[str(share)],
                "random": start + share * (end - start),
            }
            for share in SHARES
        ],
    }
