"""Score the released candidates with a recommender or a peer, and measure the ranking.

Writes `scores.parquet` (a row a candidate) and `results.json` (what cards and tables are rendered from).
"""

import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from trsr.errors import CalibrationError, EvaluationError, LoadError, loading
from trsr.metrics import ranking, significance
from trsr.metrics.calibration import fit_calibration
from trsr.recommender import baselines
from trsr.recommender import scores as scored
from trsr.recommender.examples import make_encoder
from trsr.recommender.recipe import Recipe
from trsr.recommender.results import FILE
from trsr.recommender.run import Run
from trsr.records.checksums import base_checksum
from trsr.records.files import one_writer, write_text
from trsr.records.versions import versions

logger = logging.get_logger(__name__)

PEERS = ("chance", "popularity", "tf-idf")


def load_run(run: Run, adapter: bool = True) -> tuple[Encoder, Scorer]:
    """The encoder of a finished run, and its scorer.

    Args:
        adapter: False leaves the adapter away: the base as it is (zero-shot).
    """
    recipe = run.recipe
    source = base_path(recipe.base)
    gpu = torch.accelerator.current_accelerator() if recipe.optim.device == "auto" else None
    with loading(recipe.base):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=recipe.base_revision, dtype="auto")
    encoder = make_encoder(recipe, tokenizer, model.config)
    if adapter:
        try:
            load_adapter(model, RANKER, str(run.adapter), {})
        except LoadError as error:
            raise EvaluationError(f"{error} Or train again: trsr train RECIPE --out ANOTHER") from error
    model = model.to(gpu or "cpu").eval()
    return encoder, Scorer(model, encoder.yes_id, encoder.no_id)


def score(
    candidates: Candidates,
    texts: Mapping[str, str],
    encoder: Encoder,
    scorer: Scorer,
    label: str = "score",
    partial: Path | None = None,
) -> np.ndarray:
    """Log-odds (rows, candidates) float64; NaN past the end of a list.

    Args:
        partial: A file that keeps each row's scores as they come; a killed run goes on from it.
    """
    kept = _read_partial(partial)
    encoded: dict[str, list[int]] = {}
    out = partial.open("a", encoding="utf-8") if partial else None
    numbers = itertools.count()
    bar = tqdm(total=len(candidates), desc=label, unit="user", mininterval=1)

    def log_odds(row: Mapping, ids: Sequence[str]) -> list[float]:
        # A user may stand in several rows, each with candidates of its own.
        key = f"{next(numbers)} {row['user_id']}"
        if key not in kept:
            for item_id in ids:
                if item_id not in encoded:
                    encoded[item_id] = encoder.suffix_ids(Item.parse(texts[item_id]))
            suffixes = [encoded[item_id] for item_id in ids]
            history = [Item.parse(texts[item_id]) for item_id in row["history"]]
            prefix = encoder.prefix_ids(row.get("summary"), history, max(map(len, suffixes)))
            kept[key] = scorer.log_odds(prefix.ids, suffixes).tolist()
            if out:
                out.write(json.dumps([key, kept[key]]) + "\n")
                out.flush()
        bar.update()
        return kept[key]

    try:
        return candidates.score(log_odds)
    finally:
        bar.close()
        if out:
            out.close()


def _read_partial(path: Path | None) -> dict[str, list[float]]:
    kept: dict[str, list[float]] = {}
    if path and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                key, values = json.loads(line)
            except ValueError:
                continue  # the line that a kill cut off
            kept[key] = values
    return kept


def with_shuffled_summaries(rows: Dataset, seed: int) -> Dataset:
    """The same users, each with the summary of another row: what a summary says of its own user is lost, its form stays.

    Raises:
        EvaluationError: If there is but one row.
    """
    if len(rows) < 2:
        raise EvaluationError("Shuffling summaries takes at least 2 users.")
    order = np.random.default_rng(seed).permutation(len(rows))
    giver = np.empty_like(order)
    giver[order] = np.roll(order, 1)  # one circle through all rows: nobody keeps the own summary
    return rows.remove_columns("summary").add_column("summary", [rows["summary"][int(place)] for place in giver])


def _checksum(rows: Dataset, texts: Mapping[str, str], recipe: Recipe, encoder: Encoder) -> str:
    """Of what scores hang on but for the adapter: users, summaries, histories, candidates, item texts, prompt and base."""
    base = [base_checksum(recipe.base), recipe.base_revision]
    made = hashlib.sha256(json.dumps([base, encoder.prompt.to_dict(), encoder.chat]).encode())
    for row in rows:
        shown = [texts[item_id] for item_id in (*row["history"], row["target"], *row["negatives"])]
        made.update(json.dumps([row, shown], sort_keys=True, default=str).encode())
    return made.hexdigest()


def peer_scores(name: str, candidates: Candidates, train: Dataset, texts: Mapping[str, str]) -> np.ndarray:
    """Scores (users, candidates) of a peer in `PEERS`."""
    if name == "chance":
        return baselines.chance(candidates)
    if name == "popularity":
        return baselines.popularity(train, candidates)
    return baselines.tfidf(texts, candidates)


def measure(
    scores: np.ndarray,
    labels: np.ndarray,
    seed: int,
    odds: bool = True,
    mask: np.ndarray | None = None,
    users: Sequence[str] | None = None,
) -> dict[str, object]:
    """Metrics with intervals; calibration too when the scores are log-odds.

    Args:
        mask: That of `trsr.metrics.ranking`.
        users: Of the rows, where a user has several.
    """
    return significance.evaluate(scores, labels, expit(scores) if odds else None, mask=mask, seed=seed, users=users)


def write_results(
    out: Path,
    systems: Mapping[str, np.ndarray],
    candidates: Candidates,
    about: Mapping[str, Any],
    compare: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Measure each system's scores, test pairs against each other, and write results.json and scores.parquet.

    Args:
        systems: Name -> scores (users, candidates). Peers' names stand in `PEERS`; the others give log-odds.
        about: As `describe` gives it. On the validation split the run's temperature and bias are fitted too,
            where the scores tell them; else `not_fitted` says why.
        compare: Pairs (system, against) for a paired test on Recall@3.
    """
    labels, mask, seed = candidates.labels, candidates.mask, candidates.seed
    users = candidates.rows["user_id"]
    each = {name: ranking.per_user(scores, labels, mask) for name, scores in systems.items()}
    results = {
        **about,
        "seed": seed,
        "n_users": len(set(users)),
        "candidates_a_user": _whole(mask.sum(1).mean()),
        "systems": {
            name: measure(scores, labels, seed, name not in PEERS, mask, users) for name, scores in systems.items()
        },
        "paired": [
            {"metric": "recall@3", "system": one, "against": other}
            | significance.paired_test(each[one]["recall@3"], each[other]["recall@3"], seed, users=users)
            for one, other in compare
        ],
        "versions": versions(),
    }
    if about["split"] == "validation":
        try:
            results["temperature"] = asdict(fit_calibration(systems[about["run"]], labels, mask, users))
        except CalibrationError as error:
            results |= {"temperature": None, "not_fitted": str(error)}
    scored.write(out, systems, candidates)
    write_text(out / FILE, json.dumps(results, indent=2) + "\n")
    return results


def _whole(mean: float) -> float:
    """A mean number of candidates: whole where all lists are as long, as cards show it."""
    return int(mean) if mean == int(mean) else round(float(mean), 2)


def describe(run: Run, split: str, adapter: bool = True) -> dict[str, Any]:
    """What a results file says of a run besides its figures; its recipe names the dataset that is scored."""
    recipe = run.recipe
    return {
        **scored.about(recipe.dataset, recipe.config, split, recipe.dataset_revision),
        "run": recipe.name,
        "weights": run.weights if adapter else None,
    }


def results_folder(
    run: Path, split: str, *, limit: int = 0, adapter: bool = True, dataset: str | None = None, shuffle: bool = False
) -> Path:
    """Where the results of an evaluation belong: RUN/SPLIT, and a folder beside it for each that is not the run's own.

    The run's own are those of the adapter on the whole split of the dataset that it was trained on, wherever that lies now.
    """
    name = split + ("" if adapter else "-no-adapter") + ("-shuffled" if shuffle else "")
    if limit:
        name += f"-limit-{limit}"
    if dataset:
        here = Run.read(run).with_dataset(dataset)
        if here.checksums is None or here.changed_data():
            name += f"-{Path(dataset).resolve().name}"
    return run / name


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
) -> dict[str, Any]:
    """Evaluate a finished run beside the peers.

    Args:
        folder: Of the run.
        out: Takes results.json and scores.parquet, see `results_folder`. A killed evaluation goes on from what it left there.
        limit: First rows only; 0 = all.
        seed: Of the candidates' order, the bootstrap, and whose summary is whose when they are shuffled.
        adapter: False measures the base as it is (zero-shot).
        dataset: Folder or Hub id to evaluate on; default the one that the run was trained on.
        shuffle_summaries: A control: every user is ranked for by the summary of another one.

    Raises:
        RunError: If there is no finished run, the dataset is not the run's and was not asked for, or the run was trained on
            its users.
        EvaluationError: If the run shows no summaries to shuffle.
    """
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
    encoder, scorer = load_run(run, adapter)
    train = contract.read(recipe.dataset, "histories", "train", recipe.dataset_revision)
    limited = 0 < limit < len(rows)
    if limited:
        rows = rows.select(range(limit))
    contract.check_ids(rows, texts, f"{recipe.dataset}, config {config}, split {split}")
    if shuffle_summaries:
        rows = with_shuffled_summaries(rows, seed)
    out.mkdir(parents=True, exist_ok=True)
    # Named after what it depends on: another run, split or seed never goes on from it.
    about = describe(run, split, adapter)
    about |= {"limit": limit if limited else 0, "shuffled_summaries": shuffle_summaries}
    partial = (
        out
        / f".{split}-{seed}-{(about['weights'] or 'base')[:12]}-{_checksum(rows, texts, recipe, encoder)[:12]}.partial.jsonl"
    )
    candidates = Candidates.of(rows, seed)
    systems = {name: peer_scores(name, candidates, train, texts) for name in PEERS}
    began = time.process_time()
    systems[recipe.name] = score(candidates, texts, encoder, scorer, recipe.name, partial)
    about["plan"] = scorer.plan
    # Of scoring since the start or the last kill; what training took, the run says.
    trained = run.record["cpu_seconds"] if adapter else 0.0
    about["cost"] = {"train_seconds": trained, **scored.cost(began)}
    results = write_results(out, systems, candidates, about, tuple((recipe.name, peer) for peer in PEERS))
    partial.unlink()
    return results
