"""Rank the released candidates with a finished run, beside simple peers, and measure.

On the validation split it also fits temperature and bias of P(yes). Killed, it goes on.

examples:
  trsr evaluate runs/mine --split validation
  trsr evaluate runs/mine
  trsr evaluate runs/mine --dataset data/mine-popularity --history shuffled
  trsr evaluate runs/mine --json | jq '.systems.mine["recall@3"]'
"""

import argparse
from pathlib import Path

from trsr.cli.numbers import count, seed
from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, help="folder to write (RUN/SPLIT; what is limited or changed beside it)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--limit", type=count, default=0, help="first users only (all)")
    parser.add_argument("--seed", type=seed, default=0, help="order of candidates and bootstrap (%(default)s)")
    parser.add_argument("--no-adapter", action="store_true", help="the base as it is (zero-shot)")
    parser.add_argument("--dataset", help="folder or Hub id to evaluate on (what the run was trained on)")
    parser.add_argument(
        "--shuffle-summaries", action="store_true", help="a control: rank each user with another user's summary"
    )
    parser.add_argument(
        "--history", metavar="ORDER", help="a control: recent items shuffled, reversed, or the newest alone (last:N)"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.recommender.compare import verdict
    from trsr.recommender.evaluate import evaluate_run
    from trsr.recommender.results import table
    from trsr.recommender.results_folder import results_folder

    out = options.out or results_folder(
        options.run,
        options.split,
        limit=options.limit,
        adapter=not options.no_adapter,
        dataset=options.dataset,
        shuffle=options.shuffle_summaries,
        history=options.history,
    )
    results = evaluate_run(
        options.run,
        out,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        adapter=not options.no_adapter,
        dataset=options.dataset,
        shuffle_summaries=options.shuffle_summaries,
        history=options.history,
    )
    parts = [
        verdict.of_evaluation(results, out),
        table(results["systems"]),
        results.get("not_fitted"),
        f"{results['n_users']} users. Wrote {out}",
    ]
    return Outcome(results, "\n\n".join(part for part in parts if part))
