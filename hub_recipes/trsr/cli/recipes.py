"""List the recipes that ship with the package, and what memory they need.

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
    parser.add_argument("--fits", action="store_true", help="count parameters and memory, and say which cards hold it")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.recommender.recipe import load_recipe, names

    recipes = [load_recipe(name) for name in options.recipes or names()]
    if options.fits:
        from trsr.recommender.memory import fits, table

        found = fits(recipes)
        return Outcome(found, table(found))
    lines = [f"{one.name:32} {one.base:40} {one.dataset:24} {one.summary}" for one in recipes]
    return Outcome({"recipes": [one.to_dict() for one in recipes]}, "\n".join(lines))
