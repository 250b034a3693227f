"""Train an adapter that summarises so that a finished run's ranker finds the true next item.

Of several summaries a training user, sampled from the run's base, it keeps the one under which the ranker gives the true next
item the most, and fine-tunes the base on those. The run's dataset must hold summaries of that base. A killed run goes on.
Then: trsr summarize DATASET --out DIR --engine transformers:BASE --adapter OUT

examples:
  trsr train-summarizer runs/smollm2 --out adapters/smollm2 --users 300
  trsr train-summarizer runs/smollm2 --out adapters/try --users 8 --samples 3 --margin 0
"""

import argparse
from pathlib import Path

from trsr.cli.numbers import seed


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run: its ranker, base and dataset")
    add(
        "--out",
        type=Path,
        required=True,
        help="folder of the adapter to write; OUT-work holds what a killed run goes on from",
    )
    add("--dataset", help="where the run's dataset is (where its recipe says)")
    add(
        "--users",
        type=int,
        default=0,
        metavar="N",
        help="training users, those new to the ranker first; 0 is all (%(default)s)",
    )
    add("--samples", type=int, default=4, help="summaries a user (%(default)s)")
    add("--temperature", type=float, default=0.7, help="of the samples (%(default)s)")
    add(
        "--margin", type=float, default=0.05, help="nats above the mean of the user's samples, to be kept (%(default)s)"
    )
    add("--epochs", type=float, default=3.0, help="of fine-tuning (%(default)s)")
    add("--learning-rate", type=float, default=2e-4, help="(%(default)s)")
    add("--batch-size", type=int, default=8, help="answers a step (%(default)s)")
    add("--seed", type=seed, default=0, help="of samples and fine-tuning (%(default)s)")


def run(options: argparse.Namespace) -> None:
    from trsr.recommender.summarizer.fine_tune import Tuning
    from trsr.recommender.summarizer.run import train_summarizer

    record = train_summarizer(
        options.run,
        options.out,
        samples=options.samples,
        temperature=options.temperature,
        margin=options.margin,
        users=options.users,
        seed=options.seed,
        tuning=Tuning(options.epochs, options.learning_rate, options.batch_size),
        dataset=options.dataset,
    )
    print(
        f"Wrote {options.out}: kept {record['kept']} of {record['users']} users' best summaries, "
        f"{record['mean_gain_of_kept']} nats above the users' means; {record['steps']} steps, {record['seconds']} seconds"
    )
