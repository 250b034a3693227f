"""Measure what shared prefixes save, CPU time and memory, beside how others do it: from cases to JSON, a table, a picture.

examples, from the top of a checkout with the package installed:
  python -m bench.run score
  python -m bench.run train --hybrid --cases 500x4 1500x4 --out hybrid.json
  python -m bench.run score --model Qwen/Qwen3-0.6B --cases 500x21 --no-sweep
"""

import argparse
import importlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plot as picture
from bench import report
from trsr.cli.exits import exit_codes_for_errors
from trsr.errors import UsageError
from trsr.records.files import write_text
from trsr.records.versions import versions
from trsr.report import plots

BENCHES = ("score", "train", "summarize")


def run(
    bench: str,
    out: Path,
    *,
    model: str = "llama",
    cases: Sequence[str] = (),
    rounds: int = 3,
    seed: int = 0,
    sweep: bool = True,
    plot: Path | None = None,
    add: bool = False,
) -> dict[str, Any]:
    """Measure and write `out` after every case, then `plot`.

    Args:
        bench: One of BENCHES.
        model: An architecture of `workloads.CONFIGS`, a folder or a Hub id.
        cases: As 500x21; the benchmark's own when empty.
        rounds: Rounds that every system is measured in.
        sweep: Also measure candidates a second over counts and lengths (`score`).
        add: Keep the cases that `out` holds and that are not asked for again.

    Raises:
        ValueError: If a case is not written like that, or `out` holds another benchmark's figures, or a system of ours
            is not exact; the files are written even then.
    """
    if plot:
        plots.check("--no-plot")
    from bench import workloads
    from bench.measure import steady
    from trsr.core.prompts import Encoder

    work = importlib.import_module(f"bench.{bench}")
    wanted = [_pair(case, work.UNIT) for case in cases or work.CASES]
    if rounds < 1:
        raise UsageError(f"--rounds must be at least 1, got {rounds}.")
    with steady():
        network, tokenizer = workloads.load(model, seed)
        network = work.prepare(network, seed)
        encoder = Encoder(tokenizer)
        results: dict[str, Any] = {
            "bench": bench,
            "unit": list(work.UNIT),
            "model": workloads.describe(model, network),
            "seed": seed,
            "rounds": rounds,
            "method": METHOD,
            "processor": processor(),
            "versions": versions(),
            "cases": [],
        }
        if add:
            results = _kept(out, results)
        for pair in wanted:
            print(f"{bench} {pair[0]} x {pair[1]}: {rounds} rounds", flush=True)
            new_case = work.case(network, encoder, *pair, rounds, seed)
            others = [case for case in results["cases"] if _numbers(case, work.UNIT) != pair]
            results["cases"] = sorted([*others, new_case], key=lambda case: _numbers(case, work.UNIT)[::-1])
            write(out, results)
        if bench == "score" and sweep:
            print("score: candidates a second over their number and over the prefix", flush=True)
            results["sweep"] = work.sweep(network, encoder, min(rounds, 2), seed)
            write(out, results)
    if plot:
        picture.draw(results, plot)
    if faults := report.wrong(results):
        raise UsageError(f"Not exact: {'; '.join(faults)}. The figures are in {out}.")
    return results


METHOD = {
    "threads": 1,
    "clock": "time.process_time, the CPU time of the process",
    "rounds": "all systems in turn in one process, in another order each round, after a run of each that is not timed",
    "ratio": "seconds of a system over seconds of the best of ours in the same round",
    "measured_share": "part of the tokens that was run, where forwards share nothing; seconds and tokens are divided by it",
    "flops_ratio": "operations of a system over the least possible, from the config: weights and attention",
    "peak_mib": "torch's CPU allocator while a system runs, above what was held before (torch.profiler)",
    "difference": "largest difference from one prompt at a time: log-odds; gradients relative to their largest entry; "
    "part of the summaries that differ",
}


def _kept(out: Path, results: dict) -> dict:
    if not out.exists():
        return results
    before = json.loads(out.read_text(encoding="utf-8"))
    same = ("bench", "model", "seed", "rounds", "method", "processor", "versions")
    if changed := [name for name in same if before.get(name) != results[name]]:
        raise UsageError(
            f"{out} was measured otherwise ({', '.join(changed)}): choose another --out, or leave --add out."
        )
    return before


def _pair(text: str, unit: Sequence[str]) -> tuple[int, int]:
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise UsageError(f"A case is {unit[0].upper()}x{unit[1].upper()}, such as 500x21, got {text!r}.")
    return int(first), int(second)


def _numbers(case: dict, unit: Sequence[str]) -> tuple[int, ...]:
    return tuple(case[name] for name in unit)


def write(out: Path, results: dict) -> None:
    """Write a results file whole or not at all."""
    write_text(out, json.dumps(results, indent=1) + "\n")


def processor() -> str:
    """What the machine's processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", choices=BENCHES, help="what is measured")
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
    options = parser.parse_args(arguments)
    if options.hybrid and options.model != "llama":
        parser.error("--hybrid names a model already: leave out --model.")
    with exit_codes_for_errors():
        # The profiler, which measures memory, would report to the terminal; read when torch is imported.
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")
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
        print(f"\n{report.table(results)}\n\n{report.details(results)}\n\nOne thread, CPU time. Wrote {options.out}")


if __name__ == "__main__":
    main()
