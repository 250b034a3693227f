"""Compute the figures of a method from the measures of its summaries, and warnings from the figures. Reads no files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trsr.metrics.significance import paired_test

UNSUPPORTED = 0.5  # a summary with a larger share of unsupported content words is counted
COPIED = 0.5  # a summary with a larger share of its word 4-grams in one item is a near-copy
CLEAR = 0.05  # smallest difference from the control, the history of another user, that counts as clear
TOO_MANY = 0.05  # share of summaries above which there is a warning


def figures(
    columns: Mapping[str, Sequence[float]], digests: np.ndarray, owners: np.ndarray, seed: int
) -> dict[str, Any]:
    """The figures of a method.

    Args:
        columns: Measure -> values (summaries,), nan if it does not apply.
        digests: (summaries,) equal for summaries of equal text.
        owners: (summaries,) equal for summaries of one user, who may have several rows.
    """
    table = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    words, history_words = table["words"], table["history_words"]
    order = np.lexsort([owners, digests])
    texts, users = digests[order], owners[order]
    shared = texts[1:][(texts[1:] == texts[:-1]) & (users[1:] != users[:-1])]  # texts that two users have
    return {
        "summaries": len(words),
        "words": _spread(words),
        "compression": _spread(history_words[words > 0] / words[words > 0]),
        "coverage": _controlled(table["coverage"], table["coverage_of_another"], seed),
        "unsupported": {
            **_controlled(table["unsupported"], table["unsupported_of_another"], seed),
            "over": int((table["unsupported"] > UNSUPPORTED).sum()),
        },
        "target_named": _leaks(table["target_named"], table["negative_named"], seed),
        "near_copies": int((table["copied"] > COPIED).sum()),
        "identical": int(np.isin(digests, shared).sum()),
    }


def warnings(audit: Mapping[str, Any]) -> Iterator[str]:
    """The warnings that follow from the figures of an audit, one sentence each."""
    for method, figures_of in audit["methods"].items():
        total = figures_of["summaries"]
        for name, sign in (("coverage", 1), ("unsupported", -1)):
            figure = figures_of[name]
            if figure["difference"] is not None and sign * figure["low" if sign > 0 else "high"] < CLEAR:
                yield (
                    f"{method}: {name} is {figure['mean']:.3f}, and {figure['of_another']:.3f} for another user's history: the "
                    "summaries say little of the user they stand for, or histories are alike."
                )
        leaks = figures_of["target_named"]
        if leaks["difference"] is not None and leaks["low"] > 0:
            yield (
                f"{method}: {leaks['count']:,} summaries name the target and {leaks['of_a_negative']:,} a negative: what "
                "wrote them may have seen the answer."
            )
        for name, what in (
            ("near_copies", "copy most of an item"),
            ("identical", "are another user's too"),
        ):
            if figures_of[name] > TOO_MANY * total:
                yield f"{method}: {figures_of[name]:,} of {total:,} summaries {what}."
        if figures_of["unsupported"]["over"] > TOO_MANY * total:
            yield (
                f"{method}: {figures_of['unsupported']['over']:,} of {total:,} summaries have most of their words neither from "
                "the history nor from the prompt. Read some: they may be invented."
            )
        if figures_of["instructions"]["copied"]:
            yield (
                f"{method}: {figures_of['instructions']['copied']:,} summaries repeat what an item's text orders. Ask another "
                "model, or leave these items out."
            )
        if figures_of["problems"]:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in figures_of["problems"].items())
            yield f"{method}: some texts are no summaries: {reasons}. Run trsr summarize again."
    fallen, calls = sum(audit["fallen_back"].values()), audit["calls"]
    if calls and fallen > TOO_MANY * calls:
        yield f"{min(fallen, calls):,} of {calls:,} calls fell back to the extractive summarizer."


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("median", "p90", "max"))
    median, p90 = np.quantile(values, [0.5, 0.9], method="inverted_cdf")
    return {"median": round(float(median), 2), "p90": round(float(p90), 2), "max": round(float(values.max()), 2)}


def _controlled(own: np.ndarray, another: np.ndarray, seed: int) -> dict[str, Any]:
    """The mean for the users' own histories, the mean for those of other users, and their difference with a 95% interval."""
    measured = own[~np.isnan(own)]
    measured_both = ~np.isnan(own) & ~np.isnan(another)
    mean = round(float(measured.mean()), 4) if len(measured) else None
    if not measured_both.any():
        return {"mean": mean, "summaries": len(measured), **dict.fromkeys(("of_another", "difference", "low", "high"))}
    return {
        "mean": mean,
        "summaries": len(measured),
        "of_another": round(float(another[measured_both].mean()), 4),
        **_difference(own[measured_both], another[measured_both], seed),
    }


def _leaks(target: np.ndarray, negative: np.ndarray, seed: int) -> dict[str, Any]:
    """How many summaries name the target and how many a negative, and the difference, over users with a negative."""
    measured_both = ~np.isnan(negative)
    counted = {"count": int(target.sum()), "of_a_negative": int(negative[measured_both].sum())}
    if not measured_both.any():
        return {**counted, **dict.fromkeys(("difference", "low", "high"))}
    return {**counted, **_difference(target[measured_both], negative[measured_both], seed)}


def _difference(own: np.ndarray, other: np.ndarray, seed: int) -> dict[str, float]:
    tested = paired_test(own, other, seed, resamples=1)
    return {name: round(tested[name], 4) for name in ("difference", "low", "high")}
