"""Score the released candidates with a recommender and with baselines, and measure the ranking.

Writes `scores.parquet` (a row per candidate) and `results.json`, the source of cards and tables.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from trsr.assets.paths import base_path
from trsr.core.history import Item
from trsr.core.modeling import RANKER, load_adapter
from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import CalibrationError, EvaluationError, LoadError, UsageError
from trsr.metrics import ranking, significance
from trsr.metrics.calibration import fit_calibration
from trsr.progress import loading
from trsr.recommender import scores as score_files
from trsr.recommender.baselines import baseline_scorer, score_baselines
from trsr.recommender.controls import history_suffix, with_history, with_shuffled_summaries
from trsr.recommender.examples import encode_prefix, make_encoder, ranking_prompt
from trsr.recommender.precision import warn_if_slow
from trsr.recommender.recipe import Recipe
from trsr.recommender.results import FILE, rounded_mean
from trsr.recommender.run import Run
from trsr.recommender.system_names import BASELINES, HISTORY
from trsr.records.checksums import base_checksum
from trsr.records.files import one_writer, read_json, read_lines, write_text
from trsr.records.versions import versions

logger = logging.get_logger(__name__)


def load_run(run: Run, adapter: bool = True) -> tuple[Encoder, Scorer]:
    """Load the encoder and the scorer of a finished run.

    Args:
        adapter: False loads the base alone (zero-shot).
    """
    recipe = run.recipe
    run.check_base()
    source = base_path(recipe.base)
    gpu = torch.accelerator.current_accelerator() if recipe.optim.device == "auto" else None
    with loading(recipe.base):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=recipe.base_revision, dtype="auto")
        if adapter:
            try:
                load_adapter(model, RANKER, str(run.adapter), {})
            except LoadError as error:
                raise EvaluationError(f"{error} Or train again: trsr train RECIPE --out ANOTHER") from error
    provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
    encoder = make_encoder(recipe, ranking_prompt(recipe, provenance), tokenizer, model.config)
    model = model.to(gpu or "cpu").eval()
    warn_if_slow(model, recipe.base)
    return encoder, Scorer(model, encoder.yes_id, encoder.no_id)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a recommender, and the number of shortened prompts.

    Attributes:
        log_odds: (rows, candidates) float64; NaN past the end of a list.
        shortened: Number of rows whose prompt lost recent items or words of the summary to fit the context.
        seconds_before: CPU seconds that killed processes spent on rows that were not scored again.
    """

    log_odds: np.ndarray
    shortened: int
    seconds_before: float


def score(
    candidates: Candidates,
    texts: Mapping[str, str],
    encoder: Encoder,
    scorer: Scorer,
    label: str = "score",
    partial: Path | None = None,
) -> Scored:
    """Score the candidates of every row with a model.

    Args:
        partial: A file to which the scores of each row are appended; a killed evaluation goes on from it.
    """
    lines = read_lines(partial) if partial else ()
    known_scores: dict[str, tuple[list[float], bool]] = {}
    seconds_before = 0.0
    for key, scores, short, *seconds in lines:  # earlier versions kept no seconds
        known_scores[key] = scores, short
        seconds_before += sum(seconds)
    encoded: dict[str, list[int]] = {}
    shortened = 0
    out = partial.open("a", encoding="utf-8") if partial else None
    numbers = itertools.count()
    bar = tqdm(total=len(candidates), desc=label, unit="user", mininterval=1)

    def log_odds(row: Mapping, ids: Sequence[str]) -> list[float]:
        nonlocal shortened
        # A user may have several rows, each with its own candidates.
        key = f"{next(numbers)} {row['user_id']}"
        if key not in known_scores:
            began = time.process_time()
            for item_id in ids:
                if item_id not in encoded:
                    encoded[item_id] = encoder.suffix_ids(Item.parse(texts[item_id]))
            suffixes = [encoded[item_id] for item_id in ids]
            history = [Item.parse(texts[item_id]) for item_id in row["history"]]
            prefix = encode_prefix(encoder, row, history, ids, suffixes)
            was_shortened = bool(prefix.recent_dropped or prefix.summary_words_dropped)
            known_scores[key] = scorer.log_odds(prefix.ids, suffixes).tolist(), was_shortened
            if out:
                spent = round(time.process_time() - began, 4)
                out.write(json.dumps([key, *known_scores[key], spent]) + "\n")
                out.flush()
        bar.update()
        scores, was_shortened = known_scores[key]
        shortened += was_shortened
        return scores

    try:
        return Scored(candidates.score(log_odds), shortened, seconds_before)
    finally:
        bar.close()
        if out:
            out.close()


def _checksum(rows: Dataset, texts: Mapping[str, str], recipe: Recipe, encoder: Encoder) -> str:
    """Checksum of all that determines the scores, except the adapter: base, prompt, rows and their item texts."""
    base = [base_checksum(recipe.base), recipe.base_revision]
    digest = hashlib.sha256(json.dumps([base, encoder.prompt.to_dict(), encoder.chat]).encode())
    for row in rows:
        item_texts = [texts[item_id] for item_id in (*row["history"], row["target"], *row["negatives"])]
        digest.update(json.dumps([row, item_texts], sort_keys=True, default=str).encode())
    return digest.hexdigest()


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
    write_text(out / FILE, json.dumps(results, indent=2) + "\n")
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


def results_folder(
    run: Path,
    split: str,
    *,
    limit: int = 0,
    adapter: bool = True,
    dataset: str | None = None,
    shuffle: bool = False,
    history: str | None = None,
) -> Path:
    """The folder for the results of an evaluation: RUN/SPLIT for the standard one, else RUN/SPLIT with a suffix.

    Standard is the adapter on the whole split of the dataset that it was trained on, wherever that dataset lies now.
    """
    name = split + ("" if adapter else "-no-adapter") + ("-shuffled" if shuffle else "") + history_suffix(history)
    if limit:
        name += f"-limit-{limit}"
    if dataset:
        run_on_dataset = Run.read(run).with_dataset(dataset)
        if run_on_dataset.checksums is None or run_on_dataset.changed_data():
            name += f"-{Path(dataset).resolve().name}"
    return run / name


# What two evaluations have in common of which one may replace the other, and how a message calls it.
_SAME = {
    "run": "run",
    "weights": "checksum of weights",
    "dataset_checksums": "dataset",
    "split": "split",
    "limit": "limit",
    "seed": "seed",
    "shuffled_summaries": "shuffling of summaries",
    "history": "order of histories",
    "second_stage": "second stage",
}


def check_out(out: Path, about: Mapping[str, Any]) -> None:
    """Raise UsageError if a folder holds results of another evaluation than that which `about` describes.

    Fields that either of them lacks, as results of earlier versions do, are not compared.
    """
    before = read_json(out / FILE) if (out / FILE).is_file() else {}
    changed = [name for name in _SAME if name in before and name in about and before[name] != about[name]]
    if not changed:
        return
    name = changed[0]
    if isinstance(about[name] or before[name], Mapping):
        change = "is another now"
    else:
        change = f"was {_shown(name, before[name])}, and is {_shown(name, about[name])} now"
    raise UsageError(
        f"{out} holds results of another evaluation: its {_SAME[name]} {change}. Choose another --out, or remove it."
    )


def _shown(name: str, value: Any) -> str:
    if name == "shuffled_summaries":
        return "on" if value else "off"
    if value is None:
        return "the true one" if name == "history" else "none"
    return str(value)[:12]


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
        out: Takes results.json and scores.parquet, see `results_folder`. A killed evaluation goes on from there.
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
    if run.checksums is None:
        logger.warning(
            f"{folder} was trained by an earlier version, which did not record its dataset: whether {recipe.dataset} is that "
            "one, or holds users that it was trained on, is not known. Train anew to be sure."
        )
    elif not dataset:
        run.check_data(
            f"To evaluate on other data, name it: --dataset {recipe.dataset}. Else put the run's back, or train anew."
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
        / f".{split}-{seed}-{(about['weights'] or 'base')[:12]}-{_checksum(shown, texts, recipe, encoder)[:12]}.partial.jsonl"
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
