"""Every form of ours and every peer on the same candidates: adapters with several seeds, controls, one comparison a dataset.

    trsr pretrain domain --dataset data/goodbooks --out data/goodbooks-base
    uv run hub_recipes/baselines.py data/goodbooks data/goodbooks-popularity --out peers
    python -m trsr.bench.recommend data/goodbooks data/goodbooks-popularity --base data/goodbooks-base \\
        --peers peers --out results

Adapters are trained on the first dataset; the others differ from it in nothing but their negatives. What is finished is
kept: after a kill the same command goes on.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trsr import data
from trsr.compare.run import compare
from trsr.engines import engine
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import load_recipe
from trsr.recommender.results import FILE
from trsr.recommender.train import train
from trsr.summaries.run import summarize_dataset

REACH = 25  # items that summaries reach back, whatever the size of blocks


@dataclass(frozen=True, slots=True)
class Form:
    """A row of the table: a recipe changed in some places, and how its adapters are measured.

    Attributes:
        changes: Overrides of the recipe.
        block_size: Items a block, where the summaries are to be made anew.
        trained: Name of the form whose adapters it measures; its own unless it is a control.
        adapter, shuffle_summaries: As in `evaluate_run`.
        calibrated: Measure it on validation users too, which gives the temperature of its P(yes).
    """

    name: str
    changes: tuple[str, ...] = ()
    block_size: int | None = None
    trained: str = ""
    adapter: bool = True
    shuffle_summaries: bool = False
    calibrated: bool = False


FORMS = (
    Form("recurrent", calibrated=True),
    Form("hierarchical", ("summary=hierarchical", "targets=1")),
    Form("recent only", ("summary=none",)),
    Form("recurrent, summaries shuffled", trained="recurrent", shuffle_summaries=True),
    Form("base, zero-shot", trained="recurrent", adapter=False),
)
# Each differs from `recurrent` in one thing; without a summary, from the one above it.
ABLATIONS = (
    *(Form(f"recent items {count}", (f"recent_items={count}",)) for count in (0, 1, 3, 5, 25)),
    *(Form(f"recent items {count}, no summary", ("summary=none", f"recent_items={count}")) for count in (1, 3, 5, 25)),
    *(Form(f"blocks of {count}", block_size=count) for count in (3, 10)),
    *(Form(f"negatives {count}", (f"negatives={count}",)) for count in (1, 8)),
    *(Form(f"LoRA rank {rank}", (f"lora.r={rank}", f"lora.alpha={2 * rank}")) for rank in (2, 32)),
    *(Form(f"listwise {share}", (f"listwise={share}",)) for share in (0.0, 1.0)),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured on what.

    Attributes:
        datasets: The first one is trained on.
        base: Folder or Hub id of the base of all adapters.
        changes: Overrides of the recipe, for all forms.
    """

    recipe: str
    datasets: Sequence[str]
    base: str
    out: Path
    changes: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    forms: Sequence[Form] = field(default=FORMS)

    def evaluated(self) -> Iterator[tuple[str, Form, Path]]:
        """Train and evaluate, a seed at a time. Yields dataset, form and the folder of the figures."""
        for seed in self.seeds:
            for form in self.forms:
                if not form.adapter and seed != self.seeds[0]:
                    continue
                run = self._run(form, seed)
                for dataset in self.datasets:
                    for split in ("test", "validation") if form.calibrated else ("test",):
                        yield dataset, form, self._evaluate(form, seed, run, dataset, split)

    def _evaluate(self, form: Form, seed: int, run: Path, dataset: str, split: str) -> Path:
        folder = self.out / "evaluated" / Path(dataset).name / f"{form.name}-{seed}"
        if split != "test":
            folder = folder.with_name(f"{folder.name}-{split}")
        if not (folder / FILE).exists():
            evaluate_run(
                run,
                folder,
                split=split,
                adapter=form.adapter,
                dataset=self._source(dataset, form),
                shuffle_summaries=form.shuffle_summaries,
            )
        return folder

    def _run(self, form: Form, seed: int) -> Path:
        made = next((one for one in self.forms if one.name == form.trained), form)
        out = self.out / "runs" / f"{made.name}-{seed}"
        if not (out / "run.json").exists():
            source = self._source(self.datasets[0], made)
            given = (f"base={self.base}", f"dataset={source}", f"name={made.name}", f"seed={seed}")
            train(load_recipe(self.recipe, (*given, *self.changes, *made.changes)), out)
        return out

    def _source(self, dataset: str, form: Form) -> str:
        """The dataset, or what the extractive summarizer makes of it in blocks of another size."""
        if not form.block_size:
            return dataset
        out = self.out / "data" / f"{Path(dataset).name}-{form.block_size}"
        if not (out / data.PROVENANCE).exists():
            blocks = math.ceil(REACH / form.block_size)
            summarize_dataset(dataset, out, engine("extractive"), block_size=form.block_size, max_blocks=blocks)
        return str(out)


def run(bench: Bench, peers: Path | None) -> None:
    """Measure, then write `comparison-DATASET` with intervals, tests and slices."""
    found: dict[str, list[str]] = {dataset: [] for dataset in bench.datasets}
    for dataset, form, folder in bench.evaluated():
        found[dataset].append(f"{form.name}={folder}")
    for dataset, sources in found.items():
        name = Path(dataset).name
        beside = sorted(str(folder) for folder in (peers / name).iterdir()) if peers else []
        compare([*sources, *beside], bench.out / f"comparison-{name}", dataset=dataset, against=bench.forms[0].name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="folders or Hub ids with summaries; the first is trained on")
    add("--base", required=True, help="folder or Hub id")
    add("--recipe", default="nano-goodbooks", help="(%(default)s)")
    add("--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the recipe, for all forms")
    add("--peers", type=Path, metavar="DIR", help="what hub_recipes/baselines.py wrote")
    add("--seeds", type=int, nargs="+", default=(0, 1, 2), help="(0 1 2)")
    add("--ablations", action="store_true", help="instead of the forms: one thing changed at a time")
    add("--forms", nargs="+", metavar="NAME", help="some of them only")
    add("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    forms = [
        form
        for form in ((FORMS[0], *ABLATIONS) if options.ablations else FORMS)
        if not options.forms or form.name in options.forms
    ]
    if not forms:
        parser.error(f"--forms takes names of {', '.join(form.name for form in (*FORMS, *ABLATIONS))}.")
    run(
        Bench(options.recipe, options.datasets, options.base, options.out, options.changes, options.seeds, forms),
        options.peers,
    )
