"""From a finished run to an adapter that summarises for its ranker: sample, score, keep, fine-tune.

A killed run goes on: answers are in a store, scores in a file of lines, and training has checkpoints, all in the folder
`work`. Needs one process: no several GPUs.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import TrainError, UsageError
from trsr.recommender.run import TRAINED_ON, Run
from trsr.recommender.score_split import load_run, score
from trsr.recommender.summarizer.fine_tune import Tuning, fine_tune
from trsr.recommender.summarizer.sample import last_question, sample, sampling_engine
from trsr.recommender.summarizer.select import Kept, keep_best, log_probabilities, with_samples, without_held_out
from trsr.recommender.summarizer.trained_on import RECORD
from trsr.recommender.train import save_adapter, trains_on
from trsr.records.checksums import base_checksum
from trsr.records.files import beside, bind, one_writer, read_json, write_text
from trsr.records.versions import versions
from trsr.report.templates import render
from trsr.summaries.run import ParsedItems, identity
from trsr.summaries.store import Store


@one_writer
def train_summarizer(
    folder: Path,
    out: Path,
    *,
    samples: int = 4,
    temperature: float = 0.7,
    margin: float = 0.05,
    users: int = 0,
    seed: int = 0,
    tuning: Tuning | None = None,
    dataset: str | None = None,
    work: Path | None = None,
) -> dict[str, Any]:
    """Train and write an adapter that summarises: weights, config, card, and what it was made from.

    Reads next items of the split `train` alone. Users whom the ranker was not trained on come first: of the others it may
    remember the next item, whatever the summary says.

    Args:
        folder: Of a run whose training summaries its base wrote.
        samples: Summaries a user, 2 or more.
        temperature: Of the samples.
        margin: Nats by which the best summary must exceed the mean of the user's, to be kept.
        users: Training users to sample for; 0 = all.
        dataset: Where the run's dataset is; default, where its recipe says.
        work: Folder for what a killed run goes on from; default beside `out`.

    Returns:
        The content of RECORD, and `seconds` since the start or the last kill.

    Raises:
        RunError: If there is no finished run, or its dataset is not the one that it was trained on.
        TrainError: If `out` is taken, the base did not write the training summaries, or nothing was worth keeping.
        DataError: If a training user stands in validation or test too.
        UsageError: If the work folder holds answers or scores of another run, dataset, sampling or seed.
    """
    started = time.monotonic()
    if samples < 2 or not temperature > 0 or margin < 0 or users < 0:
        raise UsageError(
            "To choose takes at least 2 samples, drawn at a temperature above 0; margin and users must not be negative. Got "
            f"{samples}, {temperature}, {margin} and {users}."
        )
    if out.exists() and any(out.iterdir()):
        raise TrainError(f"{out} is not empty. Choose another --out, or remove it.")
    tuning = tuning or Tuning()
    run = Run.read(folder).with_dataset(dataset)
    run.check_base()
    run.check_data("Say where the run's own is: --dataset. If that is gone, train again.")
    recipe = run.recipe
    provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
    engine = sampling_engine(recipe, provenance.summaries, temperature, seed)
    answered = {
        "ranker": run.weights,
        "base": base_checksum(recipe.base),
        "base_revision": recipe.base_revision,
        "dataset": run.data_checksums(),
        "method": recipe.summary,
        "prompts_sha256": identity(engine)["prompts_sha256"],
        "sampling": dict(engine.identity["sampling"]),
        "seed": seed,
    }
    chosen = {
        "samples": samples,
        "margin": margin,
        "users": users,
        "epochs": tuning.epochs,
        "learning_rate": tuning.learning_rate,
        "batch_size": tuning.batch_size,
    }
    work = work or beside(out, "-work")
    bind(work, answered)  # answers and scores of other choices are used again, checkpoints are not
    tuned = json.dumps([chosen, trains_on(recipe)])  # in another precision training begins again
    checkpoints = work / f"checkpoints-{hashlib.sha256(tuned.encode()).hexdigest()[:12]}"

    rows, unseen = _training_users(run, users, provenance.users_in_several_splits)
    texts = contract.texts(recipe.dataset, recipe.dataset_revision)
    contract.check_ids(rows, texts, f"{recipe.dataset}, config {recipe.config}, split train")
    items = ParsedItems(texts)
    size = provenance.summaries.block_size
    questions = [last_question(row, items, recipe.summary, size) for row in rows]
    with closing(Store(work / "generations.sqlite")) as store:
        drawn = sample(questions, engine, store, samples)
    prompts = engine.prompts
    del engine  # and its model

    best, values = _best(run, rows, drawn, texts, work, margin)
    if not best:
        raise TrainError(
            f"Of {len(rows)} users, none has a summary that exceeds the mean of the user's {samples} by more than {margin} "
            "nats. Draw more (--samples), or lower --margin: what is answered is kept. To draw more varied ones, raise --temperature and "
            "give another --out."
        )
    pairs = [(questions[example.row], example.summary) for example in best]
    model, training = fine_tune(pairs, prompts, recipe, tuning, checkpoints, seed)
    record = {
        "command": f"trsr train-summarizer {folder.name} --out {out.name} --users {users} --samples {samples} "
        f"--temperature {temperature} --margin {margin} --epochs {tuning.epochs} --learning-rate {tuning.learning_rate} "
        f"--batch-size {tuning.batch_size} --seed {seed}",
        "made_from": {**answered, **chosen},
        "base": Path(recipe.base).name if Path(recipe.base).is_dir() else recipe.base,
        "users": len(rows),
        "users_new_to_ranker": unseen,
        "different_summaries": len(values),
        "kept": len(best),
        "mean_log_probability": round(float(values.mean()), 4),
        "mean_gain_of_kept": round(float(np.mean([example.gain for example in best])), 4),
        **training,
        "versions": versions(),
    }
    files = {
        RECORD: json.dumps(record, indent=2) + "\n",
        "README.md": render("trained_summarizer", record, {"library_name": "peft", "tags": ["llm-trsr", "lora"]}),
    }
    save_adapter(model, recipe.base, recipe.base_revision, out, files)
    for folder_of_checkpoints in work.glob("checkpoints-*"):  # those of other choices too
        shutil.rmtree(folder_of_checkpoints, ignore_errors=True)
    return {**record, "seconds": round(time.monotonic() - started, 1)}


def _training_users(run: Run, users: int, in_several_splits: bool) -> tuple[Dataset, int]:
    """The first rows of the split `train` that are measured on nowhere, those that are new to the ranker first, and how many of them
    are.

    Raises:
        DataError: As `without_held_out`.
    """
    recipe = run.recipe
    held_out = {
        split: contract.read(recipe.dataset, recipe.config, split, recipe.dataset_revision)
        for split in contract.SPLITS
        if split != "train"
    }
    rows = contract.read(recipe.dataset, recipe.config, "train", recipe.dataset_revision)
    rows = without_held_out(rows, held_out, in_several_splits)
    trained = {tuple(pair) for pair in read_json(run.folder / TRAINED_ON)["rows"]}
    is_new = [pair not in trained for pair in zip(rows["user_id"], rows["target"], strict=True)]
    order = sorted(range(len(rows)), key=lambda number: not is_new[number])
    if users:
        order = order[:users]
    rows = rows.select(order)
    return rows, sum(is_new[number] for number in order)


def _best(
    run: Run, rows: Dataset, drawn: list[list[str]], texts: Mapping[str, str], work: Path, margin: float
) -> tuple[list[Kept], np.ndarray]:
    """What is kept, and the log-probability of the next item under each sample. Both are written to `work`, for a look."""
    sampled = with_samples(rows, drawn)
    if not len(sampled):
        raise TrainError("No answer of the base is a summary. Lower --temperature, or summarise with other prompts.")
    encoder, scorer = load_run(run)
    candidates = Candidates.of(sampled, run.recipe.seed)
    content = json.dumps([list(sampled["user_id"]), list(sampled["summary"])]).encode()
    partial = work / f"scores-{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    scores = score(candidates, texts, encoder, scorer, "score samples", partial).log_odds
    values = log_probabilities(scores, candidates)
    best = keep_best(drawn, values, margin)
    lines = [
        {"user_id": user, "summary": summary, "log_probability": round(float(value), 6)}
        for user, summary, value in zip(sampled["user_id"], sampled["summary"], values, strict=True)
    ]
    write_text(work / "samples.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return best, values
