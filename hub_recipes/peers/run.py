"""Tune a peer on validation, fit it with several seeds, and write its figures as `trsr evaluate` and `trsr retrieve` do."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peers.fitted import METRIC, Budget
from peers.material import ASKED, ORDER, Material, load
from peers.search import Trial, search
from peers.table import PEERS
from trsr.dataset.candidates import Candidates
from trsr.errors import TrainError, UsageError
from trsr.recommender import scores as score_files
from trsr.recommender.results import RESULTS_FILE
from trsr.records.checksums import dataset_checksum
from trsr.records.files import bind, read_json
from trsr.records.versions import versions
from trsr.retrieval import catalogue
from trsr.retrieval.evaluate import write_evaluation

STUDIES = "studies.sqlite3"


@dataclass(frozen=True, slots=True)
class Fit:
    """What one fit gave and took.

    Attributes:
        validation: METRIC of validation users.
        scores: (dataset, split) -> scores of its candidates (rows, candidates).
        measured: (dataset, split) -> its rows on the catalogue.
        record: What fitting found out.
        cost: Of fitting and all scoring, as `scores.cost`, in a process in which nothing else ran.
        costs: (dataset, split) -> `train_seconds`, and the cost of scoring its candidates.
    """

    validation: float
    scores: Mapping[tuple[str, str], np.ndarray]
    measured: Mapping[tuple[str, str], catalogue.Measured]
    record: Mapping[str, Any]
    cost: Mapping[str, float]
    costs: Mapping[tuple[str, str], Mapping[str, float]]


def fit(name: str, sources: Sequence[str], settings: dict[str, Any], seed: int, budget: Budget) -> Fit:
    """Fit a peer and score all that is asked, in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as alone:
        return alone.submit(_fit, name, sources, settings, seed, budget).result()


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a fit whose search was killed would go on for minutes."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _fit(name: str, sources: Sequence[str], settings: dict[str, Any], seed: int, budget: Budget) -> Fit:
    material = load(sources)
    began = time.process_time()
    fitted = PEERS[name].fit(material, settings, seed, budget)
    train_seconds = round(time.process_time() - began, 2)
    numbers = material.numbers
    scores, costs = {}, {}
    for key, rows in material.asked.items():
        candidates, scoring = Candidates.of(rows, ORDER), time.process_time()
        scores[key] = catalogue.on_candidates(fitted.score, candidates, numbers)
        costs[key] = {"train_seconds": train_seconds, **score_files.cost(scoring)}
    cost = score_files.cost(began)
    measured = {
        key: catalogue.measure({name: fitted.score}, rows, numbers, material.counts)[name]
        for key, rows in material.asked.items()
    }
    reached = float(measured[sources[0], "validation"].per_user[METRIC].mean())
    return Fit(reached, scores, measured, fitted.record, cost, costs)


def run(
    name: str,
    sources: Sequence[str],
    out: Path,
    *,
    budget: Budget,
    seeds: Sequence[int],
    tuned: Mapping[str, Any] | None = None,
) -> None:
    """Tune a peer on validation and write `out`/DATASET/PEER-SEED and PEER-SEED-validation for each dataset and seed.

    The search looks at validation users over the catalogue, whatever the negatives. With a larger budget it goes on from what
    was tried.

    Args:
        seeds: The first one is that of the search; peers without randomness have no other.
        tuned: What an earlier search of this peer on this data has on record: nothing is searched, and its settings are fitted.

    Raises:
        UsageError: If `tuned` is of other data, or `out` holds anything else.
    """
    data = {Path(source).name: dataset_checksum(source, configs=("items", "histories")) for source in sources}
    searched_on = data[Path(sources[0]).name]
    if tuned and not tuned["study"].endswith(searched_on):
        raise UsageError(
            f"The settings of {name} on record were searched on other data: {tuned['study']}; {sources[0]} is {searched_on}. Search "
            "again, without --tuned."
        )
    # Further seeds, peers and trials may be added later; the first seed is that of the search.
    made_from = {"datasets": data, "first_seed": seeds[0]}
    if out.exists():
        bind(out, made_from)
    peer = PEERS[name]
    budget = Budget(**tuned["budget"]) if tuned else budget
    folders = {
        (source, seed): out / Path(source).name / f"{name}-{seed}"
        for source in sources
        for seed in (seeds if peer.seeded else seeds[:1])
    }
    if all(_finished(folder, budget, tuned) for folder in folders.values()):
        print(f"{name}: finished before", flush=True)
        return
    material = load(sources)
    bind(out, made_from)
    fits: dict[tuple[str, int], Fit] = {}

    def fitted(settings: dict[str, Any], seed: int) -> Fit:
        key = json.dumps(settings, sort_keys=True), seed
        if key not in fits:
            fits[key] = fit(name, sources, settings, seed, budget)
        return fits[key]

    tuning = tuned or _search(name, out / STUDIES, searched_on, budget, seeds[0], fitted)
    for (source, seed), folder in folders.items():
        peer_fit = fitted(tuning["chosen"], seed)
        of_fit = {"seed_of_fit": seed if peer.seeded else None, f"validation_{METRIC}": round(peer_fit.validation, 5)}
        for split in ASKED:  # the test split is last: with it the peer is finished
            written = folder if split == "test" else folder.with_name(f"{folder.name}-{split}")
            results = _write(written, name, peer_fit, source, split, material, {**tuning, **of_fit})
        reached = [results[part]["systems"][name] for part in ("candidates", "catalogue")]
        print(
            f"{folder}: test recall@3 {reached[0]['recall@3']['value']:.3f}, on the catalogue recall@10 "
            f"{reached[1]['recall@10']['value']:.3f}",
            flush=True,
        )


def records(file: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What searches of peers have on record in a file of figures on a catalogue, by peer.

    Raises:
        UsageError: If it holds none of one of the peers.
    """
    about = read_json(file)
    tuning = about.get("tuning") or {}
    if "chosen" in tuning:  # of one peer
        tuning = {about["run"]: tuning}
    if missing := [name for name in names if name not in tuning]:
        raise UsageError(
            f"{file} has no search of {', '.join(missing)} on record, but of {', '.join(tuning) or 'none'}. Give --peers, or search."
        )
    return {name: tuning[name] for name in names}


def _search(
    name: str, storage: Path, data: str, budget: Budget, seed: int, fitted: Callable[[dict[str, Any], int], Fit]
) -> dict[str, Any]:
    """Search a peer's settings on data of that checksum; returns the record of the search."""
    space = PEERS[name].space
    values = {setting: list(values) for setting, values in space.items()}
    study = f"{name}, {budget.epochs} epochs, patience {budget.patience}, of {json.dumps(values)}, on {data}"

    def evaluate(settings: dict[str, Any]) -> Trial:
        peer_fit = fitted(settings, seed)
        print(
            f"{name}: {json.dumps(settings)}: {METRIC} {peer_fit.validation:.4f}, {peer_fit.cost['cpu_seconds']} s",
            flush=True,
        )
        return Trial(settings, peer_fit.validation, {**peer_fit.record, **peer_fit.cost})

    trials = search(storage, study, space, budget, seed, evaluate)
    finished = [(trial.value, trial) for trial in trials if trial.value is not None]
    if not finished:
        raise TrainError(f"{name}: no settings that were tried could be fitted; why stands above.")
    return {
        "study": study,
        "sampler": "optuna TPE",
        "budget": asdict(budget),
        "cpu_seconds": round(sum(trial.about["cpu_seconds"] for trial in trials), 1),
        "space": values,
        "seed": seed,
        "metric": METRIC,
        "trials": [
            {"settings": trial.settings, f"validation_{METRIC}": round(value, 5), **trial.about}
            for value, trial in finished
        ],
        "diverged": [{"settings": trial.settings, **trial.about} for trial in trials if trial.value is None],
        "chosen": max(finished, key=lambda pair: pair[0])[1].settings,
    }


def _write(
    folder: Path, name: str, peer_fit: Fit, source: str, split: str, material: Material, tuning: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the figures of one split, as `trsr retrieve evaluate` does."""
    rows = material.asked[source, split]
    about = {
        **score_files.about(source, "histories", split),
        "run": name,
        "seed": ORDER,
        "n_users": len(set(rows["user_id"])),
        "limit": 0,
        "cost": peer_fit.costs[source, split],
        "tuning": tuning,
        "versions": versions("rectools", "implicit", "optuna", "sentence-transformers"),
    }
    return write_evaluation(
        folder,
        Candidates.of(rows, ORDER),
        {name: peer_fit.scores[source, split]},
        {name: peer_fit.measured[source, split]},
        material.numbers,
        material.counts,
        about,
    )


def _finished(folder: Path, budget: Budget, tuned: Mapping[str, Any] | None) -> bool:
    """Whether a folder holds figures that took this budget, and have these settings where they were searched before."""
    path = folder / RESULTS_FILE
    tuning = read_json(path).get("tuning", {}) if path.is_file() else {}
    return tuning.get("budget") == asdict(budget) and (not tuned or tuning.get("chosen") == tuned["chosen"])
