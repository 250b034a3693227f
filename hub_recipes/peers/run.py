"""Tune a peer on validation, fit it with several seeds, and write its figures as `trsr evaluate` and `trsr retrieve` do."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping, Sequence
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
from trsr.recommender import scores as score_files
from trsr.recommender.results import FILE
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
        cost: Of fitting and scoring, as `scores.cost`, in a process in which nothing else ran.
    """

    validation: float
    scores: Mapping[tuple[str, str], np.ndarray]
    measured: Mapping[tuple[str, str], catalogue.Measured]
    record: Mapping[str, Any]
    cost: Mapping[str, float]


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
    numbers = material.numbers
    scores = {
        asked: catalogue.on_candidates(fitted.score, Candidates.of(rows, ORDER), numbers)
        for asked, rows in material.asked.items()
    }
    cost = score_files.cost(began)
    measured = {
        asked: catalogue.measure({name: fitted.score}, rows, numbers, material.counts)[name]
        for asked, rows in material.asked.items()
    }
    reached = float(measured[sources[0], "validation"].per_user[METRIC].mean())
    return Fit(reached, scores, measured, fitted.record, cost)


def run(name: str, sources: Sequence[str], out: Path, *, budget: Budget, seeds: Sequence[int]) -> None:
    """Tune a peer on validation and write `out`/DATASET/PEER-SEED and PEER-SEED-validation for each dataset and seed.

    The search looks at validation users over the catalogue, whatever the negatives. With a larger budget it goes on from what
    was tried.

    Args:
        seeds: The first one is that of the search; peers without randomness have no other.
    """
    data = {Path(source).name: dataset_checksum(source, configs=("items", "histories")) for source in sources}
    # Further seeds, peers and trials may be added later; the first seed is that of the search.
    made_from = {"datasets": data, "first_seed": seeds[0]}
    if out.exists():
        bind(out, made_from)
    peer = PEERS[name]
    folders = {
        (source, seed): out / Path(source).name / f"{name}-{seed}"
        for source in sources
        for seed in (seeds if peer.seeded else seeds[:1])
    }
    if all(_finished(folder, budget) for folder in folders.values()):
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

    def evaluate(settings: dict[str, Any]) -> Trial:
        one = fitted(settings, seeds[0])
        print(f"{name}: {json.dumps(settings)}: {METRIC} {one.validation:.4f}, {one.cost['cpu_seconds']} s", flush=True)
        return Trial(settings, one.validation, {**one.record, **one.cost})

    study = f"{name}, {budget.epochs} epochs, patience {budget.patience}, on {data[Path(sources[0]).name]}"
    trials = search(out / STUDIES, study, peer.space, budget, seeds[0], evaluate)
    best = max(trials, key=lambda trial: trial.value)
    tuning = {
        "study": study,
        "sampler": "optuna TPE",
        "budget": asdict(budget),
        "cpu_seconds": round(sum(trial.about["cpu_seconds"] for trial in trials), 1),
        "space": {setting: list(values) for setting, values in peer.space.items()},
        "seed": seeds[0],
        "metric": METRIC,
        "trials": [
            {"settings": trial.settings, f"validation_{METRIC}": round(trial.value, 5), **trial.about}
            for trial in trials
        ],
        "chosen": best.settings,
    }
    for (source, seed), folder in folders.items():
        one = fitted(best.settings, seed)
        of_fit = {"seed_of_fit": seed if peer.seeded else None, f"validation_{METRIC}": round(one.validation, 5)}
        for split in ASKED:  # the test split is last: with it the peer is finished
            written = folder if split == "test" else folder.with_name(f"{folder.name}-{split}")
            results = _write(written, name, one, source, split, material, {**tuning, **of_fit})
        reached = [results[part]["systems"][name] for part in ("candidates", "catalogue")]
        print(
            f"{folder}: test recall@3 {reached[0]['recall@3']['value']:.3f}, on the catalogue recall@10 "
            f"{reached[1]['recall@10']['value']:.3f}",
            flush=True,
        )


def _write(
    folder: Path, name: str, one: Fit, source: str, split: str, material: Material, tuning: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the figures of one split, as `trsr retrieve evaluate` does."""
    rows = material.asked[source, split]
    about = {
        **score_files.about(source, "histories", split),
        "run": name,
        "seed": ORDER,
        "n_users": len(set(rows["user_id"])),
        "limit": 0,
        "cost": one.cost,
        "tuning": tuning,
        "versions": versions("rectools", "implicit", "optuna", "sentence-transformers"),
    }
    return write_evaluation(
        folder,
        Candidates.of(rows, ORDER),
        {name: one.scores[source, split]},
        {name: one.measured[source, split]},
        material.numbers,
        material.counts,
        about,
    )


def _finished(folder: Path, budget: Budget) -> bool:
    """Whether a folder holds figures that took this budget."""
    path = folder / FILE
    return path.is_file() and read_json(path).get("tuning", {}).get("budget") == asdict(budget)
