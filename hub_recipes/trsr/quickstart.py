"""The whole of LLM-TRSR on the sample that ships with the package, in minutes, on CPU and offline."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.hub import release
from trsr.hub.inputs import ReleaseInputs
from trsr.recommender import evaluate
from trsr.recommender.recipe import Recipe, load_recipe
from trsr.recommender.results import table
from trsr.recommender.run import Run, is_finished
from trsr.recommender.serving import load_recommender
from trsr.recommender.train import train
from trsr.records.checksums import base_checksum, dataset_checksum
from trsr.records.files import bind, one_writer
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset

FORMS = {"recent items only": "none", "hierarchical": "hierarchical", "recurrent": "recurrent"}
BASELINES = ("chance", "popularity", "tf-idf")
RELEASED = "recurrent"


@one_writer
def quickstart(
    out: Path,
    seed: int = 0,
    *,
    overrides: Sequence[str] = (),
    source: str = "sample",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Sample -> summaries -> LoRA -> evaluation -> release folders -> one recommendation.

    Steps that `out` holds already are not done again, so a run that was killed goes on. Of other settings it is refused.

    Args:
        out: Folder to write.
        seed: Seed of training and evaluation.
        overrides: Changes to the recipe `nano-sample`, such as `optim.epochs=2`.
        source: Dataset without summaries; its folder or Hub id.
        say: Gets each line of the report.

    Returns:
        What `results.json` holds.
    """
    started = time.monotonic()
    base = load_recipe("nano-sample", overrides)
    made_from = {"dataset": dataset_checksum(source), "base": base_checksum(base.base), "seed": seed}
    bind(out, {**base.to_dict(), **made_from})
    dataset = (out / "dataset").resolve()  # what is published later may be published from elsewhere
    say("1/5  Summarising the sample's histories, both ways")
    if not (dataset / contract.PROVENANCE).exists():
        summarize_dataset(source, dataset, engine("extractive"))
    recipes = {
        label: replace(base, name=label.replace(" ", "-"), summary=form, dataset=str(dataset), seed=seed)
        for label, form in FORMS.items()
    }
    for label, recipe in recipes.items():
        say(f"2/5  Fine-tuning the nano base: {label}")
        run = out / "runs" / recipe.name
        if not is_finished(run):
            train(recipe, run)
    say("3/5  Ranking 1 + 20 candidates for every test user")
    results = _evaluate(out, recipes, seed)
    say("4/5  Writing the release folders")
    folder = out / "release"
    release.assemble(ReleaseInputs.read(out / "runs" / RELEASED), folder)
    say("5/5  One recommendation, from the folder just written\n")
    say(_recommend(folder, dataset))
    say("\n" + table(results["systems"]))
    for test in results["paired"]:
        say(
            f"{test['system']} against {test['against']}, Recall@3: {test['difference']:+.3f} "
            f"({test['low']:+.3f} to {test['high']:+.3f}), p = {test['p_value']:.2g}"
        )
    say(f"\n{results['n_users']} users, {time.monotonic() - started:.0f} seconds, seed {seed}. Everything is in {out}")
    say(f"To see what a release of it would hold: trsr publish {out / 'runs' / RELEASED} --namespace ORG")
    return results


def _evaluate(out: Path, recipes: dict[str, Recipe], seed: int) -> dict[str, Any]:
    """Fit the released run's temperature on validation, and rank for the test users with every form and peer."""
    dataset = str(out / "dataset")
    texts = contract.texts(dataset)
    train_rows = contract.read(dataset, "histories", "train")
    candidates = Candidates.of(contract.read(dataset, "histories", "test"), seed)
    systems = {name: evaluate.baseline_scores(name, candidates, train_rows, texts) for name in BASELINES}
    runs = {label: Run.read(out / "runs" / recipe.name) for label, recipe in recipes.items()}
    released = runs[RELEASED]
    for label, run in runs.items():
        encoder, scorer = evaluate.load_run(run)
        own = Candidates.of(contract.read(dataset, run.recipe.config, "test"), seed)
        systems[label] = evaluate.score(own, texts, encoder, scorer, label).log_odds
        if label == RELEASED:
            known = Candidates.of(contract.read(dataset, label, "validation"), seed)
            fitted = {label: evaluate.score(known, texts, encoder, scorer, f"{label} validation").log_odds}
            about = evaluate.describe(released, "validation")
            evaluate.write_results(released.folder / "validation", fitted, known, about)
    pairs = tuple((label, "recent items only") for label in ("hierarchical", "recurrent"))
    about = evaluate.describe(released, "test")
    return evaluate.write_results(released.folder / "test", systems, candidates, about, pairs)


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
    for one in answer["candidates"]:
        chosen = "  <- what the user chose" if one["index"] == 0 else ""
        lines.append(f"{one['rank']}. P(yes) = {one['score']:.3f}  {one['item']}{chosen}")
    return "\n".join(lines)
