"""The verdict on an evaluation in words: which simple baselines the recommender beats or not, and what to do about it.

Reads results files; computes only the paired test against the control with shuffled summaries.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trsr.errors import InputError
from trsr.recommender import results
from trsr.recommender.compare import measure
from trsr.recommender.compare.align import align, read
from trsr.recommender.results import metric_name

SIMPLE = ("popularity", "item-knn", "tf-idf")  # baselines that a useful recommender must beat
METRIC = "recall@3"
LEVEL = 0.05
MANY = 0.1  # share of shortened prompts that is worth a remedy


def of_evaluation(evaluation: Mapping[str, Any], folder: Path) -> str:
    """The verdict on an evaluation, several lines.

    Args:
        evaluation: Content of its results file.
        folder: Where `trsr evaluate` wrote it; a control with shuffled summaries may lie beside it.
    """
    lines = [standing(evaluation["run"], evaluation["systems"], evaluation["paired"])]
    shortened, rows = evaluation.get("shortened", 0), evaluation.get("rows", evaluation["n_users"])
    if shortened:
        lines.append(
            f"{shortened:,} of {rows:,} prompts were shortened: recent items or words of the summary left out."
        )
    if shortened > MANY * rows:
        lines.append(
            "To show them whole: larger max_tokens, fewer recent_items, or shorter items (--field-words and --field-values "
            "of dataset_scripts/tables.py)."
        )
    if evaluation.get("shuffled_summaries"):
        return "\n".join([*lines, "A control: every user was ranked for by the summary of another one."])
    if order := evaluation.get("history"):
        return "\n".join([*lines, f"A control: histories were shown as {order}; summaries stayed as they are."])
    if evaluation.get("summary", "none") != "none":
        lines.append(_summary_effect(folder, evaluation))
    if below := [
        name for name, test in _tests(evaluation["run"], evaluation["paired"]) if name in SIMPLE and sign(test) < 0
    ]:
        lines.append(
            f"As it is, {' and '.join(below)} would serve these users better. What may help: more training users, epochs or "
            "negatives; a base that knows these items (trsr pretrain domain, and more of its --steps); a pretrained language model "
            "as the base (trsr base smollm2)."
        )
    return "\n".join(lines)


def of_comparison(comparison: Mapping[str, Any], system: str) -> str:
    """The verdict on `system` among all that `trsr compare` compared, by p values after Holm's correction."""
    return standing(system, comparison["systems"], comparison["paired"], comparison["metric"])


def standing(
    system: str,
    systems: Mapping[str, Mapping[str, Any]],
    paired: Sequence[Mapping[str, Any]],
    metric: str = METRIC,
) -> str:
    """One sentence: the systems that `system` is above, those it is below, and those without a significant difference.

    Args:
        systems: Name -> metric -> `value`.
        paired: All paired tests of a results file; `p_holm` decides, at .05. Those without `system` say nothing of it.
    """
    parts: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for name, test in _tests(system, paired):
        figures = f"{systems[name][metric]['value']:.3f}; {test['difference']:+.3f}, {test['low']:+.3f} to {test['high']:+.3f}"
        parts[sign(test)].append(f"{name} ({figures})")
    words = {1: "above", -1: "below", 0: "not told apart from"}
    comparisons = "; ".join(f"{words[side]} {', '.join(parts[side])}" for side in (1, -1, 0) if parts[side])
    value = f"{metric_name(metric)} {systems[system][metric]['value']:.3f}"
    return f"Verdict: {system}, {value}, is {comparisons or 'compared with nothing'}."


def _tests(system: str, paired: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """(other system, test with `system` as the first one) for each paired test of `system`."""
    tests: list[tuple[str, Mapping[str, Any]]] = []
    for test in paired:
        if test["system"] == system:
            tests.append((test["against"], test))
        elif test["against"] == system:
            reversed_difference = {"difference": -test["difference"], "low": -test["high"], "high": -test["low"]}
            tests.append((test["system"], {**test, **reversed_difference}))
    return tests


def sign(test: Mapping[str, Any], p_value: str = "p_holm") -> int:
    """1 if the system is significantly better, -1 if it is worse, 0 if the difference is not significant."""
    if test[p_value] >= LEVEL or not test["difference"]:
        return 0
    return 1 if test["difference"] > 0 else -1


def _control_of(folder: Path, evaluation: Mapping[str, Any]) -> Path | None:
    """The evaluation beside `folder` that differs in nothing but that users were ranked for by the summaries of others."""
    same = ("run", "weights", "dataset_checksums", "limit", "split", "seed", "history")
    for path in sorted(folder.resolve().parent.glob(f"*/{results.RESULTS_FILE}")):
        try:
            other = results.load(path.parent)
        except (InputError, OSError):  # what others left beside it is none of ours
            continue
        if (
            isinstance(other, Mapping)
            and other.get("shuffled_summaries")
            and all(other.get(key) == evaluation.get(key) for key in same)
        ):
            return path.parent
    return None


def _summary_effect(folder: Path, evaluation: Mapping[str, Any]) -> str:
    """The effect of summaries: own ones compared with those of other users, if that control was evaluated."""
    unknown = "Whether the summary did anything is not measured yet: the same command with --shuffle-summaries, then this again."
    if (control := _control_of(folder, evaluation)) is None:
        return unknown
    try:
        aligned = align([read(f"own={folder}"), read(f"control={control}")])
    except (InputError, OSError):
        return unknown
    means = measure.over_seeds(measure.each_user(aligned))
    tests = measure.paired(means, METRIC, aligned.owners, 0, "control")
    test = next(test for test in tests if test["system"] == "own")
    figures = f"{metric_name(METRIC)} {test['difference']:+.3f} ({test['low']:+.3f} to {test['high']:+.3f}, p {test['p_value']:.2g})"
    effect = {
        1: "The summary helps",
        -1: "The summary harms",
        0: "The summary did nothing that can be told from chance",
    }
    return f"{effect[sign(test, 'p_value')]}: own summaries against those of other users, {figures}."
