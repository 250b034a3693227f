"""Fuse systems: a weight for the normalised scores of each, fitted on the validation split, and the sum as one more system.

Never reads a label of the test split.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trsr.errors import CompareError
from trsr.metrics.fusion import fit_weights, normalise
from trsr.recommender.compare.align import Aligned, Evaluation, align, check_same, on_shared_users, read_folder
from trsr.recommender.compare.measure import cost, is_own, seconds_a_user, total
from trsr.recommender.results import RESULTS_FILE, same_settings, training_seed
from trsr.recommender.system_names import fused_name
from trsr.records.checksums import PREFIX

CONTROLS = ("shuffled_summaries", "history")
# What the evaluations of one run on two splits have in common, as results.json records it, beside the settings.
SAME = ("dataset", "dataset_checksums", "run", "config", "weights", "retriever", *CONTROLS)


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A sum of systems.

    Attributes:
        name: Of the sum, among the compared systems.
        systems: Names of its parts, sorted.
        scores: For each seed, the normalised test scores (systems, users, candidates).
        weights: For each seed, (systems,).
        train_seeds: Of the training of the parts, for each of `weights`; None where they differ or none is on record.
        expensive: The part whose scoring takes the most CPU time; None where no part's is recorded.
        without_expensive: For each seed, weights (systems,) of the sum of the other parts, fitted without it; 0 for it.
        fitted_on: Split, number of users, and checksum of what the weights were fitted on.
    """

    name: str
    systems: tuple[str, ...]
    scores: list[np.ndarray]
    weights: list[np.ndarray]
    train_seeds: list[int | None]
    expensive: str | None
    without_expensive: list[np.ndarray]
    fitted_on: dict[str, Any]


def fuse(
    aligned: Aligned, evaluations: Sequence[Evaluation], groups: Sequence[Sequence[str]], *, shared: bool = False
) -> list[Fused]:
    """Fit one sum for each group of systems.

    Args:
        evaluations: Of the test split, of which `aligned` was made.
        groups: Names of systems; an empty group stands for all runs that were evaluated, without the baselines beside them.
        shared: Fit on the validation users that all evaluations hold; else they must hold the same ones.

    Raises:
        CompareError: If a group has fewer than two systems or an unknown one, its systems have different seeds, or there is no
            evaluation of the same run on the validation split.
    """
    if evaluations[0].about["split"] == "validation":
        raise CompareError(
            "Weights are fitted on the validation split, and these are its evaluations: give those of the test split."
        )
    own = [name for name in aligned.seeds if any(evaluation.own == name for evaluation in evaluations)]
    chosen = [tuple(sorted(set(group or own))) for group in groups]
    for names in chosen:
        if unknown := [name for name in names if name not in aligned.seeds]:
            raise CompareError(f"No system {unknown[0]!r} to fuse; there are {', '.join(aligned.seeds)}.")
        if len(names) < 2:
            raise CompareError(
                f"Fusing takes two systems at least, got {', '.join(names)}. Name more, or give more folders."
            )
    used = [
        evaluation
        for evaluation in evaluations
        if any(evaluation.about is about for names in chosen for name in names for about in aligned.about[name])
    ]
    validations = dict(zip([id(evaluation.about) for evaluation in used], _validations(used, shared), strict=True))
    return [_fit(aligned, names, validations) for names in dict.fromkeys(chosen)]


def with_fused(aligned: Aligned, fusions: Sequence[Fused]) -> Aligned:
    """The compared systems, and the sums among them."""
    seeds, about = dict(aligned.seeds), dict(aligned.about)
    for fused in fusions:
        seeds[fused.name] = [np.tensordot(w, scores, 1) for w, scores in zip(fused.weights, fused.scores, strict=True)]
        parts = [costs for name in fused.systems if (costs := cost(name, aligned.about[name]))]
        known = total(parts) if len(parts) == len(fused.systems) else None
        record: dict[str, Any] = {"run": fused.name, "systems": {fused.name: {}}, "cost": known}
        about[fused.name] = [{**record, "train_seed": trained_with} for trained_with in fused.train_seeds]
    return replace(aligned, seeds=seeds, about=about)


def _fit(aligned: Aligned, names: tuple[str, ...], validations: Mapping[int, Aligned]) -> Fused:
    """Fit the sum of some systems, seed by seed."""
    users = len(set(aligned.owners))
    seconds = {name: seconds_a_user(name, aligned.about[name], users) for name in names}
    timed = {name: value for name, value in seconds.items() if value is not None}
    expensive = max(timed, key=timed.__getitem__) if timed else None
    validation = next(iter(validations.values()))  # all of them hold the same users and candidates
    digest = hashlib.sha256()
    scores, weights, train_seeds, without = [], [], [], []
    for numbers in matched_seeds({name: aligned.about[name] for name in names}):
        parts = [
            (validations[id(aligned.about[name][number])], aligned.seeds[name][number], name)
            for name, number in zip(names, numbers, strict=True)
        ]
        if lacking := [name for validated, _, name in parts if name not in validated.seeds]:
            raise CompareError(
                f"The evaluation on validation has no scores of {', '.join(lacking)}. Make it again: the command of the one on test, "
                "with --split validation."
            )
        tables = [validated.seeds[name][0] for validated, _, name in parts]
        digest.update(json.dumps([validation.users, validation.targets, names]).encode())
        digest.update(np.stack([validation.labels, validation.mask, *tables]).tobytes())
        features = np.stack([normalise(table, validation.mask) for table in tables])
        weights.append(fit_weights(features, validation.labels, validation.mask))
        of_parts = [(name, aligned.about[name][number]) for name, number in zip(names, numbers, strict=True)]
        trained_with = {training_seed(about) for name, about in of_parts if not _deterministic(name, about)}
        train_seeds.append(trained_with.pop() if len(trained_with) == 1 else None)
        others = np.array([name != expensive for name in names])
        fitted = np.zeros(len(names))
        fitted[others] = fit_weights(features[others], validation.labels, validation.mask)
        without.append(fitted)
        scores.append(np.stack([normalise(table, aligned.mask) for _, table, _ in parts]))
    fitted_on = {
        "split": "validation",
        "n_users": len(set(validation.owners)),
        "checksum": PREFIX + digest.hexdigest(),
    }
    return Fused(fused_name(names), names, scores, weights, train_seeds, expensive, without, fitted_on)


def matched_seeds(about: Mapping[str, Sequence[Mapping]]) -> list[tuple[int, ...]]:
    """For each seed, which evaluation of each system it is. A system without randomness has one, which goes with all seeds.

    Args:
        about: System -> results of its evaluations, one a seed.

    Raises:
        CompareError: If the seeds of their training differ, or are not recorded.
    """
    if max(map(len, about.values())) == 1:
        return [(0,) * len(about)]
    seeds = {name: [training_seed(record) for record in evaluated] for name, evaluated in about.items()}
    varying = [name for name in about if not _deterministic(name, about[name][0])]
    first = seeds[varying[0]]
    if None in first or any(sorted(map(str, seeds[name])) != sorted(set(map(str, first))) for name in varying):
        shown = "; ".join(f"{name} has {', '.join(map(str, seeds[name]))}" for name in varying)
        raise CompareError(
            f"Systems are fused seed by seed, and the seeds of their training differ or are not recorded: {shown}. Give "
            "evaluations of the same seeds of each, or one evaluation of each."
        )
    return [
        tuple(seeds[name].index(seed) if name in varying else 0 for name in about)
        for seed in sorted(seed for seed in first if seed is not None)
    ]


def _deterministic(name: str, about: Mapping) -> bool:
    """Whether no seed changes the scores: of a baseline beside a run, and of peers that say so."""
    return not is_own(name, about) or ("tuning" in about and training_seed(about) is None)


def _validations(evaluations: Sequence[Evaluation], shared: bool) -> list[Aligned]:
    """The validation scores of each evaluation's run, all of the same candidates."""
    folders = [_validation_folder(evaluation) for evaluation in evaluations]
    if lacking := [evaluation.folder for evaluation, folder in zip(evaluations, folders, strict=True) if not folder]:
        raise CompareError(
            f"Weights are fitted on the validation split, and there is no evaluation on it beside {', '.join(lacking)}. Make it: "
            "the same command with --split validation. If it lies elsewhere: TEST,VALIDATION in place of TEST."
        )
    read = [
        read_folder(folder, evaluation.own) for evaluation, folder in zip(evaluations, folders, strict=True) if folder
    ]
    read = on_shared_users(read) if shared else read
    for evaluation, validated in zip(evaluations, read, strict=True):
        check_validation(evaluation.folder, evaluation.about, validated.folder, validated.about)
        check_same(read[0], validated)
    return [align([validated]) for validated in read]


def check_validation(
    folder: str, about: Mapping, other_folder: str, other: Mapping, same: Sequence[str] = SAME
) -> None:
    """Raise CompareError if an evaluation is not, on validation, of what another one evaluates on test.

    Args:
        folder, about: Of the evaluation on test, and what its results say.
        other_folder, other: Of the one on validation.
        same: Fields in which both have to agree.
    """
    different = differences(about, other, same)
    if other["split"] != "validation":
        different.append(f"the split, which is {other['split']}")
    if different:
        raise CompareError(
            f"{other_folder} is no evaluation on validation of what {folder} evaluates: their results differ in "
            f"{', '.join(different)}. Give the right one: TEST,VALIDATION for trsr compare; or make it again, with --split validation."
        )


def differences(about: Mapping, other: Mapping, same: Sequence[str] = SAME) -> list[str]:
    """What tells that two evaluations are not of one system and dataset; empty where nothing does.

    Args:
        same: Fields of the records that must be equal.
    """
    different = [key for key in same if (about.get(key) or None) != (other.get(key) or None)]
    if not same_settings(about, other):
        different.append("the settings")
    if None not in (seeds := (training_seed(about), training_seed(other))) and seeds[0] != seeds[1]:
        different.append("the seed of training")
    return different


def _validation_folder(evaluation: Evaluation) -> Path | None:
    return Path(evaluation.validation) if evaluation.validation else validation_folder(Path(evaluation.folder))


def validation_folder(folder: Path) -> Path | None:
    """Where the evaluation on validation lies that stands beside one on test, by its folder's name; None if there is none."""
    folder = folder.absolute()
    names = [f"{folder.name}-validation"]
    if folder.name.startswith("test"):
        names = [folder.name.replace("test", "validation", 1), *names, "validation"]
    return next((folder.with_name(name) for name in names if (folder.with_name(name) / RESULTS_FILE).is_file()), None)
