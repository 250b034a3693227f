"""The dataset scripts on made-up logs of full size: seconds, rows a second and memory, beside row by row with pandas.

python -m bench.data --work FOLDER --scripts dataset_scripts --out hub_recipes/results/bench-data.json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.raw import write_amazon_m2, write_mind
from bench.run import processor, write
from trsr.records.files import bind, whole_folder
from trsr.records.versions import versions

SHARE = 100  # the slice is one in so many users
METHOD = {
    "logs": "made up by bench.raw in the size and skew of the real ones",
    "work": "all users with 11 to 26 items, 20 negatives each, the catalogue with its texts, to Parquet",
    "slice": "1 in 100 users with all their rows, and the whole catalogue",
    "row by row": "bench.by_rows on the slice, where the texts of 1 in 100 items are made",
    "seconds": "wall clock of the whole command, imports included",
    "cpu_seconds": "user and system time of the command and its children",
    "peak_mib": "resident memory of the process and its children, looked at 20 times a second",
    "fixed_cpu_seconds": "of row by row: imports and reading the catalogue, which a larger log does not lengthen",
    "times": "CPU seconds of row by row, its fixed ones and 100 times the others, over those of ours on the whole log",
}


def measure(command: Sequence[str], rows: int) -> dict[str, Any]:
    """Run a command that reads `rows` rows of a log. Raises RuntimeError if it fails."""
    before, began = os.times(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = 0
    while process.poll() is None:
        try:
            here = psutil.Process(process.pid)
            peak = max(peak, sum(program.memory_info().rss for program in (here, *here.children(recursive=True))))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed; run it to see why.")
    seconds, after = time.monotonic() - began, os.times()
    # Windows keeps no account of children: 0 there.
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rows_a_second": round(rows / seconds),
        "rows_a_cpu_second": round(rows / cpu) if cpu else None,
        "peak_mib": peak >> 20,
        **(json.loads(said) if said.startswith("{") else {}),
    }


def slice_mind(folder: Path, out: Path) -> int:
    """One in SHARE users of MIND. Returns the rows."""
    out.mkdir(parents=True)
    shutil.copyfile(folder / "news.tsv", out / "news.tsv")
    rows = 0
    with (folder / "behaviors.tsv").open("rb") as log, (out / "behaviors.tsv").open("wb") as some:
        for line in log:
            cells = line.split(b"\t", 2)
            if len(cells) > 2 and zlib.crc32(cells[1]) % SHARE == 0:
                some.write(line)
                rows += 1
    return rows


def slice_amazon_m2(folder: Path, out: Path) -> int:
    """One in SHARE sessions of Amazon-M2. Returns the rows."""
    out.mkdir(parents=True)
    shutil.copyfile(folder / "products_train.csv", out / "products_train.csv")
    content = (folder / "sessions_train.csv").read_bytes()
    header, _, rest = content.partition(b"\n")
    # A session ends with its locale.
    ended = rest.replace(b",UK\n", b",UK\0").replace(b",DE\n", b",DE\0").split(b"\0")[:-1]
    some = ended[::SHARE]
    (out / "sessions_train.csv").write_bytes(header + b"\n" + b"\n".join(some) + b"\n")
    return len(some)


CASES = ("mind", "amazon-m2", "impressions")


def run(work: Path, scripts: Path, out: Path, seed: int = 0, cases: Sequence[str] = CASES) -> dict[str, Any]:
    """Measure cases, and write `out` after each; what it holds of other cases stays.

    Args:
        work: Takes the logs, which are made where they are missing, and the datasets, which are removed again. A folder
            of its own, for logs of one seed.
        scripts: The folder of the dataset scripts.
    """
    bind(work, {"bench": "data", "seed": seed})
    results: dict[str, Any] = {
        "bench": "data",
        "seed": seed,
        "workers": 2,
        "method": METHOD,
        "processor": processor(),
        "versions": versions() | {name: version(name) for name in ("pyarrow", "pandas")},
        "cases": [],
    }
    if out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if before["seed"] == seed and before["processor"] == results["processor"]:
            results["cases"] = before["cases"]
    dataset = work / "dataset"

    def ours(script: str, *arguments: str, rows: int) -> dict[str, Any]:
        shutil.rmtree(dataset, ignore_errors=True)
        cost = measure([sys.executable, str(scripts / script), *arguments, "--out", str(dataset)], rows)
        counts = json.loads((dataset / "provenance.json").read_text(encoding="utf-8"))["counts"]
        shutil.rmtree(dataset)
        return {**cost, "counts": counts}

    def by_rows(what: str, folder: Path, rows: int) -> dict[str, Any]:
        command = [sys.executable, "-m", "bench.by_rows", what, str(folder), str(dataset), str(1 / SHARE)]
        try:
            return measure(command, rows)
        finally:
            shutil.rmtree(dataset, ignore_errors=True)

    def add(name: str, log: Path, systems: dict[str, dict[str, Any]]) -> None:
        case = {"data": name, "log_bytes": log.stat().st_size, "systems": systems}
        if "row by row" in systems:
            fixed = systems["row by row"]["fixed_cpu_seconds"]
            theirs = fixed + SHARE * (systems["row by row"]["cpu_seconds"] - fixed)
            case["times"] = round(theirs / systems["ours"]["cpu_seconds"], 1)
        results["cases"] = [earlier for earlier in results["cases"] if earlier["data"] != name] + [case]
        write(out, results)
        print(json.dumps(case), flush=True)

    for name, script, log, make, cut in (
        ("mind", "mind.py", "behaviors.tsv", write_mind, slice_mind),
        ("amazon-m2", "amazon_m2.py", "sessions_train.csv", write_amazon_m2, slice_amazon_m2),
    ):
        if name not in cases:
            continue
        whole, part = work / name, work / f"{name}-slice"
        if not whole.is_dir():
            with whole_folder(whole) as draft:
                make(draft, seed=seed)
        shutil.rmtree(part, ignore_errors=True)
        few = cut(whole, part)
        rows = {"mind": 2_200_000, "amazon-m2": 1_320_000}[name]
        everyone = ("--train", "all")
        small = (*everyone, "--validation", "50", "--test", "50")
        systems = {
            "ours": ours(script, str(whole), *everyone, rows=rows),
            "ours, slice": ours(script, str(part), *small, rows=few),
            "row by row": by_rows(name, part, few),
        }
        add(f"{name}, paper", whole / log, systems)
    if "impressions" not in cases:
        return results
    dev = work / "mind-dev"
    if not dev.is_dir():
        with whole_folder(dev) as draft:
            write_mind(draft, users=255_000, impressions=376_000, seed=seed + 1)
    arguments = (str(work / "mind"), str(dev), "--protocol", "impressions")
    add("mind, impressions", work / "mind" / "behaviors.tsv", {"ours": ours("mind.py", *arguments, rows=2_576_000)})
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for logs and datasets: 5 GB")
    parser.add_argument("--scripts", type=Path, default=Path("dataset_scripts"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data.json"), help="results file (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the logs (%(default)s)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="(all)")
    options = parser.parse_args()
    run(options.work, options.scripts, options.out, options.seed, options.cases)
