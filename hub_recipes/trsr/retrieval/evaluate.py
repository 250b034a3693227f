"""Evaluate a retriever beside the baselines: on the released candidates, and on the whole catalogue.

Writes `scores.parquet` and `results.json`, as `trsr evaluate` does, `catalogue.json`, and the lists of `ranked`.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from trsr.core.catalogue import STAGE_ONE, fitted_stage_one, is_fitted
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.dataset.sequences import training_sequences
from trsr.errors import RunError, UsageError
from trsr.metrics import ranking, significance
from trsr.recommender import scores as score_files
from trsr.recommender.baselines import ORDERED, baseline_scorer, score_baselines
from trsr.recommender.controls import history_suffix, with_history
from trsr.recommender.results import RESULTS_FILE, rounded_mean
from trsr.recommender.results_folder import check_out, results_folder
from trsr.recommender.run import Run, changed_configs, data_checksums
from trsr.recommender.serving import load_recommender
from trsr.recommender.system_names import BASELINES, HISTORY, why_taken
from trsr.records.files import one_writer, read_json, write_json
from trsr.records.versions import versions
from trsr.retrieval import catalogue, ranked
from trsr.retrieval.answers import resumable_answers_file
from trsr.retrieval.carried import record_of_run
from trsr.retrieval.retriever import RETRIEVER_FILE, Retriever, retriever_checksum
from trsr.retrieval.second_stage import BOTH, LANGUAGE_MODEL, measure_stages

CATALOGUE = "catalogue.json"
_ROWS = 4096  # whose user vectors are in memory at once


@one_writer
def evaluate_retriever(
    folder: Path,
    source: str,
    out: Path,
    *,
    revision: str | None = None,
    split: str = "test",
    limit: int = 0,
    seed: int = 0,
    history: str | None = None,
    run: Path | None = None,
    stage_one: int | None = None,
) -> dict[str, Any]:
    """Evaluate a retriever on the dataset that it was trained on, or one that differs from it in nothing but negatives.

    Args:
        folder: Of the retriever; its name is the system's.
        source: Folder or Hub id of the dataset.
        out: Folder to write.
        limit: First rows only; 0 = all.
        seed: Of the order of candidates, the bootstrap, and the shuffling of histories.
        history: A control: histories in another order, as `controls.with_history` takes it. On the candidates, baselines to
            which the order matters are scored with both; on the catalogue with the control's. A run is shown them too; its
            summaries stay those of the true histories.
        run: A finished run with the catalogue of this retriever: on the catalogue, its language model is measured as well, alone
            and with both scores added.
        stage_one: Items that the retriever passes on to the language model of `run`; default, as many as the weight was fitted
            with, or STAGE_ONE where it was not.

    Returns:
        The content of both results files: `candidates` and `catalogue`.

    Raises:
        RunError: If there is no retriever, the dataset is another than it was trained on, or the run does not carry it.
        UsageError: If its folder or the run has the name of another system, `history` is no order, or `out` holds results
            of another evaluation.
        DataError: As `trsr.dataset.contract` does.
    """
    suffix = f"{HISTORY}{history}" if history_suffix(history) else ""  # refuses an unknown order before any work
    retriever = Retriever.load(folder)
    retriever.check_data(source, revision)
    own = folder.resolve().name
    if taken := why_taken(own):
        raise UsageError(f"{own!r} is {taken}: give the retriever's folder another name.")
    second = Run.read(run) if run else None
    stage_one = stage_one or fitted_stage_one(record_of_run(run) if run else {})
    if second and second.recipe.name in (own, *BASELINES):
        raise UsageError(
            f"The run {run} is called {second.recipe.name!r}, as another system that is evaluated with it. Give the retriever's folder "
            "another name, or train the run under another."
        )
    texts = contract.texts(source, revision)
    splits = {name: contract.read(source, "histories", name, revision) for name in contract.SPLITS}
    rows = splits[split]
    scorers = {name: baseline_scorer(name, rows, splits["train"], texts) for name in BASELINES}
    limited = 0 < limit < len(rows)
    about = {
        **score_files.about(source, "histories", split, revision),
        "run": own,
        "retriever": {name: retriever.record[name] for name in ("vectors", "ids", "shape", "settings")},
        "weights": retriever_checksum(folder),
        "seed": seed,
        "limit": limit if limited else 0,
        "history": history,
        "second_stage": _second_stage(second, stage_one) if second else None,
    }
    check_out(out, about)
    if limited:
        rows = rows.select(range(limit))
    contract.check_ids(rows, texts, f"{source}, split {split}")
    # Both refuse what does not belong together, before any work.
    of_run = _rows_of_run(second, rows, split) if second else None
    recommender: Any = _recommender(second, folder) if second else None
    shown = with_history(rows, history, seed)
    began = time.process_time()
    candidates = Candidates.of(shown, seed)
    scores = {own: score_candidates(retriever, candidates)}
    about |= {
        "n_users": len(set(rows["user_id"])),
        "cost": {"train_seconds": retriever.record["cost"]["cpu_seconds"], **score_files.cost(began)},
    }
    scores |= score_baselines(scorers, Candidates.of(rows, seed), candidates, history)
    numbers = retriever.numbers
    counts = training_sequences(splits, numbers).counts(len(numbers))
    measured = catalogue.measure(
        {own: catalogue_scorer(retriever)}
        | {
            f"{name}{suffix if name in ORDERED else ''}": catalogue.row_by_row(scorer, retriever.item_ids)
            for name, scorer in scorers.items()
            if name != "chance"
        },
        shown,
        numbers,
        counts,
    )
    if second:
        with resumable_answers_file(out, second, recommender, stage_one) as answers_file:
            with_summaries = with_history(of_run, history, seed)
            stages = measure_stages(recommender, with_summaries, numbers, counts, stage_one, answers_file)
        measured[f"{second.recipe.name}{suffix}"] = stages[LANGUAGE_MODEL]
        measured[f"{own} + {second.recipe.name}{suffix}"] = stages[BOTH]
    return write_evaluation(out, candidates, scores, measured, numbers, counts, about)


def default_folder(
    folder: Path,
    source: str,
    revision: str | None = None,
    *,
    split: str,
    limit: int = 0,
    history: str | None = None,
    run: Path | None = None,
    stage_one: int | None = None,
) -> Path:
    """Where `trsr retrieve evaluate` writes: RETRIEVER/SPLIT, with a suffix where not all rows or other histories are evaluated,
    with a run as second stage, or those of a dataset that differs from the one that the retriever was trained on."""
    out, record = results_folder(folder, split, limit=limit, history=history), folder / RETRIEVER_FILE
    if record.is_file():
        trained_on = read_json(record)["dataset_checksums"]
        if changed_configs(trained_on, data_checksums(source, "histories", revision)):
            out = out.with_name(f"{out.name}-{Path(source).resolve().name}")
    if run:
        stage_one = stage_one or fitted_stage_one(record_of_run(run))
        out = out.with_name(
            f"{out.name}-{run.resolve().name}{'' if stage_one == STAGE_ONE else f'-stage-one-{stage_one}'}"
        )
    return out


def _second_stage(run: Run, stage_one: int) -> dict[str, Any]:
    """What makes both stages the system that they are: the run, how many items it ranks, and the weight of the first stage."""
    record = record_of_run(run.folder)
    fitted = (
        {name: record["fitted"].get(name) for name in ("split", "users", "stage_one")} if is_fitted(record) else None
    )
    return {
        "run": run.recipe.name,
        "weights": run.weights,
        "stage_one": stage_one,
        "weight": record.get("weight"),
        "fitted": fitted,
    }


def _rows_of_run(run: Run, rows: Dataset, split: str) -> Dataset:
    """The same rows as a run sees them, with summaries. Raises RunError if its dataset has others."""
    recipe = run.recipe
    shown = contract.read(recipe.dataset, recipe.config, split, recipe.dataset_revision)
    shown = shown.select(range(min(len(rows), len(shown))))
    if any(shown[name][:] != rows[name][:] for name in ("user_id", "target")):
        raise RunError(
            f"{run.folder} was trained on {recipe.dataset}, which has other users in {split}. Give that dataset."
        )
    return shown


def _recommender(run: Run, retriever: Path) -> Any:
    """The recommender of a run. Raises RunError if it does not carry the catalogue of a retriever."""
    recommender = load_recommender(str(run.folder))
    carried = (recommender.catalogue.record if recommender.catalogue else {}).get("retriever")
    if carried != retriever_checksum(retriever):
        raise RunError(
            f"{run.folder} does not carry {retriever}. Join them: trsr retrieve fuse {retriever} --run {run.folder}"
        )
    return recommender


def write_evaluation(
    out: Path,
    candidates: Candidates,
    scores: Mapping[str, np.ndarray],
    measured: Mapping[str, catalogue.Measured],
    numbers: Mapping[str, int],
    counts: np.ndarray,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write what systems reach on the released candidates and on the whole catalogue.

    Results of before are removed first and the new ones written last, so that none stand beside scores of another evaluation.

    Args:
        scores: System -> scores (rows, candidates).
        measured: System -> the same rows on the catalogue.
        numbers, counts: As `catalogue.measure` takes them.
        about: Fields of both results files: `run`, the system that the others are tested against, `seed`, and more.

    Returns:
        The content of both: `candidates` and `catalogue`.
    """
    rows, own, seed = candidates.rows, about["run"], about["seed"]
    groups = catalogue.target_groups(rows, numbers, counts)
    whole = {
        **about,
        "n_items": len(numbers),
        "popularity_of_targets": float(counts[[numbers[target] for target in rows["target"]]].mean()),
        **catalogue.summarise(measured, groups, list(rows["user_id"]), seed, own),
        "versions": about.get("versions") or versions(),
    }
    results = _candidate_results(scores, candidates, about)
    for name in (RESULTS_FILE, CATALOGUE):
        (out / name).unlink(missing_ok=True)
    score_files.write(out, scores, candidates)
    lists, metrics = (
        {name: getattr(result, part) for name, result in measured.items()} for part in ("ranked", "per_user")
    )
    ranked.write(out, lists, metrics, rows, list(numbers))
    write_json(out / CATALOGUE, whole)
    write_json(out / RESULTS_FILE, results)
    return {"candidates": results, "catalogue": whole}


def score_candidates(retriever: Retriever, candidates: Candidates) -> np.ndarray:
    """Scores (rows, candidates) of the released candidates: products of the vectors of user and item."""
    numbers = retriever.numbers
    parts = candidates.rows.select_columns(["history"]).iter(_ROWS)
    users = (vector for part in parts for vector in _users(retriever, numbers, part))
    return candidates.score(lambda row, ids: retriever.vectors[[numbers[item_id] for item_id in ids]] @ next(users))


def _users(retriever: Retriever, numbers: Mapping[str, int], part: Mapping[str, Any]) -> np.ndarray:
    """Vectors (users, width) of rows of `histories`, as columns."""
    return retriever.users([np.array([numbers[item_id] for item_id in ids], np.int64) for ids in part["history"]])


def catalogue_scorer(retriever: Retriever) -> catalogue.CatalogueScorer:
    """A retriever's scores of the whole catalogue."""
    numbers = retriever.numbers
    return lambda part: _users(retriever, numbers, part) @ retriever.vectors.T


def _candidate_results(
    scores: Mapping[str, np.ndarray], candidates: Candidates, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The results file of the candidates; scores of a retriever are no log-odds, so there is no calibration."""
    labels, mask, seed, users = candidates.labels, candidates.mask, candidates.seed, list(candidates.rows["user_id"])
    metric = "recall@3"
    per_user = {name: ranking.per_user(values, labels, mask)[metric] for name, values in scores.items()}
    own = about["run"]
    return {
        **about,
        "candidates_a_user": rounded_mean(mask.sum(1).mean()),
        "systems": {
            name: significance.evaluate(values, labels, mask=mask, seed=seed, users=users)
            for name, values in scores.items()
        },
        "paired": significance.paired_tests(
            per_user, [(own, name) for name in scores if name != own], metric, seed, users
        ),
        "versions": about.get("versions") or versions(),
    }
