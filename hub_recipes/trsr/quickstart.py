"""The whole of LLM-TRSR on the sample that ships with the package, in minutes, on CPU and offline.

With the nano base, extractive summaries and all users; or with a pretrained language model, which writes the summaries of
fewer users itself, as long as no adapter is on, and ranks with the adapter on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from trsr.core.scoring import Scorer
from trsr.core.summarize import METHODS
from trsr.core.summary_prompts import SMALL_SAMPLING
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.hub import release
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.rehearsal import rehearse
from trsr.pretrain.packaged import KNOWN, make_base
from trsr.progress import loading
from trsr.recommender.baselines import baseline_scorer
from trsr.recommender.evaluate import describe, write_results
from trsr.recommender.examples import make_encoder, ranking_prompt
from trsr.recommender.precision import computes_bf16
from trsr.recommender.recipe import Recipe, load_recipe
from trsr.recommender.results import table
from trsr.recommender.run import Run, is_finished
from trsr.recommender.score_split import load_run, score
from trsr.recommender.serving import load_recommender
from trsr.recommender.train import train
from trsr.records.checksums import base_checksum, dataset_checksum
from trsr.records.files import bind, one_writer
from trsr.summaries.engines.base import Sampling
from trsr.summaries.engines.make import engine
from trsr.summaries.estimate import Rates, estimate
from trsr.summaries.run import summarize_dataset

BASELINES = ("chance", "popularity", "tf-idf")
RELEASED = "recurrent"
MEASURED = 4  # answers that tell how long all of them take
BACKWARD = 2.5  # a training step over its forward pass: weights of the base have no gradient


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the method is run.

    Attributes:
        recipe: What the models are fine-tuned by.
        forms: Label of each fine-tuned model, and the summaries it sees.
        users: Of each split, the first ones; 0 = all.
        block_size, max_blocks: Of summaries.
    """

    recipe: str
    forms: Mapping[str, str]
    users: int = 0
    block_size: int = 5
    max_blocks: int = 5


NANO = Size("nano-sample", {"recent items only": "none", "hierarchical": "hierarchical", "recurrent": "recurrent"})
PRETRAINED = Size("smollm2-135m-sample", {"recent items only": "none", "recurrent": "recurrent"}, 150, 10, 2)


@one_writer
def quickstart(
    out: Path,
    seed: int = 0,
    *,
    base: str | None = None,
    overrides: Sequence[str] = (),
    source: str = "sample",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Sample -> summaries -> LoRA -> evaluation -> release folders -> one recommendation.

    Steps that `out` holds already are not done again, so a run that was killed goes on. Of other settings it is refused.

    Args:
        out: Folder to write.
        seed: Seed of training and evaluation.
        base: A pretrained language model: a name that `trsr base` knows, a folder or a Hub id. None: the nano base.
        overrides: Changes to the recipe, such as `optim.epochs=2`.
        source: Dataset without summaries; its folder or Hub id.
        say: Gets each line of the report.

    Returns:
        What `results.json` holds.
    """
    started = time.monotonic()
    size = NANO if base is None else PRETRAINED
    recipe = load_recipe(size.recipe, overrides)
    by_name = base in KNOWN  # fetched into the folder, and known by its name until then
    made_from = {"dataset": dataset_checksum(source), "seed": seed}
    recipe = replace(recipe, base=base or recipe.base)
    bind(out, {**recipe.to_dict(), **made_from, "base": base if by_name else base_checksum(recipe.base)})
    if by_name:
        recipe = replace(recipe, base=_fetched(str(base), out / f"{base}-base", say))
    dataset = (out / "dataset").resolve()  # what is published later may be published from elsewhere
    if not (dataset / contract.PROVENANCE_FILE).exists():
        cut: dict[str, Any] = {"block_size": size.block_size, "max_blocks": size.max_blocks, "limit": size.users}
        if base is None:
            say("1/5  Summarising the sample's histories, both ways")
            writer, methods = engine("extractive"), METHODS
        else:
            small = Sampling(**SMALL_SAMPLING)
            writer, methods = engine(f"transformers:{recipe.base}", sampling=small, prompts="small"), (RELEASED,)
            say(
                _forecast(
                    recipe, size, source, estimate(source, writer, Rates(), methods=methods, **cut, measure=MEASURED)
                )
            )
            say(f"1/5  The base summarises the histories of {size.users} users a split")
        summarize_dataset(source, dataset, writer, methods=methods, **cut)
    recipes = {
        label: replace(recipe, name=label.replace(" ", "-"), summary=form, dataset=str(dataset), seed=seed)
        for label, form in size.forms.items()
    }
    for label, recipe in recipes.items():
        say(f"2/5  Fine-tuning the base: {label}")
        run = out / "runs" / recipe.name
        if not is_finished(run):
            train(recipe, run)
    say("3/5  Ranking 1 + 20 candidates for every test user")
    results = _evaluate(out, recipes, seed)
    say("4/5  Writing the release folders, and loading them in a fresh process")
    folder = out / "release"
    inputs = ReleaseInputs.read(out / "runs" / RELEASED)
    rehearse(release.assemble(inputs, folder), inputs)
    say("5/5  One recommendation, from the folder just written\n")
    say(_recommend(folder, dataset))
    say("\n" + table(results["systems"]))
    for test in results["paired"]:
        say(
            f"{test['system']} against {test['against']}, Recall@3: {test['difference']:+.3f} "
            f"({test['low']:+.3f} to {test['high']:+.3f}), p (Holm) = {test['p_holm']:.2g}"
        )
    say(f"\n{results['n_users']} users, {time.monotonic() - started:.0f} seconds, seed {seed}. Everything is in {out}")
    say(f"To see what a release of it would hold: trsr publish {out / 'runs' / RELEASED} --namespace ORG")
    return results


def _fetched(base: str, folder: Path, say: Callable[[str], None]) -> str:
    """The folder of a base that `trsr base` knows, written if it is not there."""
    if not (folder / "config.json").is_file():
        say(f"0/5  Fetching {base}")
        make_base(base, folder, dtype="bfloat16" if computes_bf16(cpu=True) else "float32", say=say)
    return str(folder.resolve())


def _forecast(recipe: Recipe, size: Size, source: str, summaries: Mapping[str, Mapping[str, float | None]]) -> str:
    """How many minutes the steps will take on this machine, by the ranking of one user.

    Args:
        summaries: What `estimate` tells of them.
    """
    with loading(recipe.base):
        model: Any = AutoModelForCausalLM.from_pretrained(recipe.base, dtype="auto").eval()
        tokenizer = AutoTokenizer.from_pretrained(recipe.base)
    encoder = make_encoder(recipe, ranking_prompt(recipe, contract.provenance(source)), tokenizer, model.config)
    scorer = Scorer(model, encoder.yes_id, encoder.no_id)
    texts, rows = contract.texts(source), contract.read(source, "histories", "test")

    def seconds(negatives: int | None) -> float:
        row = {**rows[0], "negatives": rows[0]["negatives"][:negatives]}
        candidates = Candidates.of(Dataset.from_list([row], features=rows.features), recipe.seed)
        start = time.perf_counter()
        score(candidates, texts, encoder, scorer, "measure")
        return time.perf_counter() - start

    minutes = {
        "to summarise": summaries[RELEASED]["seconds"] or 0,
        "to fine-tune": seconds(recipe.negatives) * BACKWARD * recipe.optim.epochs * size.users * len(size.forms),
        "to rank": seconds(None) * size.users * (len(size.forms) + 1),  # the released form on validation too
    }
    rounded = {what: math.ceil(took / 60) for what, took in minutes.items()}
    parts = ", ".join(f"{count} {what}" for what, count in rounded.items())
    return f"About {sum(rounded.values())} minutes on this machine as it is now: {parts}."


def _evaluate(out: Path, recipes: dict[str, Recipe], seed: int) -> dict[str, Any]:
    """Fit the released run's temperature on validation, and rank for the test users with every form and peer."""
    dataset = str(out / "dataset")
    texts = contract.texts(dataset)
    train_rows = contract.read(dataset, "histories", "train")
    candidates = Candidates.of(contract.read(dataset, "histories", "test"), seed)
    systems = {name: candidates.score(baseline_scorer(name, candidates.rows, train_rows, texts)) for name in BASELINES}
    runs = {label: Run.read(out / "runs" / recipe.name) for label, recipe in recipes.items()}
    released = runs[RELEASED]
    for label, run in runs.items():
        encoder, scorer = load_run(run)
        own = Candidates.of(contract.read(dataset, run.recipe.config, "test"), seed)
        systems[label] = score(own, texts, encoder, scorer, label).log_odds
        if label == RELEASED:
            validation = Candidates.of(contract.read(dataset, label, "validation"), seed)
            fitted = {label: score(validation, texts, encoder, scorer, f"{label} validation").log_odds}
            about = describe(released, "validation")
            write_results(released.folder / "validation", fitted, validation, about)
    pairs = tuple((label, "recent items only") for label in runs if label != "recent items only")
    about = describe(released, "test")
    return write_results(released.folder / "test", systems, candidates, about, pairs)


def _recommend(folder: Path, dataset: Path) -> str:
    """Rank for one test user with the written pipeline, as text."""
    texts = contract.texts(str(dataset))
    row = contract.read(str(dataset), "recurrent", "test")[0]
    recommender = load_recommender(str(folder), device="cpu")
    request = {
        "history": [texts[item_id] for item_id in row["history"]],
        "candidates": [texts[item_id] for item_id in (row["target"], *row["negatives"])],
    }
    answer = recommender(request, top_k=3, return_summary=True)
    lines = [f"User {row['user_id']}, {len(row['history'])} items. Last: {request['history'][-1]}"]
    lines.append(f"Summary: {answer['summary']}")
    for candidate in answer["candidates"]:
        chosen = "  <- what the user chose" if candidate["index"] == 0 else ""
        lines.append(f"{candidate['rank']}. P(yes) = {candidate['score']:.3f}  {candidate['item']}{chosen}")
    return "\n".join(lines)
