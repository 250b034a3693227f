"""List the recipes in the package, and the memory that they need.

examples:
  trsr recipes
  trsr recipes --fits
  trsr recipes mine.yaml qwen3-0.6b-goodbooks --fits
  trsr recipes --json | jq -r '.recipes[].base'
"""

import argparse

from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="*", metavar="recipe", help="names or YAML files (all that ship)")
    parser.add_argument("--fits", action="store_true", help="count parameters and memory, and show which GPUs suffice")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.recommender.recipe import load_recipe, names

    recipes = [load_recipe(name) for name in options.recipes or names()]
    if options.fits:
        from trsr.recommender.memory import estimate_memory, table

        results = estimate_memory(recipes)
        return Outcome(results, table(results))
    lines = [f"{recipe.name:32} {recipe.base:40} {recipe.dataset:24} {recipe.summary}" for recipe in recipes]
    return Outcome({"recipes": [recipe.to_dict() for recipe in recipes]}, "\n".join(lines))
