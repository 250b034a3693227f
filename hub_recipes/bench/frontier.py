"""Quality against length: the newest items alone, and a summary with as many of them as fit beside it, in the same room.

    python -m bench.frontier data/films --recipe smollm2-135m-goodbooks --set base=bases/smollm2 chat=false --out frontier

For each room, form and seed an adapter is trained and evaluated, whose prompts hold that many tokens of a user and OTHERS
for the rest. Writes FRONTIER_FILE, and a picture where matplotlib is installed. What is finished is kept: after a kill the same
command goes on. An evaluated dataset is a good one where histories are longer than the largest room.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from bench import adapters, report
from trsr.assets.paths import base_path
from trsr.core.history import Item
from trsr.dataset import contract
from trsr.errors import TrsrError
from trsr.metrics.significance import paired_test, summary, with_holm
from trsr.recommender.compare.align import align, read
from trsr.recommender.compare.measure import each_user, over_seeds
from trsr.recommender.examples import encode_prefix, make_encoder, ranking_prompt
from trsr.recommender.recipe import Recipe, load_recipe
from trsr.recommender.results import RESULTS_FILE
from trsr.recommender.system_names import BASELINES
from trsr.records.files import bind, write_json
from trsr.records.versions import versions
from trsr.report import plots

FRONTIER_FILE = "frontier.json"
FORMS = {"recent items": "none", "summary and recent items": "recurrent"}  # form -> `summary` of its recipe
OTHERS = 64  # tokens for the instruction, the longest candidate and the cue
# Tokens that an item counts as at least, which bounds their number; shorter ones do not fill the room.
SHORTEST = 11
METRICS = ("recall@3", "mrr@10")


def recipe_of(source: str, changes: Sequence[str], dataset: str, form: str, room: int, seed: int) -> Recipe:
    """The recipe of one adapter."""
    own = (
        f"dataset={dataset}",
        f"name={FORMS[form]}-{room}-{seed}",
        f"seed={seed}",
        f"summary={FORMS[form]}",
        f"recent_items={room // SHORTEST + 1}",
        f"max_tokens={room + OTHERS}",
    )
    return load_recipe(source, (*changes, *own))


def lengths(recipe: Recipe) -> dict[str, float]:
    """What a recipe's prompts hold on the test users: mean `tokens` before the candidate, mean number of recent `items`."""
    base = base_path(recipe.base)
    tokenizer = AutoTokenizer.from_pretrained(base, revision=recipe.base_revision)
    config = AutoConfig.from_pretrained(base, revision=recipe.base_revision)
    provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
    encoder = make_encoder(recipe, ranking_prompt(recipe, provenance), tokenizer, config)
    texts = contract.texts(recipe.dataset, recipe.dataset_revision)
    rows = contract.read(recipe.dataset, recipe.config, "test", recipe.dataset_revision)
    suffixes = {item_id: encoder.suffix_ids(Item.parse(text)) for item_id, text in texts.items()}
    tokens, items = [], []
    for row in rows:
        item_ids = [row["target"], *row["negatives"]]
        history = [Item.parse(texts[item_id]) for item_id in row["history"]]
        prefix = encode_prefix(encoder, row, history, item_ids, [suffixes[item_id] for item_id in item_ids])
        tokens.append(len(prefix.ids))
        items.append(min(len(history), recipe.recent_items) - prefix.recent_dropped)
    return {"tokens": round(float(np.mean(tokens)), 1), "items": round(float(np.mean(items)), 1)}


def measure(folders: Mapping[tuple[int, str], Sequence[Path]], seed: int = 0) -> list[dict[str, Any]]:
    """The figures of each room: each form's with intervals over users of the means over seeds, and the test between both.

    Args:
        folders: Room and form -> evaluations, one a seed.
        seed: Of bootstrap and tests.
    """
    aligned = align([read(f"{room} {form}={folder}") for (room, form), some in folders.items() for folder in some])
    values = each_user(aligned)
    means = over_seeds(values)
    rooms: list[dict[str, Any]] = []
    for room in dict.fromkeys(room for room, _ in folders):
        forms = {}
        for form in FORMS:
            name = f"{room} {form}"
            figures = summary({metric: means[name][metric] for metric in METRICS}, seed, users=aligned.owners)
            each = [float(metrics["recall@3"].mean()) for metrics in values[name]]
            forms[form] = {**figures, "seeds": len(each), "recall@3 of seeds": each}
        recent, both = (means[f"{room} {form}"]["recall@3"] for form in FORMS)
        rooms.append({"room": room, "forms": forms, "test": paired_test(both, recent, seed, users=aligned.owners)})
    tests = with_holm([row["test"] for row in rooms])
    return [{**row, "test": test} for row, test in zip(rooms, tests, strict=True)]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: Recall@3 over the room, a line a form. Needs matplotlib."""
    figure = plots.figure(6, 4)
    axes = figure.add_subplot()
    rooms = [row["room"] for row in results["rooms"]]
    for form in FORMS:
        recalls = [row["forms"][form]["recall@3"] for row in results["rooms"]]
        middle = [recall["value"] for recall in recalls]
        error = [
            [recall["value"] - recall["low"] for recall in recalls],
            [recall["high"] - recall["value"] for recall in recalls],
        ]
        axes.errorbar(rooms, middle, yerr=error, fmt="o-", capsize=3, label=form)
    axes.set(xscale="log", xlabel="tokens for what is known of the user", ylabel="Recall@3")
    axes.set_xticks(rooms, map(str, rooms))
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=120)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", help="folder or Hub id with recurrent summaries")
    add("--recipe", required=True, help="name or file")
    add("--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the recipe")
    add("--rooms", type=int, nargs="+", default=(64, 128, 256, 512), help="tokens (64 128 256 512)")
    add("--seeds", type=int, nargs="+", default=(0, 1), help="(0 1)")
    add("--out", type=Path, required=True, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench, and return the exit code."""
    options = arguments().parse_args(argv)

    def recipe(form: str, room: int, seed: int) -> Recipe:
        return recipe_of(options.recipe, options.changes, options.dataset, form, room, seed)

    try:
        common = load_recipe(options.recipe, (*options.changes, f"dataset={options.dataset}"))
        bind(options.out / "runs", adapters.made_from(common, [options.dataset], common.base))
        folders: dict[tuple[int, str], list[Path]] = {(room, form): [] for room in options.rooms for form in FORMS}
        for seed in options.seeds:
            for room, form in folders:
                own = recipe(form, room, seed)
                run = adapters.trained(own, options.out / "runs" / own.name)
                folders[room, form].append(adapters.evaluated(run, run / "test"))
        rooms = measure(folders)
        for row in rooms:
            for form, figures in row["forms"].items():
                figures |= lengths(recipe(form, row["room"], options.seeds[0]))
        about = json.loads((next(iter(folders.values()))[0] / RESULTS_FILE).read_text(encoding="utf-8"))
        results = {
            **{name: about[name] for name in ("dataset", "protocol", "n_users")},
            "base": Path(common.base).name,
            "others": OTHERS,
            "rooms": rooms,
            "baselines": {name: about["systems"][name] for name in BASELINES},
            "versions": versions(),
        }
        write_json(options.out / FRONTIER_FILE, results)
        if plots.available():
            draw(results, options.out / "frontier.png")
    except (TrsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{report.frontier(results)}\n\nWrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
