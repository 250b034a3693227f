"""Train from scratch: the nano base, its summarising adapter, or a domain base for one dataset.

Nano is trained on synthetic data. A domain base is trained on the histories of a dataset with recurrent summaries; adapters
are then fine-tuned on it as on any other base. A killed run goes on when started again.

examples:
  trsr pretrain nano --out try --steps 500 --seed 1
  trsr pretrain nano-summarizer
  trsr pretrain domain --dataset data/goodbooks --out data/goodbooks-base
"""

import argparse
from pathlib import Path

from trsr.cli.numbers import positive, seed
from trsr.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("nano", "nano-summarizer", "domain"), help="what to train")
    parser.add_argument("--dataset", help="of domain: folder or Hub id with the config recurrent")
    parser.add_argument("--revision", help="of the dataset")
    parser.add_argument("--out", type=Path, help="folder to write (the model's name)")
    parser.add_argument(
        "--steps", type=positive(int), help="optimiser steps (nano 3500, nano-summarizer 6000, domain 5000)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    out = options.out or Path(options.model)
    settings = {"seed": options.seed} | ({"steps": options.steps} if options.steps else {})
    if (options.dataset or options.revision) and options.model != "domain":
        raise UsageError(
            f"{options.model} is trained on synthetic data: leave out --dataset and --revision, or train a domain base."
        )
    if options.model == "nano":
        from trsr.pretrain.nano.base import pretrain

        record = pretrain(out, **settings)
    elif options.model == "nano-summarizer":
        from trsr.pretrain.nano.summarizer import train_summarizer

        record = train_summarizer(out, **settings)
    else:
        from trsr.pretrain.domain.train import train_domain

        if not options.dataset:
            raise UsageError("A domain base is trained on a dataset: give --dataset FOLDER_OR_HUB_ID.")
        record = train_domain(options.dataset, out, revision=options.revision, **settings)
    print(f"Wrote {out}: {record['parameters']} parameters, {record['seconds']} seconds")
