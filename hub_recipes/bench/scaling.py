"""Bases of several sizes on the same users, and an adapter on each: what a wider and deeper one is worth.

    python -m bench.scaling data/goodbooks data/goodbooks-popularity --set train_users=1000 --out scaling

Bases and adapters are trained on the first dataset; the others differ from it in nothing but their negatives. A size is
WIDTHxLAYERS, or WIDTHxLAYERSxSTEPS where it is trained for longer. What is finished is kept: after a kill the same command
goes on.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from bench import adapters
from bench.recommend import FORMS, Bench, trained_base
from trsr.cli.exits import exit_codes_for_errors
from trsr.recommender.compare.run import compare
from trsr.recommender.recipe import load_recipe
from trsr.records.files import bind

HEAD = 32  # width of an attention head


def train_base(dataset: str, out: Path, width: int, layers: int, steps: int, seed: int) -> str:
    """Train a base unless it is there. Returns what it is called in the table."""
    trained_base(dataset, out, seed=seed, steps=steps, hidden=width, layers=layers, heads=width // HEAD)
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    millions, minutes = record["parameters"] / 1e6, record["cpu_seconds"] / 60
    return f"{millions:.1f} M: {width} wide, {layers} layers, {steps:,} steps, {minutes:.0f} CPU minutes"


def size(text: str) -> tuple[int, ...]:
    """Width, layers and, where they are given, steps.

    Raises:
        argparse.ArgumentTypeError: If it is none of that, or the width is no multiple of a head's.
    """
    parts = text.split("x")
    if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) for part in parts) or int(parts[0]) % HEAD:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxLAYERS or WIDTHxLAYERSxSTEPS with a width in {HEAD}s.")
    return tuple(map(int, parts))


def run(
    datasets: Sequence[str], out: Path, sizes: Sequence[tuple[int, ...]], steps: int, changes: Sequence[str], seed: int
) -> None:
    """Train, measure, then write `comparison-DATASET`, every size against the first one.

    Raises:
        UsageError: If `out` was begun with another recipe, seed or data.
        DataError: If two datasets have one name.
    """
    bind(out, {**adapters.made_from(load_recipe("domain", changes), datasets, None), "seed": seed})
    sources_of: dict[str, list[str]] = {dataset: [] for dataset in datasets}
    for width, layers, *longer in sizes:
        count = longer[0] if longer else steps
        folder = out / f"{width}x{layers}x{count}"
        name = train_base(datasets[0], folder / "base", width, layers, count, seed)
        bench = Bench("domain", datasets, str(folder / "base"), folder, changes, (seed,), FORMS[:1])
        for dataset, _, figures in bench.evaluated():
            sources_of[dataset].append(f"{name}={figures}")
    for dataset, sources in sources_of.items():
        against = sources[0].split("=")[0]
        compare(sources, out / f"comparison-{Path(dataset).name}", dataset=dataset, against=against)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="folders or Hub ids with recurrent summaries")
    add("--sizes", type=size, nargs="+", default=[(64, 2), (128, 4), (192, 6)], metavar="SIZE")
    add("--steps", type=int, default=400, help="of a size that names none (%(default)s)")
    add("--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the recipe of the adapters")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--out", type=Path, required=True, metavar="DIR")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        run(options.datasets, options.out, options.sizes, options.steps, options.changes, options.seed)


if __name__ == "__main__":
    main()
