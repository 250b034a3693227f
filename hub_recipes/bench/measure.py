"""Time of systems that take turns in one process, their peak memory, and their ratios.

On a CPU the time is that of the process: ratios mean something on one thread only, and are taken within a round, because a
busy neighbour slows all systems of a round alike. On a GPU it is the clock's, once all work is done there.
Knows nothing of what a system does.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class System:
    """One way of doing the work.

    Attributes:
        run: Does it and returns what it found.
        ours: Whether a wrong answer of it is our mistake.
        share: Part of the work that `run` does, in (0, 1]; times and tokens are divided by it.
        flops: Floating-point operations of all the work; None where they are not counted.
    """

    name: str
    run: Callable[[], Any]
    ours: bool = False
    share: float = 1.0
    flops: float | None = None


def compare(
    systems: Sequence[System],
    best: str,
    rounds: int,
    check: Callable[[Any], float | None],
    allowed: float,
    least_flops: float,
    model,
) -> dict[str, dict]:
    """Measure systems against the one named `best`.

    Every system runs once for its answer, tokens and peak memory, which warms it up, and then once a round.

    Args:
        check: How far an answer is from the right one; None where it cannot tell.
        allowed: Largest difference of a system that is exact.
        least_flops: Operations of the work with nothing done twice.
        model: The model that all systems run; its tokens are counted.

    Returns:
        Name -> `seconds` and `ratio` (to `best`) with median, low and high; `flops_ratio`, the same by arithmetic
        alone; `peak_mib`, `tokens`, `difference`, `exact`, `measured_share`.
    """
    figures: dict[str, dict[str, Any]] = {}
    for system in systems:
        with _count_tokens(model) as tokens:
            answer, peak = peak_memory(system.run)
        difference = check(answer)
        figures[system.name] = {
            "ours": system.ours,
            "peak_mib": round(peak / 2**20, 2),
            "tokens": round(tokens[0] / system.share),
            "measured_share": system.share,
            "difference": difference,
            "exact": None if difference is None else bool(difference <= allowed),  # a NaN is not exact
            "flops_ratio": round(system.flops / least_flops, 3) if system.flops else None,
        }
        del answer
    times = take_turns(systems, rounds)
    for name, seconds in times.items():
        figures[name]["seconds"] = spread(seconds)
        figures[name]["ratio"] = spread([elapsed / ours for elapsed, ours in zip(seconds, times[best], strict=True)])
    return figures


def take_turns(systems: Sequence[System], rounds: int, device: torch.device = CPU) -> dict[str, list[float]]:
    """Seconds of each system in each round, see `now`. Every round starts with another system."""
    times: dict[str, list[float]] = {system.name: [] for system in systems}
    for turn in range(rounds):
        start = turn % len(systems)
        gc.collect()
        for system in [*systems[start:], *systems[:start]]:
            began = now(device)
            system.run()
            times[system.name].append((now(device) - began) / system.share)
    return times


def now(device: torch.device) -> float:
    """CPU seconds of this process; on a GPU those of a clock, once all that was asked of it is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds that a process and its threads have taken so far, in steps of a hundredth.

    Raises:
        OSError: If there is no such process, or the system is not Linux.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, in ticks


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest, to four significant digits."""
    middle = statistics.median(values)
    return {name: float(f"{value:.4g}") for name, value in zip(NAMES, (middle, min(values), max(values)), strict=True)}


NAMES = ("median", "low", "high")


def peak_memory(run: Callable[[], object], device: torch.device = CPU) -> tuple[object, int]:
    """What `run` returns, and the most bytes it held in torch's allocator at once, beyond what was there before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        answer = run()
        return answer, torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        answer = run()
    allocated = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return answer, peak


@contextmanager
def steady() -> Iterator[None]:
    """One thread, and a garbage collector that no longer walks through all that is loaded already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(before)


@contextmanager
def _count_tokens(model) -> Iterator[list[int]]:
    """A count of the tokens that go into the model meanwhile, padding included."""
    count = [0]

    def add(module, arguments) -> None:
        count[0] += arguments[0].numel()

    handle = model.get_input_embeddings().register_forward_pre_hook(add)
    try:
        yield count
    finally:
        handle.remove()
