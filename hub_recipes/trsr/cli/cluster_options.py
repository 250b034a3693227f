"""Options of the verbs that run on Ray."""

import argparse
from typing import Any

from trsr.cli.numbers import positive
from trsr.errors import UsageError


def add(group: argparse._ArgumentGroup, *, workers: str, gpus: str = "", partitions: bool = False) -> None:
    """Add them to a group.

    Args:
        workers: What a worker runs, in the plural.
        gpus: What a GPU is for, at the beginning of its help.
        partitions: Whether users are divided into partitions.
    """
    add = group.add_argument
    add("--ray", action="store_true", help="pip install 'llm-trsr[ray]'")
    add(
        "--ray-address", metavar="ADDRESS", help="auto: the cluster that this machine is in (local: this machine alone)"
    )
    add(
        "--workers",
        type=positive(int),
        metavar="N",
        help=f"{workers} at a time (one a GPU; without any, one a core)",
    )
    if partitions:
        add("--partitions", type=positive(int), metavar="N", help="of the users (4 a worker)")
    add("--ray-gpus-per-worker", type=positive(float), metavar="N", help=f"{gpus}(1, if there are any)")


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of them, as the functions that use Ray take it.

    Raises:
        UsageError: If there is any without --ray.
    """
    names = {
        "address": "ray_address", "workers": "workers", "partitions": "partitions", "gpus": "ray_gpus_per_worker"
    }  # fmt: skip
    there = {name: option for name, option in names.items() if hasattr(options, option)}
    values = {name: getattr(options, option) for name, option in there.items()}
    values = {name: value for name, value in values.items() if value is not None}
    if values and not options.ray:
        *flags, last = [f"--{option.replace('_', '-')}" for option in there.values()]
        raise UsageError(f"{', '.join(flags)} and {last} go with --ray: add it.")
    return values
