"""Train the nano base from scratch, on text of made-up worlds.

examples:
  trsr pretrain nano
  trsr pretrain nano --out try --steps 500 --seed 1
"""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("nano",), help="what to train")
    parser.add_argument("--out", type=Path, default=Path("nano"), help="folder to write (%(default)s)")
    parser.add_argument("--steps", type=int, default=3500, help="optimiser steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    from trsr.pretrain import pretrain

    made = pretrain(options.out, seed=options.seed, steps=options.steps)
    print(f"Wrote {options.out}: {made['parameters']} parameters, {made['seconds']} seconds")
