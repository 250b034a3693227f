"""Measure what shared prefixes save: CPU time and memory, beside how others do it.

examples:
  trsr bench score
  trsr bench train --hybrid --cases 500x4 1500x4 --out hybrid.json
  trsr bench score --model Qwen/Qwen3-0.6B --cases 500x21 --no-sweep --json
"""

import argparse
import os
from pathlib import Path

from trsr.cli.outcome import Outcome, add_json
from trsr.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=("score", "train", "summarize"), help="what is measured")
    add("--model", default="llama", help="folder or Hub id (random weights of a Llama with a body of 23.6 M)")
    add("--hybrid", action="store_true", help="random weights of a Qwen3.5 of about that size, with linear attention")
    add(
        "--cases",
        nargs="+",
        default=[],
        metavar="AxB",
        help="such as 500x21: prefix tokens x candidates (a standard set)",
    )
    add("--rounds", type=int, default=3, help="rounds that every system is measured in (%(default)s)")
    add("--seed", type=int, default=0, help="of weights and prompts (%(default)s)")
    add("--no-sweep", action="store_true", help="score: leave out candidates a second over counts and lengths")
    add("--out", type=Path, default=Path("bench.json"), help="results file (%(default)s)")
    add("--add", action="store_true", help="keep the other cases that --out holds")
    add("--plot", type=Path, help="picture to draw (the results file's name, with .png)")
    add("--no-plot", action="store_true", help="draw none")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    if options.hybrid and options.model != "llama":
        raise UsageError("--hybrid names a model already: leave out --model.")
    # The profiler, which measures memory, would report to the terminal; read when torch is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    from bench.report import details, table
    from bench.run import run

    results = run(
        options.what,
        options.out,
        model="qwen3_5_text" if options.hybrid else options.model,
        cases=options.cases,
        rounds=options.rounds,
        seed=options.seed,
        sweep=not options.no_sweep,
        plot=None if options.no_plot else options.plot or options.out.with_suffix(".png"),
        add=options.add,
    )
    said = f"\n{table(results)}\n\n{details(results)}\n\nOne thread, CPU time. Wrote {options.out}"
    return Outcome(results, said)
