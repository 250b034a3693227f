"""Compare evaluations on one catalogue: means over seeds, paired tests, and scores added with weights that validation gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trsr.errors import ResultsError
from trsr.metrics.fusion import fit_weights
from trsr.metrics.ranking import padded
from trsr.recommender.compare import measure
from trsr.recommender.compare.fuse import validation_folder
from trsr.records.files import read_json
from trsr.records.versions import versions
from trsr.retrieval import ranked
from trsr.retrieval.evaluate import CATALOGUE
from trsr.retrieval.ranked import AT, Lists

SAME = ("dataset", "split", "dataset_checksums", "n_users", "n_items", "limit")


def compare_catalogues(
    folders: Sequence[Path],
    *,
    against: str | None = None,
    fuse: Sequence[Sequence[str]] = (),
    metric: str = "recall@10",
    seed: int = 0,
) -> dict[str, Any]:
    """Systems of all evaluations of one split. Those of one run's name count as its seeds; of baselines beside several, the first.

    Args:
        folders: That `trsr retrieve evaluate` or baselines.py wrote; those of validation are passed over.
        against: Test all others against this system alone; default all pairs.
        fuse: Groups of runs whose scores are added, each sum one more system. Added are z-scores over what the user has not met;
            an item that a system does not have among its first has the lowest of them. The weights are a conditional logit's on
            the evaluations of the validation split, which lie beside.
        metric: Of the tests.
        seed: Of bootstrap and tests.

    Raises:
        ResultsError: If a folder has no figures on a catalogue, they are of other users, items or data, or a run to fuse is unknown
            or has no evaluation on validation.
    """
    found = [(folder, _about(folder)) for folder in folders]
    tested = [(folder, about) for folder, about in found if about["split"] != "validation"]
    if not tested:
        raise ResultsError("Nothing to compare: give folders of evaluations on the test split.")
    first_folder, first = tested[0]
    for folder, about in tested:
        if changed := [name for name in SAME if about[name] != first[name]]:
            raise ResultsError(
                f"{folder} is of another evaluation: its {changed[0]} differs from that of {first_folder}."
            )
    runs: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder, about in tested:
        runs.setdefault(about["run"], []).append((folder, about))
    beside = {
        name: [(folder, about)] for folder, about in reversed(tested) for name in about["systems"] if name not in runs
    }
    every = runs | beside
    lists = {name: [ranked.read(folder, name) for folder, _ in seeds] for name, seeds in every.items()}
    some = lists[first["run"]][0]
    values = {name: [one.metrics for one in seeds] for name, seeds in lists.items()}
    abouts = {name: [about for _, about in seeds] for name, seeds in every.items()}
    weights: dict[str, list[dict[str, float]]] = {}
    for names in fuse:
        if unknown := [name for name in names if name not in runs]:
            raise ResultsError(f"No run {unknown[0]!r} to fuse; there are {', '.join(runs)}.")
        name = f"fused: {' + '.join(names)}"
        values[name], weights[name] = _fused(names, runs, lists)
        abouts[name] = [{"run": name, "systems": {name: {}}, "cost": None}] * len(values[name])
    shared = set.intersection(*(set(seeds[0]) for seeds in values.values()))
    kept = {
        name: [{metric: seed_values[metric] for metric in sorted(shared)} for seed_values in seeds]
        for name, seeds in values.items()
    }
    systems = measure.systems(kept, abouts, some.users, seed)
    for name, seeds in every.items():
        for k in AT:
            systems[name][f"coverage@{k}"] = float(
                np.mean([about["systems"][name][f"coverage@{k}"] for _, about in seeds])
            )
    single = {name: seeds[0][1]["by_target"] for name, seeds in every.items()}  # of the first seed
    by_target = {
        group: {"rows": one["rows"]}
        | ({"systems": {name: own[group]["systems"][name] for name, own in single.items()}} if one["rows"] else {})
        for group, one in first["by_target"].items()
    }
    return {
        **{name: first[name] for name in (*SAME, "protocol", "popularity_of_targets")},
        "seed": seed,
        "metric": metric,
        "systems": systems,
        "paired": measure.paired(measure.over_seeds(kept), metric, some.users, seed, against),
        "by_target": by_target,
        "weights": weights,
        "tuning": {name: seeds[0][1]["tuning"] for name, seeds in runs.items() if "tuning" in seeds[0][1]},
        "versions": versions(),
    }


def _about(folder: Path) -> dict[str, Any]:
    if not (folder / CATALOGUE).is_file():
        raise ResultsError(f"No {CATALOGUE} in {folder}. Make it: trsr retrieve evaluate, or hub_recipes/baselines.py.")
    return read_json(folder / CATALOGUE)


def _validation(folder: Path) -> Path:
    if found := validation_folder(folder):
        return found
    raise ResultsError(
        f"Weights are fitted on the validation split, and there is no evaluation on it beside {folder}. Make it: the same command "
        "with --split validation."
    )


def _fused(
    names: Sequence[str], runs: Mapping[str, Sequence[tuple[Path, Any]]], lists: Mapping[str, Sequence[Lists]]
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, float]]]:
    """Metrics of the sum of some runs, and its weights, for each seed; a run with one seed goes with all."""
    metrics, weights = [], []
    for number in range(max(len(runs[name]) for name in names)):
        chosen = [min(number, len(runs[name]) - 1) for name in names]
        parts = [lists[name][one] for name, one in zip(names, chosen, strict=True)]
        folders = [runs[name][one][0] for name, one in zip(names, chosen, strict=True)]
        known = [ranked.read(_validation(folder), name) for folder, name in zip(folders, names, strict=True)]
        features, labels, mask = _together(known)
        listed = labels.any(1)
        fitted = fit_weights(features[:, listed], labels[listed], mask[listed])
        features, labels, mask = _together(parts)
        metrics.append(ranked.measured(np.tensordot(fitted, features, 1), labels, mask))
        weights.append({name: round(float(weight), 4) for name, weight in zip(names, fitted, strict=True)})
    return metrics, weights


def _together(parts: Sequence[Lists]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (systems, rows, items), labels and mask (rows, items) of all that some system has among its first.

    An item that another system does not have there gets the lowest of its scores. A target that none has is not there.
    """
    rows, labels = [], []
    for target, *own in zip(parts[0].targets, *(part.scores for part in parts), strict=True):
        items = list(dict.fromkeys(item for scores in own for item in scores))
        lowest = [min(scores.values()) for scores in own]
        rows.append([[scores.get(item, low) for item in items] for scores, low in zip(own, lowest, strict=True)])
        labels.append([item == target for item in items])
    tables = [padded(scores, labels) for scores in zip(*rows, strict=True)]
    _, truth, mask = tables[0]
    return np.stack([scores for scores, _, _ in tables]), truth.astype(bool), mask
