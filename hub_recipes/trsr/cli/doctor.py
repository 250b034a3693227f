"""Look at versions, a ranking, device, disk, token and the Hub, and say what to do.

Ranks a known request with the recommender in the package, and names every pair of versions that does not fit.
Exit code: 0, or 1 if files are missing, versions do not fit, or the ranking is not the known one. A token is never
shown, only whether there is one.

examples:
  trsr doctor
  trsr doctor --offline --json | jq .device
"""

import argparse

from trsr.cli.exits import Exit
from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="ask nothing of the Hub")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.doctor import advice, broken, examine

    found = examine(options.offline)
    lines = []
    for section, values in found.items():
        if section != "conflicts":  # told below, with what mends them
            lines += [section, *(f"  {name:14} {value}" for name, value in values.items())]
    told = advice(found)
    return Outcome(
        {**found, "advice": told}, "\n".join([*lines, "", *told]).rstrip(), Exit.FOUND if broken(found) else Exit.DONE
    )
