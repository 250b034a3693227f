"""Compare evaluations of the same candidates: intervals, paired tests, slices, plots.

examples:
  trsr compare runs/recurrent/test runs/hierarchical/test
  trsr compare ours=runs/a/test ours=runs/b/test theirs=runs/c/test --dataset data/mine-summaries
  trsr compare runs/a/test runs/b/test --json | jq .paired
  trsr compare runs/a/test-limit-1000 runs/retriever/test --shared-users --fuse --fuse retriever item-knn tf-idf

--fuse adds the scores of systems, normalised for each user, with weights that are fitted on the validation split: its evaluation
stands beside that of the test split (RUN/validation, or TEST-validation), or is named behind a comma.
"""

import argparse
from pathlib import Path

from trsr.cli.numbers import seed
from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "results",
        nargs="+",
        metavar="[NAME=]RESULTS[,VALIDATION]",
        help="folders with scores; those of one name are its seeds",
    )
    add("--out", type=Path, default=Path("comparison"), help="folder to write (%(default)s)")
    add("--dataset", help="folder or Hub id that the users come from: adds slices")
    add("--category", metavar="COLUMN", help="of the items, for the slices (category, genre, genres, topic, ...)")
    add("--metric", default="recall@3", help="of tests, slices and plots (%(default)s)")
    add("--against", metavar="SYSTEM", help="test all others against this one (all pairs)")
    add(
        "--fuse",
        nargs="*",
        action="append",
        default=[],
        metavar="SYSTEM",
        help="add the scores of these systems (of all evaluated runs); may be given several times",
    )
    add(
        "--shared-users",
        action="store_true",
        help="compare the users that all hold, where a slow system was evaluated on fewer",
    )
    add("--seed", type=seed, default=0, help="of bootstrap and tests (%(default)s)")
    add("--no-plots", action="store_true", help="draw none")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.recommender.compare.report import document
    from trsr.recommender.compare.run import compare
    from trsr.report import plots

    results = compare(
        options.results,
        options.out,
        dataset=options.dataset,
        category=options.category,
        metric=options.metric,
        against=options.against,
        fuse=options.fuse,
        shared_users=options.shared_users,
        seed=options.seed,
        plots=not options.no_plots,
    )
    undrawn = not options.no_plots and not plots.available()
    note = f"; without pictures, which need matplotlib: {plots.INSTALL}" if undrawn else ""
    return Outcome(results, f"{document(results)}\nWrote {options.out}{note}")
