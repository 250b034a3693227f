"""Score the released candidates with a recommender or a peer, and measure the ranking.

Writes `scores.parquet` (a row a candidate) and `results.json` (what cards and tables are rendered from).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset
from peft import PeftModel
from scipy.special import expit
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from trsr import candidates, data, metrics, peers, scored, significance
from trsr.calibration import fit_temperature
from trsr.core.history import Item
from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.embedded import base_path
from trsr.examples import make_encoder
from trsr.recipe import Recipe, build_recipe
from trsr.results import FILE, weights_of
from trsr.versions import versions

PEERS = ("chance", "popularity", "tf-idf")


class EvaluationError(ValueError):
    """A run that cannot be evaluated: the message says why and what to do."""


def load_run(run: Path, adapter: bool = True) -> tuple[Recipe, Encoder, Scorer]:
    """The recipe of a finished run, its encoder and its scorer.

    Args:
        adapter: False leaves the adapter away: the base as it is (zero-shot).
    """
    if not (run / "run.json").is_file():
        raise EvaluationError(f"No finished run at {run}. Train one, or finish it: trsr train RECIPE --out {run}")
    recipe = build_recipe(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    source = base_path(recipe.base)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
    gpu = torch.accelerator.current_accelerator() if recipe.optim.device == "auto" else None
    model: Any = AutoModelForCausalLM.from_pretrained(source, revision=recipe.base_revision, dtype="auto")
    encoder = make_encoder(recipe, tokenizer, model.config)
    if adapter:
        model = PeftModel.from_pretrained(model, run / "adapter")
    model = model.to(gpu or "cpu").eval()
    return recipe, encoder, Scorer(model, encoder.yes_id, encoder.no_id)


def score(
    rows: Dataset,
    texts: Mapping[str, str],
    encoder: Encoder,
    scorer: Scorer,
    seed: int,
    label: str = "score",
    partial: Path | None = None,
) -> np.ndarray:
    """Log-odds (rows, candidates), candidates in the order of `candidates.candidates`; NaN past the end of a list.

    Args:
        partial: A file that keeps each row's scores as they come; a killed run goes on from it.
    """
    lists, labels = candidates.candidate_table(rows, seed)
    kept = _read_partial(partial)
    scores = np.full(labels.shape, np.nan)
    encoded: dict[str, list[int]] = {}
    out = partial.open("a", encoding="utf-8") if partial else None
    try:
        for place, (row, ids) in enumerate(
            tqdm(zip(rows, lists, strict=True), total=len(rows), desc=label, unit="user", mininterval=1)
        ):
            # A user may stand in several rows, each with candidates of its own.
            key = f"{place} {row['user_id']}"
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
            scores[place, : len(ids)] = kept[key]
    finally:
        if out:
            out.close()
    return scores


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


def peer_scores(name: str, rows: Dataset, train: Dataset, texts: Mapping[str, str], seed: int) -> np.ndarray:
    """Scores (users, candidates) of a peer in `PEERS`, on the same candidates."""
    if name == "chance":
        return peers.chance(rows, seed)
    if name == "popularity":
        return peers.popularity(train, rows, seed)
    return peers.tfidf(texts, rows, seed)


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
        mask: That of `trsr.metrics`.
        users: Of the rows, where a user has several.
    """
    return significance.evaluate(scores, labels, expit(scores) if odds else None, mask=mask, seed=seed, users=users)


def write_results(
    out: Path,
    systems: Mapping[str, np.ndarray],
    rows: Dataset,
    seed: int,
    about: Mapping[str, Any],
    compare: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Measure each system's scores, test pairs against each other, and write results.json and scores.parquet.

    Args:
        systems: Name -> scores (users, candidates). Peers' names stand in `PEERS`; the others give log-odds.
        about: As `describe` gives it. On the validation split the run's temperature is fitted too.
        compare: Pairs (system, against) for a paired test on Recall@3.
    """
    lists, labels = candidates.candidate_table(rows, seed)
    present = candidates.presence(lists)
    users = rows["user_id"]
    each = {name: metrics.per_user(scores, labels, present) for name, scores in systems.items()}
    results = {
        **about,
        "seed": seed,
        "n_users": len(set(users)),
        "candidates_a_user": _whole(present.sum(1).mean()),
        "systems": {
            name: measure(scores, labels, seed, name not in PEERS, present, users) for name, scores in systems.items()
        },
        "paired": [
            {"metric": "recall@3", "system": one, "against": other}
            | significance.paired_test(each[one]["recall@3"], each[other]["recall@3"], seed, users=users)
            for one, other in compare
        ],
        "versions": versions(),
    }
    if about["split"] == "validation":
        results["temperature"] = asdict(fit_temperature(systems[about["run"]], labels, present))
    scored.write(out, systems, rows, seed)
    (out / FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def _whole(mean: float) -> float:
    """A mean number of candidates: whole where all lists are as long, as cards show it."""
    return int(mean) if mean == int(mean) else round(float(mean), 2)


def describe(run: Path, recipe: Recipe, split: str, adapter: bool = True) -> dict[str, Any]:
    """What a results file says of a run besides its figures."""
    config = "histories" if recipe.summary == "none" else recipe.summary
    return {
        **scored.about(recipe.dataset, config, split, recipe.dataset_revision),
        "run": recipe.name,
        "weights": weights_of(run) if adapter else None,
    }


def evaluate_run(
    run: Path, out: Path, *, split: str = "test", limit: int = 0, seed: int = 0, adapter: bool = True
) -> dict[str, Any]:
    """Evaluate a finished run beside the peers, on the dataset it was trained on."""
    recipe, encoder, scorer = load_run(run, adapter)
    texts = data.texts(recipe.dataset, recipe.dataset_revision)
    config = "histories" if recipe.summary == "none" else recipe.summary
    rows = data.read(recipe.dataset, config, split, recipe.dataset_revision)
    train = data.read(recipe.dataset, "histories", "train", recipe.dataset_revision)
    if limit:
        rows = rows.select(range(min(limit, len(rows))))
    data.check_ids(rows, texts, f"{recipe.dataset}, config {config}, split {split}")
    out.mkdir(parents=True, exist_ok=True)
    # Named after what it depends on: another run, split or seed never goes on from it.
    about = describe(run, recipe, split, adapter)
    partial = out / f".{split}-{seed}-{(about['weights'] or 'base')[:12]}.partial.jsonl"
    systems = {name: peer_scores(name, rows, train, texts, seed) for name in PEERS}
    began = time.process_time()
    systems[recipe.name] = score(rows, texts, encoder, scorer, seed, recipe.name, partial)
    about["plan"] = scorer.plan
    # Of scoring since the start or the last kill; how long training took, the run says.
    trained = json.loads((run / "run.json").read_text(encoding="utf-8"))["seconds"] if adapter else 0.0
    about["cost"] = {"train_seconds": trained, **scored.cost(began)}
    results = write_results(out, systems, rows, seed, about, tuple((recipe.name, peer) for peer in PEERS))
    partial.unlink()
    return results
