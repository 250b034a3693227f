"""What summarising costs beside the model: users a CPU second with an engine that answers at once, calls in flight with a slow one.

python -m bench.machinery --out hub_recipes/results/bench-machinery.json
"""

import argparse
import asyncio
import functools
import hashlib
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from bench.run import processor, write
from trsr.core.answer import Answer
from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import steps
from trsr.core.summary_prompts import SummaryPrompts
from trsr.dataset import contract
from trsr.records.costs import peak_mib
from trsr.records.versions import versions
from trsr.report import plots
from trsr.summaries.engines.base import Engine, Request, Sampling
from trsr.summaries.run import summarize_dataset
from trsr.summaries.scheduler import Scheduler
from trsr.summaries.store import Store

ITEMS, BLOCKS, BLOCK = 20_000, 5, 5
METHOD = {
    "throughput": "made-up users of 5 blocks of 5 items, recurrent, an engine that answers at once; from the dataset's "
    "Parquet to the new dataset's, with the store",
    "loop": "one user after another, one call after another, as the reference code does; nothing is read, kept or written",
    "cpu_seconds": "time.process_time",
    "peak_mib": "resident memory of the process; before is after imports and made-up data",
    "in_flight": "calls under way over time, each taking 0.165 s in the median (log-normal, sigma 0.6), recurrent; by "
    "levels: parts of 100 users, all first blocks, then all second ones",
}


class Instant(Engine):
    """Answers at once, differently for each prompt."""

    batch = 1

    def __init__(self) -> None:
        self.identity = {"engine": "instant", "model": "none", "revision": None, "sampling": Sampling().to_dict()}
        self.workers = 64

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        return [Answer(_answer(request.text), "stop", 300, 20) for request in requests]


class Slow(Instant):
    """Answers as late as a server, and notes how many calls are under way.

    Attributes:
        seen: (seconds since the start, calls under way), at every change.
    """

    def __init__(self, workers: int, seed: int) -> None:
        super().__init__()
        self.workers = workers
        self.seen: list[tuple[float, int]] = []
        self._random = random.Random(seed)
        self._began = time.perf_counter()
        self._going = 0

    async def answers(self, requests: Sequence[Request]) -> list[Answer | None]:
        self._count(1)
        await asyncio.sleep(self._random.lognormvariate(-1.8, 0.6))
        self._count(-1)
        return await super().answers(requests)

    def _count(self, change: int) -> None:
        self._going += change
        self.seen.append((round(time.perf_counter() - self._began, 3), self._going))


def _answer(prompt: str) -> str:
    return f"The user likes quiet stories of the sea, case {hashlib.sha256(prompt.encode()).hexdigest()[:12]}."


def throughput(users: int, seed: int) -> dict[str, Any]:
    """Users a CPU second of a whole run, beside the loop's."""
    texts, prompts = _texts(seed), SummaryPrompts()
    some = min(users, 10_000)
    rows = list(_rows(some, seed))  # made before: ours reads them from a dataset that is there
    began = time.process_time()
    for row in rows:
        blocks = blocks_by_count([Item.parse(texts[item_id]) for item_id in row["history"]], BLOCK)
        summary = _answer(prompts.block_text(blocks[0]))
        for block in blocks[1:]:
            summary = _answer(prompts.update_text(summary, block))
    loop = time.process_time() - began
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "made", texts, users, seed)
        before = int(peak_mib())
        began, clock = time.process_time(), time.perf_counter()
        provenance = summarize_dataset(str(folder / "made"), folder / "out", Instant(), methods=("recurrent",))
        spent, clock = time.process_time() - began, time.perf_counter() - clock
        store = (folder / "out.store.sqlite").stat().st_size
    return {
        "users": users,
        "blocks": BLOCKS,
        "calls": provenance["summaries"]["calls"]["recurrent"],
        "cpu_seconds": round(spent, 2),
        "seconds": round(clock, 2),
        "users_a_cpu_second": round(users / spent),
        "loop_users_a_cpu_second": round(some / loop),
        "peak_mib": {"before": before, "whole": int(peak_mib())},
        "store_mib": store >> 20,
    }


def in_flight(users: int, limit: int, seed: int) -> dict[str, Any]:
    """Calls under way over time, by the scheduler and by strict levels."""
    rng = random.Random(seed)
    histories = [
        blocks_by_count([Item(f"title: T{user}-{n}") for n in range(rng.randint(3, 25))], BLOCK)
        for user in range(users)
    ]
    ours = Slow(limit, seed)
    with tempfile.TemporaryDirectory() as name:
        scheduler = Scheduler(ours, Store(Path(name) / "store"))
        scheduler.run((steps(history, "recurrent") for history in histories), lambda result: None)
    levels = Slow(limit, seed)
    asyncio.run(_by_levels(levels, histories, limit))
    return {
        "users": users,
        "calls": sum(map(len, histories)),
        "at_a_time": limit,
        "systems": {name: _told(engine.seen) for name, engine in (("scheduler", ours), ("by levels", levels))},
    }


async def _by_levels(engine: Slow, histories: Sequence[Sequence], limit: int) -> None:
    """Parts of 100 users: all first blocks, then all second ones, and so on."""
    gate, prompts = asyncio.Semaphore(limit), SummaryPrompts()

    async def ask(summary: str, block) -> str:
        text = prompts.update_text(summary, block) if summary else prompts.block_text(block)
        async with gate:
            await engine.answers([])
        return _answer(text)

    for start in range(0, len(histories), 100):
        part = histories[start : start + 100]
        summaries = [""] * len(part)
        for level in range(BLOCKS):
            going = [index for index, blocks in enumerate(part) if len(blocks) > level]
            answers = await asyncio.gather(*(ask(summaries[index], part[index][level]) for index in going))
            for index, summary in zip(going, answers, strict=True):
                summaries[index] = summary


def _told(seen: Sequence[tuple[float, int]]) -> dict[str, Any]:
    area = sum(going * (after - at) for (at, going), (after, _) in itertools.pairwise(seen))
    return {"seconds": seen[-1][0], "mean_in_flight": round(area / (seen[-1][0] - seen[0][0]), 1), "seen": seen[::20]}


def draw(results: dict[str, Any], path: Path) -> None:
    """Calls in flight over time as a PNG."""
    figure = plots.figure(8, 3)
    axes = figure.add_subplot()
    for name, system in results["in_flight"]["systems"].items():
        axes.step(*zip(*system["seen"], strict=True), where="post", linewidth=0.8, label=name)
    axes.set(xlabel="seconds", ylabel="calls in flight")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=120)


def _texts(seed: int) -> dict[str, str]:
    rng = random.Random(seed)
    words = "sea story of a quiet harbour and its people in winter".split()
    return {
        f"i{n}": f"title: The Lamp {n}; author: A{n % 999}; genre: g{n % 37}; about: {' '.join(rng.choices(words, k=20))}"
        for n in range(ITEMS)
    }


def _rows(users: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    for user in range(users):
        history = [f"i{rng.randrange(ITEMS)}" for _ in range(BLOCKS * BLOCK)]
        yield {"user_id": f"u{seed}-{user}", "history": history, "target": "i1", "negatives": ["i2", "i3"]}


def _write(folder: Path, texts: dict[str, str], users: int, seed: int) -> None:
    catalogue = {"item_id": list(texts), "title": list(texts), "text": list(texts.values())}
    sizes = {"train": users - 20, "validation": 10, "test": 10}
    histories = {
        split: Dataset.from_generator(
            functools.partial(_rows, size, seed + index),
            features=contract.HISTORIES,
            cache_dir=str(folder.with_name(f"cache-{split}")),
        )
        for index, (split, size) in enumerate(sizes.items())
    }
    items = {"train": Dataset.from_dict(catalogue, features=contract.items_features(contract.ITEM_COLUMNS))}
    contract.write(folder, {"items": items, "histories": histories}, provenance={"script": "made up"}, body="# Made up")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="of the throughput (%(default)s)")
    parser.add_argument("--slow-users", type=int, default=800, help="of the calls in flight (%(default)s)")
    parser.add_argument("--at-a-time", type=int, default=64, help="calls at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench-machinery.json"), help="results file (%(default)s)")
    parser.add_argument("--no-plot", action="store_true", help="draw none")
    options = parser.parse_args(arguments)
    if not options.no_plot:
        plots.check("--no-plot")
    results = {
        "bench": "machinery",
        "method": METHOD,
        "processor": processor(),
        "versions": versions(),
        "seed": options.seed,
        "in_flight": in_flight(options.slow_users, options.at_a_time, options.seed),
        "throughput": throughput(options.users, options.seed),
    }
    write(options.out, results)
    if not options.no_plot:
        draw(results, options.out.with_suffix(".png"))
    print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
