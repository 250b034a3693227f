"""List the recipes that ship with the package.

examples:
  trsr recipes
  trsr recipes --json | jq -r '.recipes[].base' | sort -u
"""

import argparse

from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.recipe import load_recipe, names

    recipes = [load_recipe(name) for name in names()]
    lines = [f"{one.name:32} {one.base:40} {one.dataset:24} {one.summary}" for one in recipes]
    return Outcome({"recipes": [one.to_dict() for one in recipes]}, "\n".join(lines))
