"""Peak memory of this process, on any operating system."""

import sys


def peak_mib() -> float:
    """The largest resident size since the process started, in MiB."""
    try:
        import resource
    except ImportError:  # Windows; psutil comes with accelerate
        import psutil

        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
