"""Measure how faithful summaries are to their histories: what they cover, omit and invent, compared with controls.

examples:
  trsr audit data/mine-summaries
  trsr audit data/mine-summaries --write       keeps the results for the card of a release
  trsr audit ORG/trsr-mind --limit 1000 --json | jq .warnings
"""

import argparse
import sys
from pathlib import Path

from trsr.cli.numbers import count, seed
from trsr.cli.outcome import Outcome, add_json
from trsr.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="folder or Hub id with summaries")
    parser.add_argument("--revision", help="revision of the dataset")
    parser.add_argument(
        "--limit", type=count, default=0, metavar="N", help="first rows of each split; items whole (all)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the controls (%(default)s)")
    parser.add_argument(
        "--write", action="store_true", help="keep the results in the dataset folder, for the card of a release"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.summaries.audit.report import as_text
    from trsr.summaries.audit.run import audit, write

    folder = Path(options.dataset)
    if options.write and not folder.is_dir():
        raise UsageError(f"--write takes a dataset folder on this machine, got {options.dataset!r}.")
    results = audit(options.dataset, revision=options.revision, limit=options.limit, seed=options.seed)
    if options.write:
        print(f"Wrote {write(results, folder)}", file=sys.stderr)
    return Outcome(results, as_text(results, options.dataset))
