"""Summarise on Ray Data: workers on one or more machines fill one store, from which the plain run writes the dataset.

    trsr summarize DATASET --out DIR --engine openai:MODEL --ray --workers 8

Users are divided into partitions, and each worker runs the Scheduler over one partition at a time. Every answer is written to
one store beside DIR before it is used. The store is on the driver's machine, so no shared disk is needed. Then
`summarize_dataset` runs over all users as usual and finds its answers in the store: the dataset is the same, byte for byte, as
without Ray. Only questions that a server rejected are asked again, because rejections are not stored.

Ray restarts a worker that dies; it continues from the store, and only its running calls are lost. The same holds for the whole
run, if the command is given again. Users with the same first block are in one partition. A question that two partitions ask at
the same time may be asked twice; the first answer is kept, and the command prints the number of such questions.

On a cluster the driver runs on one of its machines, each of which has `llm-trsr[ray]` installed, reads the engine's model
and has OPENAI_API_KEY in its environment, if the server wants one:

    ray job submit --address http://HEAD:8265 --entrypoint-num-cpus 1 -- \\
        trsr summarize ORG/DATASET --out /data/NAME --engine transformers:ORG/MODEL --ray --ray-address auto

On HF Jobs a job is one machine, and Ray gives each of its GPUs a worker:

    hf jobs uv run --flavor a100x4 --with "ray[data]" -v ./dist:/dist -e UV_FIND_LINKS=/dist \\
        hub_recipes/jobs/summarize.py -- --bucket ORG/trsr ORG/DATASET --out data/NAME --engine transformers:ORG/MODEL --ray
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from trsr.cluster import connected, count_workers, this_machine
from trsr.core.history import count_blocks
from trsr.core.summarize import METHODS, calls
from trsr.errors import EngineError, TrsrError, UsageError
from trsr.records.files import one_writer
from trsr.summaries.engines.base import Engine
from trsr.summaries.run import (
    check_files,
    check_numbers,
    check_out,
    identity,
    prepare,
    read,
    strategies,
    summarize_dataset,
    users,
)
from trsr.summaries.scheduler import Scheduler, Unanswered
from trsr.summaries.store import Generation, Store, default_store

# Several partitions a worker, so that workers finish at about the same time; few enough to keep each engine busy.
PARTITIONS_A_WORKER = 4
_ROWS = pa.schema({"partition": pa.int64(), "user_id": pa.string(), "history": pa.list_(pa.string())})


@one_writer
def summarize_on_ray(
    source: str,
    out: Path,
    make: Callable[[], Engine],
    *,
    methods: tuple[str, ...] = METHODS,
    block_size: int = 5,
    max_blocks: int = 5,
    revision: str | None = None,
    store: Path | None = None,
    caches: Sequence[str] = (),
    export: Path | None = None,
    limit: int = 0,
    keep_going: bool = False,
    address: str = "local",
    workers: int | None = None,
    partitions: int | None = None,
    gpus: float | None = None,
) -> tuple[dict[str, Any], int]:
    """`summarize_dataset` with engines on the workers of a cluster.

    Args:
        make: Makes the engine, here and on each worker. The workers divide its number of concurrent calls among them.
        address: `local` starts Ray on this machine for this run; `auto` or HOST:PORT is a running cluster.
        workers: Number of engines; by default one per GPU if workers use GPUs, else one per core.
        partitions: Number of partitions; by default four per worker.
        gpus: GPUs per worker; by default one for an engine in this process, if the cluster has any.

    Returns:
        The provenance that was written, and the number of questions that were asked twice.

    Raises:
        EngineError: If an engine cannot go on. All answers so far are stored.
        UsageError: If Ray is not installed or cannot be reached, or the engine gets its answers from another program.
    """
    check_numbers(block_size, max_blocks, limit)
    engine = make()
    if engine.offline_instructions:
        raise UsageError(
            f"The answers of {engine.identity['engine']!r} come from elsewhere: --ray has nothing to ask. Leave it out."
        )
    with tempfile.TemporaryDirectory() as scratch:
        usual_store = default_store(out) if engine.cacheable else Path(scratch) / "store.sqlite"
        store = (store or usual_store).resolve()
        check_files(source, out, store=store, questions=None, export=export)
        block_options: dict[str, Any] = {"block_size": block_size, "max_blocks": max_blocks}
        check_out(source, out, methods, revision, limit=limit, settings={**identity(engine), **block_options})
        texts, splits = read(source, revision, limit)
        if engine.cacheable:
            with closing(Store(store)) as opened_store:
                prepare(opened_store, engine, caches, texts)
        block_options["methods"] = methods
        with connected(address, workers) as ray:
            gpus = _gpus(engine, ray.cluster_resources()) if gpus is None else gpus
            workers = workers or count_workers(ray.cluster_resources(), gpus)
            parts = deal(splits, block_size, max_blocks, partitions or PARTITIONS_A_WORKER * workers)
            asked_twice = _fill_store(ray, make, engine, parts, texts, store, workers, gpus, keep_going, block_options)
        provenance = summarize_dataset(
            source,
            out,
            engine,
            revision=revision,
            store=store,
            caches=caches,
            export=export,
            limit=limit,
            keep_going=keep_going,
            **block_options,
        )
    return provenance, asked_twice


def deal(splits: Mapping[str, Dataset], block_size: int, max_blocks: int, count: int) -> list[pa.Table]:
    """Divide users into at most `count` partitions by the items of their first block, so that equal blocks are in one.

    Returns:
        Tables of (partition, user_id, history), none empty.
    """
    partitions_of_users: list[list[tuple[int, str, list[str]]]] = [[] for _ in range(count)]
    for user_id, history in users(splits):
        blocks = math.ceil(len(history) / block_size)
        start = max(0, blocks - max_blocks) * block_size
        first = json.dumps(history[start : start + block_size]).encode()
        partition = int.from_bytes(hashlib.sha256(first).digest()[:8]) % count
        partitions_of_users[partition].append((partition, user_id, history))
    return [
        pa.Table.from_arrays(
            [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), _ROWS.types, strict=True)],
            schema=_ROWS,
        )
        for rows in partitions_of_users
        if rows
    ]


def _fill_store(
    ray: Any,
    make: Callable[[], Engine],
    engine: Engine,
    parts: list[pa.Table],
    texts: dict[str, str],
    store: Path,
    workers: int,
    gpus: float,
    keep_going: bool,
    block_options: Mapping[str, Any],
) -> int:
    """Fill the store with the answers for all users. Returns the number of questions that were asked twice."""
    lengths = [
        count_blocks(len(history), block_options["block_size"], block_options["max_blocks"])
        for part in parts
        for history in part["history"]
    ]
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": this_machine(ray)}
    total = sum(calls(lengths, method) for method in block_options["methods"])
    store_actor = ray.remote(StoreActor).options(**options).remote(store, total)
    arguments = {
        "make": make,
        "identity": dict(engine.identity),
        "share": max(1, engine.workers // workers),
        "store_actor": store_actor,
        "texts": ray.put(texts),
        "keep_going": keep_going,
        **block_options,
    }
    outcomes = ray.data.from_arrow(parts).map_batches(
        Worker,
        batch_size=None,  # a block is a partition
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
        num_gpus=gpus,
        fn_constructor_kwargs=arguments,
    )
    for row in outcomes.iter_rows():
        if row["error"]:
            raise EngineError(row["error"])
    return ray.get(store_actor.close.remote())


class StoreActor:
    """The store of a run, used by the workers of all machines. Calls that are repeated after a failure change nothing.

    Args:
        calls: Number of summaries to make, for the progress bar.
    """

    def __init__(self, path: Path, calls: int) -> None:
        from ray.experimental import tqdm_ray

        self._store = Store(path)
        self._before = len(self._store)
        self._put = 0
        self._answered: dict[int, int] = {}
        self._bar = tqdm_ray.tqdm(total=calls, desc="summaries asked for", unit="summary")

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        return self._store.get(keys)

    def put(self, generations: Sequence[Generation], identity: Mapping[str, object]) -> None:
        self._store.put(generations, identity)
        self._put += len(generations)

    def set_problems(self, generations: Sequence[Generation]) -> None:
        self._store.set_problems(generations)

    def advance(self, partition: int, answered: int) -> None:
        """Show the number of answers of a partition; it never decreases, also if the partition starts again."""
        before = self._answered.get(partition, 0)
        self._answered[partition] = max(before, answered)
        self._bar.update(self._answered[partition] - before)

    def close(self) -> int:
        """Close the store. Returns the number of attempts that were made twice."""
        self._bar.close()
        repeated = self._put - len(self._store) + self._before
        self._store.close()
        return repeated


class RemoteStore:
    """The store of a `StoreActor`, as a `StoreProtocol` for a Scheduler."""

    def __init__(self, store_actor: Any, partition: int) -> None:
        self._store_actor, self._partition = store_actor, partition
        self._answered = 0

    def get(self, keys: Sequence[str]) -> dict[str, list[Generation]]:
        import ray

        self.show()
        return ray.get(self._store_actor.get.remote(keys))

    def put(self, generations: Sequence[Generation], identity: Mapping[str, object]) -> None:
        import ray

        ray.get(self._store_actor.put.remote(generations, dict(identity)))

    def set_problems(self, attempts: Sequence[Generation]) -> None:
        import ray

        ray.get(self._store_actor.set_problems.remote(list(attempts)))

    def count(self, answered: int) -> None:
        self._answered += answered

    def show(self) -> None:
        self._store_actor.advance.remote(self._partition, self._answered)


class Worker:
    """Runs one engine over partitions of users."""

    def __init__(
        self,
        make: Callable[[], Engine],
        identity: Mapping[str, Any],
        share: int,
        store_actor: Any,
        texts: Any,
        keep_going: bool,
        **block_options: Any,
    ) -> None:
        import ray

        self._engine = make()
        self._engine.workers = share
        self._expected_identity = identity
        self._store_actor = store_actor
        self._texts: dict[str, str] = ray.get(texts)
        self._keep_going = keep_going
        self._cut = block_options

    def __call__(self, partition_table: pa.Table) -> pa.Table:
        store = RemoteStore(self._store_actor, partition_table["partition"][0].as_py())
        requested = strategies({"part": Dataset(partition_table)}, self._texts, **self._cut)
        error = ""
        try:
            if dict(self._engine.identity) != self._expected_identity:
                raise EngineError(
                    f"A worker has the engine {dict(self._engine.identity)!r}, the driver {self._expected_identity!r}. Install the "
                    "same on all machines, and name the model's revision (--engine-revision)."
                )
            Scheduler(self._engine, store, advance=store.count, keep_going=self._keep_going).run(
                requested, lambda result: None
            )
        except Unanswered:
            pass  # a few rejected questions: the plain run asks them again
        except TrsrError as mistake:
            error = str(mistake)
        store.show()
        return pa.table({"error": [error]})


def _gpus(engine: Engine, cluster: Mapping[str, float]) -> float:
    return float(engine.identity["engine"] == "transformers" and cluster.get("GPU", 0) > 0)
