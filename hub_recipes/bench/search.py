"""Search over a catalogue of a million made-up vectors, exact and approximate: memory, time a user, and what is found.

    python -m bench.search --out hub_recipes/results/bench-search.json

Vectors lie in clusters, as items of a kind do; a user is the mean of a few items of some clusters.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.run import processor, write
from trsr.cli.exits import ended
from trsr.records.costs import peak_mib
from trsr.records.versions import versions
from trsr.retrieval.approximate import ApproximateIndex
from trsr.retrieval.search import largest

K = 100
PROBES = (4, 16, 64)
SINGLE = 20  # users who come one by one
METHOD = {
    "vectors": "normal noise around normal centres, one centre for 500 items; a user is the mean of 5 items of 2 centres, and noise",
    "milliseconds": "CPU time a user on one thread, of all users at once and of the first 20 one by one",
    "peak_mib": "resident memory of a process that holds the vectors and searches in one way alone",
    "recall": "share of the 100 items with the largest products that are among those found",
}


def vectors(items: int, users: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items (items, width) and users (users, width), float32."""
    random = np.random.default_rng(seed)
    n_centres = max(2, items // 500)
    centres = random.standard_normal((n_centres, width), np.float32)
    made = random.standard_normal((items, width), np.float32)
    made += centres[random.integers(n_centres, size=items)]
    liked = centres[random.integers(n_centres, size=(users, 2))].mean(1)
    noise = random.standard_normal((users, width), np.float32)
    return made, (liked + noise / 5**0.5).astype(np.float32)


def exact(items: int, users: int, width: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Figures, and the numbers of the best items (users, K)."""
    table, asked = vectors(items, users, width, seed)
    figures, found = _timed(lambda part: largest(part, table, K), asked)
    return {"build_seconds": 0.0, **figures}, found


def approximate(
    items: int, users: int, width: int, seed: int, probes: Sequence[int], truth: np.ndarray
) -> list[dict[str, Any]]:
    """Figures for each number of probes; the index is built once."""
    table, asked = vectors(items, users, width, seed)
    began = time.process_time()
    built = ApproximateIndex.build(table, seed=seed)
    seconds = round(time.process_time() - began, 1)
    rows = []
    for count in probes:
        index = built.probing(count)
        figures, found = _timed(lambda part, index=index: index.largest(part, K), asked)
        shared = [
            len(set(mine) & set(best)) / len(best) for mine, best in zip(found.tolist(), truth.tolist(), strict=True)
        ]
        rows.append(
            {
                "lists": index.lists,
                "probes": index.probes,
                "build_seconds": seconds,
                "recall@100": round(float(np.mean(shared)), 4),
                **figures,
            }
        )
    return rows


def _timed(search, asked: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    began = time.process_time()
    found = search(asked)[0]
    together = (time.process_time() - began) / len(asked)
    few = min(SINGLE, len(asked))
    began = time.process_time()
    for row in range(few):
        search(asked[row : row + 1])
    alone = (time.process_time() - began) / few
    return {
        "milliseconds": {"together": round(1000 * together, 2), "one_by_one": round(1000 * alone, 2)},
        "peak_mib": round(peak_mib()),
    }, found


def run(out: Path, *, items: int, users: int, width: int, seed: int, probes: Sequence[int] = PROBES) -> dict[str, Any]:
    """Measure both, each in a process of its own, and write `out`."""

    def alone(function, *given):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, items, users, width, seed, *given).result()

    figures, truth = alone(exact)
    results = {
        "bench": "search",
        "items": items,
        "users": users,
        "width": width,
        "seed": seed,
        "method": METHOD,
        "processor": processor(),
        "versions": versions("faiss-cpu"),
        "systems": {"exact": figures}
        | {f"approximate, {row['probes']} of {row['lists']} lists": row for row in alone(approximate, probes, truth)},
    }
    write(out, results)
    return results


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--items", type=int, default=1_000_000, help="(%(default)s)")
    add("--users", type=int, default=256, help="(%(default)s)")
    add("--width", type=int, default=128, help="(%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--out", type=Path, default=Path("bench-search.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = vars(arguments().parse_args(words))
    with ended():
        print(f"{report.table(run(**options))}\n\nWrote {options['out']}")


if __name__ == "__main__":
    main()
