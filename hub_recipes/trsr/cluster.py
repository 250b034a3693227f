"""Connect to a cluster of Ray, or start Ray on this machine. Knows nothing of what runs on it."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trsr.errors import UsageError


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[Any]:
    """Connect to Ray, or start it; what was started here is shut down at the end.

    Args:
        address: `local` starts Ray on this machine for this run; `auto` or HOST:PORT is a running cluster.
        workers: Cores of a Ray that is started here; None for all.

    Raises:
        UsageError: If Ray is not installed or cannot be reached.
    """
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Workers use this environment; without the setting Ray would build a new one for each.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError:
        raise UsageError("--ray needs Ray Data: pip install 'llm-trsr[ray]'") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    if "://" in address:
        raise UsageError(
            f"The driver must run on the cluster: use ray job submit and auto, not the address {address!r}."
        )
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, logging_level=logging.WARNING, **own)
    except (ConnectionError, RuntimeError) as error:
        raise UsageError(f"No Ray cluster at {address!r}: {error} Start one with ray start, or use local.") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def this_machine(ray: Any) -> Any:
    """A scheduling strategy: on the driver's machine and no other."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )


def count_workers(cluster: Mapping[str, float], gpus: float) -> int:
    """One worker for each GPU where a worker uses `gpus` of them, else one for each core."""
    return max(1, int(cluster.get("GPU", 0) // gpus if gpus else cluster.get("CPU", 1)))
