"""Recommend on Ray: workers on one or more machines make shards, and the driver writes them as the plain run does.

    trsr recommend --all-users --dataset DATASET --model MODEL --out RECS --ray --workers 8

A shard's users and the catalogue are sent to a worker, and its table comes back, so that no shared disk is needed; a worker
reads the model itself. Ray restarts a worker that dies, and its shard is made again. A killed driver goes on with the shards
that are missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from trsr.cluster import connected, count_workers
from trsr.core.catalogue import Catalogue
from trsr.errors import RunError, TrsrError
from trsr.retrieval.identity import model_checksum
from trsr.retrieval.lists import recommendations

Rows = Sequence[Mapping[str, Any]]


def shards_on_ray(
    numbers: Sequence[int],
    rows_of: Callable[[int], Rows],
    load: Callable[[], Any] | None,
    checksum: str | None,
    catalogue: Catalogue,
    *,
    address: str = "local",
    workers: int | None = None,
    gpus: float | None = None,
    **options: Any,
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number, table) of each shard, in the order in which workers finish them.

    Args:
        numbers: Of the shards to make.
        rows_of: Reads the rows of a shard; called when a worker is free for it.
        load: Loads the recommender on a worker; None for the first stage alone.
        checksum: Of the driver's recommender: `model_checksum`.
        address, workers: As `cluster.connected` takes them; by default one worker for each GPU, else for each core.
        gpus: GPUs per worker; by default one where there is a language model, if the cluster has any.
        options: For `recommendations`.

    Raises:
        RunError: If a worker has another model than the driver, or cannot recommend to a user.
        UsageError: If Ray is not installed or cannot be reached.
    """
    with connected(address, workers) as ray:
        from ray.util import ActorPool

        resources = ray.cluster_resources()
        gpus = float(load is not None and resources.get("GPU", 0) > 0) if gpus is None else gpus
        count = min(workers or count_workers(resources, gpus), max(1, len(numbers)))
        worker = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)
        shared = ray.put(catalogue)
        pool = ActorPool([worker.remote(load, checksum, shared, options) for _ in range(count)])
        # A shard is sent when a worker is free for it, so that the rows of a few are in memory at a time.
        for number, table, problem in pool.map_unordered(
            lambda free, number: free.make.remote(number, rows_of(number)), numbers
        ):
            if problem:
                raise RunError(problem)
            yield number, table


class Worker:
    """Makes shards with a recommender of its own, which it loads for the first one."""

    def __init__(
        self, load: Callable[[], Any] | None, checksum: str | None, catalogue: Catalogue, options: Mapping[str, Any]
    ) -> None:
        self._load, self._expected, self._catalogue, self._options = load, checksum, catalogue, options
        self._recommender: Any = None

    def make(self, number: int, rows: Rows) -> tuple[int, pa.Table | None, str]:
        """The table of a shard; or None and what a user has to know, which is one line here and a traceback as an error."""
        try:
            if self._load and self._recommender is None:
                self._recommender = self._loaded(self._load)
            parts = recommendations(rows, self._catalogue, self._recommender, **self._options)
            return number, pa.concat_tables(parts), ""
        except TrsrError as mistake:
            return number, None, str(mistake)

    def _loaded(self, load: Callable[[], Any]) -> Any:
        recommender = load()
        recommender.catalogue = self._catalogue
        if (checksum := model_checksum(recommender)) != self._expected:
            raise RunError(
                f"A worker has the model {checksum}, the driver {self._expected}. Install the same on all machines, and name the "
                "model by its Hub id and commit, or by a folder that is the same on all."
            )
        return recommender
