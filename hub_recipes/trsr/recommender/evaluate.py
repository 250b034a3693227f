"""Evaluate a finished run beside the baselines, and write what was measured.

`scores.parquet` has a row a candidate; `results.json` is the source of cards and tables.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import CalibrationError, EvaluationError, UsageError
from trsr.metrics import ranking, significance
from trsr.metrics.calibration import fit_calibration
from trsr.recommender import scores as score_files
from trsr.recommender.baselines import baseline_scorer, score_baselines
from trsr.recommender.controls import history_suffix, with_history, with_shuffled_summaries
from trsr.recommender.results import RESULTS_FILE, rounded_mean
from trsr.recommender.results_folder import check_out
from trsr.recommender.run import Run
from trsr.recommender.score_split import checksum, load_run, score
from trsr.recommender.system_names import BASELINES, HISTORY
from trsr.records.files import one_writer, write_json
from trsr.records.versions import versions


def write_results(
    out: Path,
    systems: Mapping[str, np.ndarray],
    candidates: Candidates,
    about: Mapping[str, Any],
    compare: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Measure each system's scores, test pairs against each other, and write results.json and scores.parquet.

    Args:
        systems: Name -> scores (users, candidates). Scores of systems that are not in `BASELINES` are log-odds.
        about: As `describe` gives it. On the validation split the run's temperature and bias are fitted too,
            if the scores allow it; else `not_fitted` says why.
        compare: Pairs (system, against) for a paired test on Recall@3.
    """
    labels, mask, seed = candidates.labels, candidates.mask, candidates.seed
    users = candidates.rows["user_id"]
    with_odds = {name for name in systems if name.partition(HISTORY)[0] not in BASELINES}
    recalls = {name: ranking.per_user(scores, labels, mask)["recall@3"] for name, scores in systems.items()}
    results = {
        **about,
        "seed": seed,
        "n_users": len(set(users)),
        "candidates_a_user": rounded_mean(mask.sum(1).mean()),
        "systems": {
            name: significance.evaluate(
                scores, labels, expit(scores) if name in with_odds else None, mask=mask, seed=seed, users=users
            )
            for name, scores in systems.items()
        },
        "paired": significance.paired_tests(recalls, compare, "recall@3", seed, users),
        "versions": versions(),
    }
    if about["split"] == "validation":
        try:
            results["temperature"] = asdict(fit_calibration(systems[about["run"]], labels, mask, users))
        except CalibrationError as error:
            results |= {"temperature": None, "not_fitted": str(error)}
    score_files.write(out, systems, candidates)
    write_json(out / RESULTS_FILE, results)
    return results


def describe(run: Run, split: str, adapter: bool = True) -> dict[str, Any]:
    """The fields of a results file that describe a run and the dataset that its recipe names."""
    recipe = run.recipe
    return {
        **score_files.about(recipe.dataset, recipe.config, split, recipe.dataset_revision),
        "run": recipe.name,
        "summary": recipe.summary,
        "train_seed": recipe.seed,
        "recipe": recipe.settings(),
        "weights": run.weights if adapter else None,
    }


@one_writer
def evaluate_run(
    folder: Path,
    out: Path,
    *,
    split: str = "test",
    limit: int = 0,
    seed: int = 0,
    adapter: bool = True,
    dataset: str | None = None,
    shuffle_summaries: bool = False,
    history: str | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run beside the baselines.

    Args:
        folder: Of the run.
        out: Takes results.json and scores.parquet, see `results_folder.results_folder`. A killed evaluation goes on from there.
        limit: First rows only; 0 = all.
        seed: Of the order of candidates, the bootstrap, and the shuffling of summaries and histories.
        adapter: False measures the base as it is (zero-shot).
        dataset: Folder or Hub id to evaluate on; default the one that the run was trained on.
        shuffle_summaries: A control: each user is ranked with the summary of another user.
        history: A control: recent items are shown in another order, as `controls.with_history` takes it, while summaries stay.
            Baselines to which the order matters are scored with both.

    Raises:
        RunError: If there is no finished run, its dataset has changed and `dataset` does not name another, or the run was
            trained on users of the split.
        EvaluationError: If the run shows no summaries to shuffle.
        UsageError: If `history` is no order, `limit` is negative, or `out` holds results of another evaluation.
    """
    history_suffix(history)  # refuses an unknown order before any work
    if limit < 0:
        raise UsageError(f"--limit must not be negative, got {limit}.")
    run = Run.read(folder).with_dataset(dataset)
    recipe = run.recipe
    if shuffle_summaries and recipe.summary == "none":
        raise EvaluationError(f"The prompts of {folder} show no summaries: there is nothing to shuffle.")
    if not dataset:
        run.check_data(
            f"To evaluate on other data, name it: --dataset {recipe.dataset}. Else put the run's back, or train again."
        )
    texts = contract.texts(recipe.dataset, recipe.dataset_revision)
    config = recipe.config
    rows = contract.read(recipe.dataset, config, split, recipe.dataset_revision)
    if run.changed_data():
        several = contract.provenance(recipe.dataset, recipe.dataset_revision).users_in_several_splits
        run.check_users(rows, f"{recipe.dataset}, split {split}", several)
    limited = 0 < limit < len(rows)
    about = describe(run, split, adapter)
    about |= {"limit": limit if limited else 0, "shuffled_summaries": shuffle_summaries, "history": history}
    check_out(out, {**about, "seed": seed})
    encoder, scorer = load_run(run, adapter)
    train = contract.read(recipe.dataset, "histories", "train", recipe.dataset_revision)
    scorers = {name: baseline_scorer(name, rows, train, texts) for name in BASELINES}
    if limited:
        rows = rows.select(range(limit))
    contract.check_ids(rows, texts, f"{recipe.dataset}, config {config}, split {split}")
    shown = with_history(rows, history, seed)
    if shuffle_summaries:
        shown = with_shuffled_summaries(shown, seed)
    out.mkdir(parents=True, exist_ok=True)
    # The name holds all that the scores depend on, so that no other evaluation goes on from this file.
    partial = (
        out
        / f".{split}-{seed}-{(about['weights'] or 'base')[:12]}-{checksum(shown, texts, recipe, encoder)[:12]}.partial.jsonl"
    )
    candidates = Candidates.of(shown, seed)
    systems = score_baselines(scorers, Candidates.of(rows, seed), candidates, history)
    began = time.process_time()
    scored = score(candidates, texts, encoder, scorer, recipe.name, partial)
    systems[recipe.name] = scored.log_odds
    about |= {"plan": scorer.plan, "rows": len(rows), "shortened": scored.shortened}
    cost = score_files.cost(began)
    cost["cpu_seconds"] = round(cost["cpu_seconds"] + scored.seconds_before, 2)
    about["cost"] = {"train_seconds": run.record["cpu_seconds"] if adapter else 0.0, **cost}
    pairs = tuple((recipe.name, name) for name in systems if name != recipe.name)
    results = write_results(out, systems, candidates, about, pairs)
    partial.unlink()
    return results
