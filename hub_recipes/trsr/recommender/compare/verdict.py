"""What an evaluation comes to, in words: above or below the simple peers, and what to do about it.

Reads results files, and computes nothing but the paired test against the control with shuffled summaries.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trsr.errors import CompareError
from trsr.recommender import results
from trsr.recommender.compare import measure
from trsr.recommender.compare.align import align, read
from trsr.recommender.results import metric_name
from trsr.records.files import read_json

SIMPLE = ("popularity", "item-knn", "tf-idf")  # what a recommender has to be above to be of use
METRIC = "recall@3"
CONTROL = "-shuffled"  # end of the name of the folder in which users were ranked for by the summaries of others
LEVEL = 0.05
MANY = 0.1  # share of shortened prompts that is worth a remedy


def of_evaluation(folder: Path) -> str:
    """The verdict on what `trsr evaluate` wrote to `folder`, several lines."""
    found = read_json(folder / results.FILE)
    lines = [standing(found["run"], found["systems"], found["paired"])]
    shortened, rows = found.get("shortened", 0), found.get("rows", found["n_users"])
    if shortened:
        lines.append(
            f"{shortened:,} of {rows:,} prompts were shortened: recent items or words of the summary left out."
        )
    if shortened > MANY * rows:
        lines.append(
            "To show them whole: larger max_tokens, fewer recent_items, or shorter items (--field-words and --field-values "
            "of dataset_scripts/tables.py)."
        )
    if found.get("summary", "none") != "none" and not found.get("shuffled_summaries"):
        lines.append(_summary_effect(folder, found["run"]))
    if below := [name for name, test in _tests(found["run"], found["paired"]) if name in SIMPLE and _sign(test) < 0]:
        lines.append(
            f"As it is, {' and '.join(below)} would serve these users better. Train on more users (train_users=0) or longer "
            "(optim.epochs), with more negatives, or on a base that knows these items: trsr pretrain domain, then trsr train domain."
        )
    return "\n".join(lines)


def of_comparison(found: Mapping[str, Any], system: str) -> str:
    """The verdict on `system` among all that `trsr compare` compared, by p values after Holm's correction."""
    return standing(system, found["systems"], found["paired"], found["metric"], "p_holm")


def standing(
    system: str,
    systems: Mapping[str, Mapping[str, Any]],
    paired: Iterable[Mapping[str, Any]],
    metric: str = METRIC,
    p_value: str = "p_value",
) -> str:
    """One sentence: which others the system is above, which below, and from which it cannot be told apart.

    Args:
        systems: Name -> metric -> `value`.
        paired: Paired tests, of which those count that the system takes part in.
        p_value: Key of the p value that decides, at .05.
    """
    parts: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for name, test in _tests(system, paired):
        figures = f"{systems[name][metric]['value']:.3f}; {test['difference']:+.3f}, {test['low']:+.3f} to {test['high']:+.3f}"
        parts[_sign(test, p_value)].append(f"{name} ({figures})")
    words = {1: "above", -1: "below", 0: "not told apart from"}
    said = "; ".join(f"{words[sign]} {', '.join(parts[sign])}" for sign in (1, -1, 0) if parts[sign])
    value = f"{metric_name(metric)} {systems[system][metric]['value']:.3f}"
    return f"Verdict: {system}, {value}, is {said or 'compared with nothing'}."


def _tests(system: str, paired: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """(the other one, the test seen from `system`) of each test that it takes part in."""
    tests = []
    for test in paired:
        if test["system"] == system:
            tests.append((test["against"], test))
        elif test["against"] == system:
            turned = {"difference": -test["difference"], "low": -test["high"], "high": -test["low"]}
            tests.append((test["system"], {**test, **turned}))
    return tests


def _sign(test: Mapping[str, Any], p_value: str = "p_value") -> int:
    """1 where the system is above, -1 where it is below, 0 where the test cannot tell."""
    if test[p_value] >= LEVEL or not test["difference"]:
        return 0
    return 1 if test["difference"] > 0 else -1


def _summary_effect(folder: Path, system: str) -> str:
    """What the summary is worth: own summaries against those of other users, where that control was run."""
    control = folder.with_name(folder.name + CONTROL)
    unknown = (
        "Whether the summary did anything is not measured yet: trsr evaluate RUN --shuffle-summaries, then this again."
    )
    if not (control / results.FILE).is_file():
        return unknown
    own, other = read_json(folder / results.FILE), read_json(control / results.FILE)
    if any(own.get(key) != other.get(key) for key in ("weights", "dataset_checksums", "limit", "split")):
        return unknown
    try:
        aligned = align([read(f"own={folder}"), read(f"control={control}")])
    except CompareError:
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
    return f"{effect[_sign(test)]}: own summaries against those of other users, {figures}."
