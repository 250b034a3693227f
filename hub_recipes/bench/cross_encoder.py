"""A CrossEncoder that sentence-transformers' own trainer fine-tunes from a published dataset, beside our adapter on the same data.

    trsr quickstart
    python -m bench.cross_encoder trsr-quickstart/release/dataset --recipe nano-sample --out cross-encoder

Both start at the base of the recipe, with the same LoRA, learning rate, prompts of a step and number of steps. The CrossEncoder is
trained on the rows of the `_sft` config, with binary cross-entropy of its score; our adapter on the same rows, with cross-entropy of
the answer token, candidates of a user sharing their prefix. The first seed draws the same negatives for both; with further
seeds, those of the adapter are drawn again. Each is trained and scored in a process of its own.
"""

import argparse
import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from peft import get_peft_model
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import set_seed

from bench.adapters import evaluated, made_from, trained
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.history import Item, newest
from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import UsageError
from trsr.hub import cross_encoder
from trsr.recommender.compare import report
from trsr.recommender.compare.run import compare
from trsr.recommender.evaluate import describe, write_results
from trsr.recommender.examples import make_encoder, ranking_prompt
from trsr.recommender.recipe import Recipe, load_recipe
from trsr.recommender.results import RESULTS_FILE
from trsr.recommender.run import Run
from trsr.recommender.scores import cost
from trsr.recommender.train import load_base, lora_config
from trsr.records.files import bind

OURS, THEIRS = "our adapter", "CrossEncoder, trained by sentence-transformers"


def pair(prompt: str, words: RankingPrompt) -> tuple[str, str]:
    """Query and document of a CrossEncoder, from a prompt as the dataset holds it."""
    user, _, candidate = prompt.rpartition(f"\n\n{words.candidate_heading}\n- ")
    return user.removeprefix(words.instruction).strip("\n"), candidate.removesuffix(f"\n\n{words.cue}")


def pairs(dataset: str, recipe: Recipe, words: RankingPrompt) -> Dataset:
    """Training rows of a CrossEncoder, of the users that the recipe trains on: `query`, `document`, and `label`, 1.0 or 0.0."""
    rows = load_dataset(dataset, f"{recipe.summary}_sft", split="train")
    check_rows(rows["label"], recipe)
    if recipe.train_users:
        rows = rows.select(range(min(recipe.train_users * (1 + recipe.negatives), len(rows))))
    texts = [pair(prompt, words) for prompt in rows["prompt"]]
    columns = {"query": [query for query, _ in texts], "document": [document for _, document in texts]}
    return Dataset.from_dict({**columns, "label": [float(label) for label in rows["label"]]})


def check_recipe(recipe: Recipe) -> None:
    """Raise UsageError if a recipe trains on other rows or another loss than a CrossEncoder here does."""
    others = [f"{name} is {value}, expected {needed}" for name, value, needed in (
        ("targets", recipe.targets, 1),
        ("listwise", recipe.listwise, 0),
    ) if value != needed]  # fmt: skip
    if others:
        raise UsageError(
            f"The CrossEncoder is trained on one target a user, without a listwise loss: {'; '.join(others)}. --set them."
        )


def check_rows(labels: Sequence[bool], recipe: Recipe) -> None:
    """Raise UsageError if training rows have other negatives for a positive than a recipe."""
    positives = sum(map(bool, labels))
    if len(labels) != positives * (1 + recipe.negatives):
        raise UsageError(
            f"The dataset has {len(labels) - positives} negatives for {positives} positives, the recipe {recipe.negatives} for each: give "
            "its number with --set negatives=N."
        )


def untrained(recipe: Recipe, folder: Path) -> tuple[CrossEncoder, RankingPrompt]:
    """The base of a recipe as a CrossEncoder with an untrained adapter, and the ranking prompt. `folder` takes its files."""
    tokenizer, base = load_base(recipe, half=False)
    encoder = make_encoder(recipe, ranking_prompt(recipe, contract.provenance(recipe.dataset)), tokenizer, base.config)
    folder.mkdir(parents=True)
    base.save_pretrained(folder)
    cross_encoder.write(folder, encoder)
    set_seed(recipe.seed)
    model = CrossEncoder(str(folder), device="cpu")
    # CrossEncoder.add_adapter needs peft 0.22, as transformers 5.24 does for its own adapters.
    model[0].model = get_peft_model(model[0].model, lora_config(recipe, base))
    return model, encoder.prompt


def fine_tune(model: CrossEncoder, rows: Dataset, recipe: Recipe, out: Path) -> None:
    """Train a CrossEncoder as the recipe says, and save it to `out`."""
    optim = recipe.optim
    prompts = optim.batch_size * (1 + recipe.negatives if recipe.form == "shared-prefix" else 1)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(out / "checkpoints"),
        learning_rate=optim.learning_rate,
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps or -1,
        per_device_train_batch_size=prompts,
        gradient_accumulation_steps=optim.accumulation,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        warmup_steps=optim.warmup_ratio,
        lr_scheduler_type=optim.scheduler,
        logging_steps=20,
        save_strategy="no",
        report_to="none",
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=True,
    )
    CrossEncoderTrainer(model, arguments, train_dataset=rows, loss=BinaryCrossEntropyLoss(model)).train()
    model.save_pretrained(str(out))


def theirs(recipe: Recipe, out: Path, run: Path) -> None:
    """Train a CrossEncoder, save it, load it again, and write the scores of the test users to `out`.

    Args:
        run: Of our adapter on the same data, evaluated: it describes the data.
    """
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    began = time.process_time()
    model, words = untrained(recipe, out / "base")
    fine_tune(model, pairs(recipe.dataset, recipe, words), recipe, out / "model")
    fitted, began = time.process_time() - began, time.process_time()
    saved = CrossEncoder(str(out / "model"), device="cpu")
    texts = contract.texts(recipe.dataset)

    def log_odds(row: Mapping[str, Any], ids: Sequence[str]) -> Sequence[float]:
        recent = [Item.parse(texts[item_id]) for item_id in newest(row["history"], words.recent_items)]
        query = cross_encoder.query(words, row.get("summary"), recent)
        inputs = [(query, Item.parse(texts[item_id]).text) for item_id in ids]
        return saved.predict(inputs, show_progress_bar=False).tolist()

    candidates = Candidates.of(contract.read(recipe.dataset, recipe.config, "test"), seed=0)
    scores = candidates.score(log_odds)
    weights = hashlib.sha256((out / "model" / "adapter_model.safetensors").read_bytes()).hexdigest()
    about = {**describe(Run.read(run), "test"), "run": THEIRS, "train_seed": recipe.seed, "weights": weights}
    about["cost"] = {"train_seconds": round(fitted, 1), **cost(began)}
    write_results(out, {THEIRS: scores}, candidates, about)


def ours(recipe: Recipe, out: Path) -> None:
    """Train our adapter, and write the scores of the test users to `out`/test."""
    evaluated(trained(recipe, out), out / "test")


def alone(work: Callable, *arguments: Any) -> None:
    """Do work in a new process: its peak memory and CPU seconds are then those of this work alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(work, *arguments).result()


def run(dataset: str, recipe: Recipe, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Train and score both with every seed, and write `out`/comparison.

    Args:
        dataset: Published, with an `_sft` config: folder or Hub id.
        out: Folder to write; what is finished in it is kept.

    Returns:
        The comparison, as `compare` gives it.

    Raises:
        UsageError: If `out` was begun with another recipe or dataset, or the recipe cannot be compared.
    """
    check_recipe(recipe)
    bind(out, made_from(recipe, [dataset], recipe.base))
    sources = []
    for seed in seeds:
        seeded = replace(recipe, dataset=dataset, name=OURS, seed=seed)
        adapter, encoder = out / f"adapter-{seed}", out / f"cross-encoder-{seed}"
        if not (adapter / "test" / RESULTS_FILE).is_file():
            alone(ours, seeded, adapter)
        if not (encoder / RESULTS_FILE).is_file():
            alone(theirs, seeded, encoder, adapter)
        sources += [str(adapter / "test"), str(encoder)]
    return compare(sources, out / "comparison", against=OURS)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", help="published dataset, with an _sft config: folder or Hub id")
    add("--recipe", default="nano-sample", help="(%(default)s)")
    add("--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the recipe")
    add("--seeds", type=int, nargs="+", default=(0, 1, 2), help="(0 1 2)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; what is finished in it is kept")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        results = run(options.dataset, load_recipe(options.recipe, options.changes), options.seeds, options.out)
        print(f"{report.table(results)}\n\n{report.tests(results)}\n\nWrote {options.out / 'comparison'}")


if __name__ == "__main__":
    main()
