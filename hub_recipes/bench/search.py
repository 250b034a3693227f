"""Search over a large catalogue, exact and approximate: memory, time a user, and what is found.

    python -m bench.search --out hub_recipes/results/bench-search.json
    python -m bench.search --retriever runs/both --dataset data/scientific --out hub_recipes/results/bench-search-scientific.json

Over a million made-up vectors, which lie in clusters, as items of a kind do; or over those of a retriever, for the users of a dataset.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.run import processor, write
from trsr.cli.exits import exit_codes_for_errors
from trsr.dataset import contract
from trsr.records.costs import peak_mib
from trsr.records.versions import versions
from trsr.retrieval.approximate import ApproximateIndex
from trsr.retrieval.search import top_k_items

K = 100
SHARES = (128, 32, 8, 2)  # one list of so many is looked at
SINGLE = 20  # users who come one by one
METHOD = {
    "made up": "normal noise around normal centres, one centre for 500 items; a user is the mean of two centres, and noise",
    "milliseconds": "CPU time a user on one thread, of all users at once and of the first 20 one by one, who are searched for once "
    "before",
    "peak_mib": "resident memory of a process that reads the vectors and searches in one way alone",
    "recall": "share of the 100 items with the largest products that are among those found",
}


@dataclass(frozen=True, slots=True)
class Made:
    """Vectors that are made up."""

    items: int
    users: int
    width: int
    seed: int

    @property
    def name(self) -> str:
        return "made up"

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """Items (items, width) and users (users, width), float32."""
        random = np.random.default_rng(self.seed)
        n_centres = max(2, self.items // 500)
        centres = random.standard_normal((n_centres, self.width), np.float32)
        table = random.standard_normal((self.items, self.width), np.float32)
        table += centres[random.integers(n_centres, size=self.items)]
        liked = centres[random.integers(n_centres, size=(self.users, 2))].mean(1)
        noise = random.standard_normal((self.users, self.width), np.float32)
        return table, (liked + noise / 5**0.5).astype(np.float32)


@dataclass(frozen=True, slots=True)
class OfRetriever:
    """Vectors of a retriever, and of the first test users of a dataset."""

    retriever: str
    dataset: str
    users: int

    @property
    def name(self) -> str:
        return f"of a retriever on {contract.provenance(self.dataset).terms.name}"

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        from trsr.retrieval.retriever import Retriever

        retriever = Retriever.load(Path(self.retriever))
        numbers = retriever.numbers
        rows = contract.read(self.dataset, "histories", "test")[: self.users]
        return retriever.vectors, retriever.users(
            [np.array([numbers[item_id] for item_id in ids]) for ids in rows["history"]]
        )


Vectors = Made | OfRetriever


def write_vectors(vectors: Vectors, folder: Path) -> None:
    """Keep vectors of items and users, for processes that did not make them."""
    for name, values in zip(("items", "users"), vectors(), strict=True):
        np.save(folder / f"{name}.npy", values)


def read_vectors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Items (items, width) and users (users, width), float32."""
    return np.load(folder / "items.npy"), np.load(folder / "users.npy")


def exact(folder: Path) -> tuple[dict[str, Any], np.ndarray, tuple[int, ...]]:
    """Figures, the numbers of the best items (users, K), and the items and width of the table."""
    table, users = read_vectors(folder)
    figures, nearest = _timed(lambda part: top_k_items(part, table, K), users)
    return {"build_seconds": 0.0, **figures}, nearest, table.shape


def approximate(folder: Path, shares: Sequence[int], truth: np.ndarray) -> list[dict[str, Any]]:
    """Figures for each share of the lists that is looked at; the index is built once."""
    table, users = read_vectors(folder)
    began = time.process_time()
    built = ApproximateIndex.build(table)
    seconds = round(time.process_time() - began, 1)
    rows = []
    for share in shares:
        index = built.probing(-(-built.lists // share))
        figures, nearest = _timed(lambda part, index=index: index.top_k_items(part, K), users)
        shared = [
            len(set(mine) & set(best)) / len(best) for mine, best in zip(nearest.tolist(), truth.tolist(), strict=True)
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


def _timed(search, users: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    few = min(SINGLE, len(users))
    search(users[:few])  # the first search is slower
    began = time.process_time()
    nearest = search(users)[0]
    together = (time.process_time() - began) / len(users)
    began = time.process_time()
    for row in range(few):
        search(users[row : row + 1])
    alone = (time.process_time() - began) / few
    return {
        "milliseconds": {"together": round(1000 * together, 2), "one_by_one": round(1000 * alone, 2)},
        "peak_mib": round(peak_mib()),
    }, nearest


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started meanwhile compute on one thread: libraries read how many when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def run(out: Path, vectors: Vectors, shares: Sequence[int] = SHARES) -> dict[str, Any]:
    """Measure both, each in a process of its own, and write `out`."""

    def alone(function, *values):
        with one_thread(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *values).result()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone(write_vectors, vectors, folder)
        figures, truth, (items, width) = alone(exact, folder)
        rows = alone(approximate, folder, shares, truth)
    results = {
        "bench": "search",
        "vectors": vectors.name,
        "items": items,
        "users": len(truth),
        "width": width,
        "method": METHOD,
        "processor": processor(),
        "versions": versions("faiss-cpu"),
        "systems": {"exact": figures} | {f"approximate, {row['probes']} of {row['lists']} lists": row for row in rows},
    }
    write(out, results)
    return results


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--items", type=int, default=1_000_000, help="made-up ones (%(default)s)")
    add("--users", type=int, default=256, help="(%(default)s)")
    add("--width", type=int, default=128, help="(%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--retriever", metavar="DIR", help="whose vectors are searched instead")
    add("--dataset", metavar="DATASET", help="the retriever's")
    add("--out", type=Path, default=Path("bench-search.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    parser = arguments()
    options = parser.parse_args(words)
    if bool(options.retriever) != bool(options.dataset):
        parser.error("--retriever and --dataset go together.")
    vectors: Vectors = Made(options.items, options.users, options.width, options.seed)
    if options.retriever:
        vectors = OfRetriever(options.retriever, options.dataset, options.users)
    with exit_codes_for_errors():
        print(f"{report.table(run(options.out, vectors))}\n\nWrote {options.out}")


if __name__ == "__main__":
    main()
