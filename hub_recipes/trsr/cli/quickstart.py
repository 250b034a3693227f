"""Run the whole method on the sample that ships with the package, in minutes.

Offline and on a CPU: summaries, three fine-tuned recommenders, their ranking, the release folders. A killed run goes on
when started again. With --base a pretrained language model does it for some of the users: it writes the summaries and, with
an adapter, ranks.

examples:
  trsr quickstart
  trsr quickstart --out try-1 --seed 1
  trsr quickstart --base smollm2 --out trsr-smollm2
"""

import argparse
from pathlib import Path

from trsr.cli.numbers import seed


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("trsr-quickstart"), help="folder to write (%(default)s)")
    parser.add_argument("--base", help="smollm2, gemma3-270m, a folder or a Hub id (the nano base in the package)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of training and evaluation (%(default)s)")


def run(options: argparse.Namespace) -> None:
    from trsr.quickstart import quickstart

    quickstart(options.out, options.seed, base=options.base)
