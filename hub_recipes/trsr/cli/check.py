"""Check a dataset: data contract, leaks of the target, and problems for training.

Exit code: 0 without errors, 1 with errors, 2 if the dataset cannot be read.

examples:
  trsr check data/mine
  trsr check ORG/trsr-mind --limit 1000 --strict
  trsr check data/mine --json | jq .counts
"""

import argparse

from trsr.cli.exits import Exit
from trsr.cli.numbers import count
from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="folder or Hub id; or: sample")
    parser.add_argument("--revision", help="revision of the dataset")
    parser.add_argument(
        "--limit", type=count, default=0, metavar="N", help="first rows of each split; items whole (all)"
    )
    parser.add_argument("--examples", type=count, default=3, metavar="N", help="examples of each finding (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from datasets.utils import logging

    from trsr.dataset.check.report import as_dict, as_text
    from trsr.dataset.check.run import check

    # `datasets` logs the content of unreadable files unescaped; the report escapes it.
    logging.set_verbosity(logging.CRITICAL)
    report = check(options.dataset, revision=options.revision, limit=options.limit, examples=options.examples)
    failed = report.failed(strict=options.strict)
    return Outcome(as_dict(report), as_text(report), Exit.PROBLEMS_FOUND if failed else Exit.SUCCESS)
