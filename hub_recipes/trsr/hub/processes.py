"""Processes without this package: the environment that they get, and what one that failed said last."""

import os
import subprocess
from pathlib import Path


def strangers_environment() -> dict[str, str]:
    """Variables for a process that finds the libraries that are found here, but not this package on PYTHONPATH."""
    kept = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and not (Path(path) / "trsr").is_dir()
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(kept), "PYTHONSAFEPATH": "1"}


def cause_of(process: subprocess.CompletedProcess[str]) -> str:
    """The last line that a process printed as an error: of Python, the exception."""
    return next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "it printed no error")
