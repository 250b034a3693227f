"""Fine-tune a base with LoRA by recipe.

A recipe is a name (see: trsr recipes) or a YAML file; key=value changes any setting in it. A killed run goes on from its last
checkpoint. On several GPUs: accelerate launch --config_file hub_recipes/accelerate/gpus.yaml -m trsr train RECIPE

examples:
  trsr train nano-sample
  trsr train nano-sample dataset=data/mine-summaries name=mine seed=1 --out runs/mine
  trsr train qwen3-0.6b-goodbooks negatives=4 targets=4 watch.steps=50 watch.report_to=tensorboard
"""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument("recipe", help="name or YAML file")
    recipe.completer = _names  # type: ignore[attr-defined]  # for argcomplete
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 optim.epochs=3")
    parser.add_argument("--out", type=Path, help="run folder (runs/NAME)")


def run(options: argparse.Namespace) -> None:
    from trsr.recommender.recipe import load_recipe

    # Before torch is imported, so that mistakes in the recipe are reported at once.
    recipe = load_recipe(options.recipe, options.overrides)
    from trsr.recommender.train import train

    out = options.out or Path("runs") / recipe.name
    record = train(recipe, out)
    print(f"Wrote {out}: {record['steps']} steps, loss {record['loss']}, {record['seconds']} seconds")


def _names(**_: object) -> list[str]:
    from trsr.recommender.recipe import names

    return names()
