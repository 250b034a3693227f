"""Every form of ours and every peer on the same candidates: adapters with several seeds, controls, one comparison a dataset.

    python -m bench.recommend data/goodbooks data/goodbooks-popularity --out results

trains the base, then the adapters, and `hub_recipes/baselines.py` beside them in an environment of its own, for which uv has to be
there. Or with what there is already:

    python -m bench.recommend data/goodbooks data/goodbooks-popularity --base data/goodbooks-base \\
        --peers peers --out results

Adapters are trained on the first dataset; the others differ from it in nothing but their negatives. What is finished is
kept: after a kill the same command goes on.
"""

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import adapters
from trsr.dataset import contract
from trsr.errors import DataError, TrsrError
from trsr.pretrain.domain.train import train_domain
from trsr.recommender.compare.run import compare
from trsr.recommender.recipe import load_recipe
from trsr.records.files import bind
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset

BASELINES = Path(__file__).parents[1] / "baselines.py"
REACH = 25  # items that summaries reach back, whatever the size of blocks


@dataclass(frozen=True, slots=True)
class Form:
    """A row of the table: a recipe changed in some places, and how its adapters are measured.

    Attributes:
        changes: Overrides of the recipe.
        block_size: Items a block, where the summaries are to be made again.
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
        return adapters.evaluated(
            run,
            folder,
            split=split,
            adapter=form.adapter,
            dataset=self._source(dataset, form),
            shuffle_summaries=form.shuffle_summaries,
        )

    def _run(self, form: Form, seed: int) -> Path:
        trained = next((other for other in self.forms if other.name == form.trained), form)
        out = self.out / "runs" / f"{trained.name}-{seed}"
        source = self._source(self.datasets[0], trained)
        overrides = (f"base={self.base}", f"dataset={source}", f"name={trained.name}", f"seed={seed}")
        return adapters.trained(load_recipe(self.recipe, (*overrides, *self.changes, *trained.changes)), out)

    def _source(self, dataset: str, form: Form) -> str:
        """The dataset, or what the extractive summarizer makes of it in blocks of another size."""
        if not form.block_size:
            return dataset
        out = self.out / "data" / f"{Path(dataset).name}-{form.block_size}"
        if not (out / contract.PROVENANCE_FILE).exists():
            blocks = math.ceil(REACH / form.block_size)
            summarize_dataset(dataset, out, engine("extractive"), block_size=form.block_size, max_blocks=blocks)
        return str(out)


@contextmanager
def fitting(datasets: Sequence[str], seeds: Sequence[int], out: Path) -> Iterator[subprocess.Popen]:
    """The script of the peers, as a process beside this one.

    Raises:
        DataError: If there is no uv to make its environment, or the script is not there.
    """
    uv = shutil.which("uv")
    if not uv or not BASELINES.is_file():
        raise DataError(
            f"{'No uv' if not uv else f'No {BASELINES.name} beside the package'}, with which peers would be fitted. "
            "Work in a checkout with uv (pip install uv), give what the script wrote (--peers DIR), or leave them out (--no-peers)."
        )
    words = [uv, "run", str(BASELINES), *datasets, "--out", str(out), "--seeds", *map(str, seeds)]
    with subprocess.Popen(words) as process:
        try:
            yield process
        finally:
            process.terminate()


def trained_base(dataset: str, out: Path, **options: Any) -> str:
    """A domain base on the dataset, unless it is there."""
    if not (out / "training.json").exists():
        train_domain(dataset, out, **options)
    return str(out)


def run(bench: Bench, peers: Path | None, fitted: Callable[[], int] = lambda: 0) -> None:
    """Measure, then write `comparison-DATASET` with intervals, tests and slices.

    Args:
        peers: What the script of the peers writes.
        fitted: Waits for it, and returns its exit code.
    """
    sources_of: dict[str, list[str]] = {dataset: [] for dataset in bench.datasets}
    for dataset, form, folder in bench.evaluated():
        sources_of[dataset].append(f"{form.name}={folder}")
    if code := fitted():
        raise DataError(f"{BASELINES.name} ended with exit code {code}; what it said stands above. Call it again.")
    for dataset, sources in sources_of.items():
        name = Path(dataset).name
        beside = sorted(str(folder) for folder in (peers / name).iterdir()) if peers else []
        compare([*sources, *beside], bench.out / f"comparison-{name}", dataset=dataset, against=bench.forms[0].name)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="folders or Hub ids with summaries; the first is trained on")
    add("--base", help="folder or Hub id; without it, one is trained on the first dataset")
    add("--recipe", default="domain", help="(%(default)s)")
    add("--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the recipe, for all forms")
    add("--peers", type=Path, metavar="DIR", help="what hub_recipes/baselines.py wrote; without it, they are fitted")
    add("--no-peers", action="store_true", help="ours alone")
    add("--seeds", type=int, nargs="+", default=(0, 1, 2), help="(0 1 2)")
    add(
        "--ablations",
        action="store_true",
        help="instead of the forms: one thing changed at a time; no peers are fitted",
    )
    add("--forms", nargs="+", metavar="NAME", help="some of them only")
    add("--out", type=Path, required=True, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench, and return the exit code."""
    parser = arguments()
    options = parser.parse_args(argv)
    forms = [
        form
        for form in ((FORMS[0], *ABLATIONS) if options.ablations else FORMS)
        if not options.forms or form.name in options.forms
    ]
    if not forms:
        parser.error(f"--forms takes names of {', '.join(form.name for form in (*FORMS, *ABLATIONS))}.")

    def measured(peers: Path | None, fitted: Callable[[], int] = lambda: 0) -> None:
        recipe = load_recipe(options.recipe, options.changes)
        bind(options.out / "runs", adapters.made_from(recipe, options.datasets, options.base))
        base = options.base or trained_base(options.datasets[0], options.out / "base")
        bench = Bench(options.recipe, options.datasets, base, options.out, options.changes, options.seeds, forms)
        run(bench, peers, fitted)

    try:
        if options.peers or options.no_peers or options.ablations:
            measured(options.peers)
        else:
            with fitting(options.datasets, options.seeds, options.out / "peers") as process:
                measured(options.out / "peers", process.wait)
    except (TrsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
