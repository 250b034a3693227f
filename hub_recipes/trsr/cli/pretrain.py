"""Train a small base from scratch: nano on made-up worlds, or one that knows a dataset's items.

The second kind learns from the histories of a dataset with recurrent summaries; adapters are then fine-tuned on it as on any
other base. Killed, it goes on.

examples:
  trsr pretrain nano
  trsr pretrain nano --out try --steps 500 --seed 1
  trsr pretrain domain --dataset data/goodbooks --out data/goodbooks-base
"""

import argparse
from pathlib import Path

STEPS = {"nano": 3500, "domain": 2400}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=tuple(STEPS), help="what to train")
    parser.add_argument("--dataset", help="of domain: folder or Hub id with the config recurrent")
    parser.add_argument("--revision", help="of the dataset")
    parser.add_argument("--out", type=Path, help="folder to write (the model's name)")
    parser.add_argument("--steps", type=int, help="optimiser steps (nano 3500, domain 2400)")
    parser.add_argument("--hidden", type=int, default=128, help="width (%(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    out, steps = options.out or Path(options.model), options.steps or STEPS[options.model]
    size = {"hidden": options.hidden, "layers": options.layers}
    if options.model == "nano":
        from trsr.pretrain import pretrain

        made = pretrain(out, seed=options.seed, steps=steps, **size)
    else:
        from trsr.domain.train import train_domain

        if not options.dataset:
            raise ValueError("A domain base is trained on a dataset: give --dataset FOLDER_OR_HUB_ID.")
        made = train_domain(options.dataset, out, revision=options.revision, seed=options.seed, steps=steps, **size)
    print(f"Wrote {out}: {made['parameters']} parameters, {made['seconds']} seconds")
