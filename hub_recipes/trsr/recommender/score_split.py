"""Load a finished run, and score the candidates of a split with it."""

import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from trsr.assets.paths import base_path
from trsr.core.history import Item
from trsr.core.modeling import RANKER, load_adapter
from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import EvaluationError, LoadError
from trsr.progress import loading
from trsr.recommender.examples import encode_prefix, make_encoder, ranking_prompt
from trsr.recommender.precision import warn_if_slow
from trsr.recommender.recipe import Recipe
from trsr.recommender.run import Run
from trsr.records.checksums import base_checksum
from trsr.records.files import append_lines, read_lines


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
    known_scores: dict[str, tuple[list[float], bool]] = {}
    seconds_before = 0.0
    for key, scores, short, seconds in read_lines(partial):
        known_scores[key] = scores, short
        seconds_before += seconds
    encoded: dict[str, list[int]] = {}
    shortened = 0
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
            append([key, *known_scores[key], round(time.process_time() - began, 4)])
        bar.update()
        scores, was_shortened = known_scores[key]
        shortened += was_shortened
        return scores

    with bar, append_lines(partial) as append:
        return Scored(candidates.score(log_odds), shortened, seconds_before)


def checksum(rows: Dataset, texts: Mapping[str, str], recipe: Recipe, encoder: Encoder) -> str:
    """Checksum of all that determines the scores, except the adapter: base, prompt, rows and their item texts."""
    base = [base_checksum(recipe.base), recipe.base_revision]
    digest = hashlib.sha256(json.dumps([base, encoder.prompt.to_dict(), encoder.chat]).encode())
    for row in rows:
        item_texts = [texts[item_id] for item_id in (*row["history"], row["target"], *row["negatives"])]
        digest.update(json.dumps([row, item_texts], sort_keys=True, default=str).encode())
    return digest.hexdigest()
