"""Compare evaluations on one catalogue: means over seeds, paired tests, and scores added with weights that validation gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trsr.errors import CompareError
from trsr.metrics.fusion import fit_weights
from trsr.metrics.ranking import padded
from trsr.recommender.compare import fuse as fusing
from trsr.recommender.compare import measure
from trsr.recommender.controls import system_name
from trsr.recommender.results import same_settings, training_seed
from trsr.recommender.system_names import fused_name
from trsr.records.files import read_json
from trsr.records.versions import versions
from trsr.retrieval import ranked
from trsr.retrieval.evaluate import CATALOGUE
from trsr.retrieval.ranked import CUTOFFS, Lists

SAME = ("dataset", "split", "dataset_checksums", "n_users", "n_items", "limit")  # of all that are compared
SEED = 0  # of bootstrap and tests
WITH_VALIDATION = (*fusing.SAME, "n_items")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one folder holds.

    Attributes:
        about: Content of catalogue.json.
        own: Name of the evaluated run; of a control, with the order of its histories.
    """

    folder: Path
    about: Mapping[str, Any]
    own: str

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """Raises CompareError if the folder has no figures on a catalogue."""
        if not (folder / CATALOGUE).is_file():
            raise CompareError(
                f"No {CATALOGUE} in {folder}. Make it: trsr retrieve evaluate, or hub_recipes/baselines.py."
            )
        about = read_json(folder / CATALOGUE)
        return cls(folder, about, system_name(about))

    def name_here(self, system: str) -> str:
        """The name of a system in the folder's files, where the run of a control has its plain name."""
        return self.about["run"] if system == self.own else system

    def figures(self, system: str) -> Mapping[str, Any]:
        return self.about["systems"][self.name_here(system)]

    def lists(self, system: str) -> Lists:
        return ranked.read(self.folder, self.name_here(system))


Systems = Mapping[str, Sequence[Evaluation]]  # system -> an evaluation a seed


def compare_catalogues(
    folders: Sequence[Path],
    *,
    against: str | None = None,
    fuse: Sequence[Sequence[str]] = (),
    metric: str = "recall@10",
) -> dict[str, Any]:
    """Systems of all evaluations of one split. Those of one run with different seeds of its training count as its seeds.

    Args:
        folders: That `trsr retrieve evaluate` or baselines.py wrote; those of validation are passed over.
        against: Test all others against this system alone; default all pairs.
        fuse: Groups of runs whose scores are added, each sum one more system. Added are z-scores over what the user has not met;
            an item that a system does not have among its first has the lowest of them. The weights are a conditional logit's on
            the evaluations of the validation split, which lie beside.
        metric: Of the tests.

    Raises:
        CompareError: If a folder has no figures on a catalogue, they are of other users, items or data, systems of one name are not
            seeds of one run, there is no such metric, or a run to fuse is unknown or has no evaluation on validation.
        ResultsError: If a folder has no lists.
    """
    tested = [evaluation for evaluation in map(Evaluation.read, folders) if evaluation.about["split"] != "validation"]
    if not tested:
        raise CompareError("Nothing to compare: give folders of evaluations on the test split.")
    first = tested[0]
    for evaluation in tested:
        if changed := [name for name in SAME if evaluation.about[name] != first.about[name]]:
            raise CompareError(
                f"{evaluation.folder} is of another evaluation: its {changed[0]} differs from that of {first.folder}."
            )
    runs = _runs(tested)
    listed = {**runs, **_beside(tested, runs)}
    lists = {name: [evaluation.lists(name) for evaluation in seeds] for name, seeds in listed.items()}
    users = lists[first.own][0].users
    values = {name: [seed_lists.metrics for seed_lists in seeds] for name, seeds in lists.items()}
    about = {name: [evaluation.about for evaluation in seeds] for name, seeds in listed.items()}
    weights: dict[str, list[dict[str, float]]] = {}
    for names in fuse:
        if unknown := [name for name in names if name not in runs]:
            raise CompareError(f"No run {unknown[0]!r} to fuse; there are {', '.join(runs)}.")
        name = fused_name(names)
        values[name], weights[name] = _fused({part: runs[part] for part in names}, lists)
        about[name] = [{"run": name, "systems": {name: {}}, "cost": None}] * len(values[name])
    metrics = sorted(set.intersection(*(set(seeds[0]) for seeds in values.values())))
    if metric not in metrics:
        raise CompareError(f"No metric {metric!r}; there are {', '.join(metrics)}.")
    values = {
        name: [{metric: figures[metric] for metric in metrics} for figures in seeds] for name, seeds in values.items()
    }
    systems = measure.systems(values, about, users, SEED)
    for name, seeds in listed.items():
        for k in CUTOFFS:
            systems[name][f"coverage@{k}"] = float(
                np.mean([evaluation.figures(name)[f"coverage@{k}"] for evaluation in seeds])
            )
    return {
        **{name: first.about[name] for name in (*SAME, "protocol", "popularity_of_targets")},
        "seed": SEED,
        "metric": metric,
        "systems": systems,
        "paired": measure.paired(measure.over_seeds(values), metric, users, SEED, against),
        "by_target": _by_target(listed, first),
        "weights": weights,
        "tuning": {name: seeds[0].about["tuning"] for name, seeds in runs.items() if "tuning" in seeds[0].about},
        "versions": versions(),
    }


def _runs(tested: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Run -> its seeds. Raises CompareError if evaluations of one name are not of one run with different seeds."""
    runs: dict[str, list[Evaluation]] = {}
    for evaluation in tested:
        runs.setdefault(evaluation.own, []).append(evaluation)
    for name, evaluated in runs.items():
        seeds = [training_seed(evaluation.about) for evaluation in evaluated]
        for number, evaluation in enumerate(evaluated[1:], 1):
            before = evaluated[0]
            if not same_settings(evaluation.about, before.about):
                problem = f"{before.folder} and {evaluation.folder} are both called {name!r}, and are no two seeds of one run: their settings differ"
            elif seeds[number] is None or seeds[number] in seeds[:number]:
                problem = f"{evaluation.folder} is called {name!r} as another, and the seed of its training is {seeds[number]} in both"
            else:
                continue
            raise CompareError(f"{problem}. Leave one out, or call its run otherwise, and evaluate it anew.")
    return runs


def _beside(tested: Sequence[Evaluation], runs: Systems) -> dict[str, list[Evaluation]]:
    """Systems that were evaluated along with runs; of what stands beside several, the first.

    Raises CompareError if it is not the same beside all.
    """
    beside: dict[str, list[Evaluation]] = {}
    for evaluation in tested:
        for name in evaluation.about["systems"]:
            if name in runs or name == evaluation.about["run"]:
                continue
            [before] = beside.setdefault(name, [evaluation])
            if _values(before.figures(name)) != _values(evaluation.figures(name)):
                raise CompareError(
                    f"{before.folder} and {evaluation.folder} both hold {name!r}, with other figures. Leave one of them out."
                )
    return beside


def _values(figures: Mapping[str, Any]) -> dict[str, float]:
    """Metrics without their intervals, which hang on the seed of an evaluation."""
    return {metric: value["value"] if isinstance(value, Mapping) else value for metric, value in figures.items()}


def _by_target(listed: Systems, first: Evaluation) -> dict[str, dict[str, Any]]:
    """Figures by how often the target was met in training; of several seeds, those of the first."""
    by_target: dict[str, dict[str, Any]] = {}
    for group, about in first.about["by_target"].items():
        by_target[group] = {"rows": about["rows"]}
        if about["rows"]:
            by_target[group]["systems"] = {
                name: seeds[0].about["by_target"][group]["systems"][seeds[0].name_here(name)]
                for name, seeds in listed.items()
            }
    return by_target


def _fused(
    runs: Systems, lists: Mapping[str, Sequence[Lists]]
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, float]]]:
    """Metrics of the sum of some runs, and its weights, for each seed; a run without randomness goes with all."""
    metrics, weights = [], []
    for numbers in fusing.matched_seeds(
        {name: [evaluation.about for evaluation in seeds] for name, seeds in runs.items()}
    ):
        tested = [runs[name][number] for name, number in zip(runs, numbers, strict=True)]
        validations = [_on_validation(evaluation) for evaluation in tested]
        if any(
            (validation.users, validation.targets) != (validations[0].users, validations[0].targets)
            for validation in validations
        ):
            raise CompareError(
                f"The evaluations on validation of {', '.join(runs)} are of different rows: make them anew with one --limit."
            )
        features, labels, mask = union_of_lists(validations)
        has_target = labels.any(1)
        if not has_target.any():
            raise CompareError(
                f"Nothing to fit weights on: {', '.join(runs)} have no target of validation among their first {max(CUTOFFS)} items."
            )
        fitted = fit_weights(features[:, has_target], labels[has_target], mask[has_target])
        features, labels, mask = union_of_lists(
            [lists[name][number] for name, number in zip(runs, numbers, strict=True)]
        )
        metrics.append(ranked.measured(np.tensordot(fitted, features, 1), labels, mask))
        weights.append({name: round(float(weight), 4) for name, weight in zip(runs, fitted, strict=True)})
    return metrics, weights


def _on_validation(tested: Evaluation) -> Lists:
    """The lists of the same run on the validation split, which lie beside those of test."""
    folder = fusing.validation_folder(tested.folder)
    if folder is None:
        raise CompareError(
            f"Weights are fitted on the validation split, and there is no evaluation on it beside {tested.folder}. Make it: the same "
            "command with --split validation."
        )
    validation = Evaluation.read(folder)
    fusing.check_validation(str(tested.folder), tested.about, str(folder), validation.about, WITH_VALIDATION)
    return validation.lists(validation.own)


def union_of_lists(systems: Sequence[Lists]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (systems, rows, items), labels and mask (rows, items) of all that some system has among its first.

    An item that another system does not have there gets the lowest of its scores. A target that none has is not there.
    """
    rows, labels = [], []
    for target, *scores in zip(systems[0].targets, *(system.scores for system in systems), strict=True):
        items = list(dict.fromkeys(item for by_item in scores for item in by_item))
        lowest = [min(by_item.values(), default=0.0) for by_item in scores]
        rows.append([[by_item.get(item, low) for item in items] for by_item, low in zip(scores, lowest, strict=True)])
        labels.append([item == target for item in items])
    tables = [padded(scores, labels) for scores in zip(*rows, strict=True)]
    _, truth, mask = tables[0]
    return np.stack([scores for scores, _, _ in tables]), truth.astype(bool), mask
