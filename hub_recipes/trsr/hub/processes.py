"""Processes of strangers: where this package is not found, and what one that failed said last."""

import os
import subprocess
from pathlib import Path


def cause_of(process: subprocess.CompletedProcess[str]) -> str:
    """The last line that a process printed as an error: of Python, the exception."""
    return next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "it printed no error")


def without_package() -> dict[str, str]:
    """An environment for a process: where a library was found it is found again, and this package is left out."""
    kept = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and not (Path(path) / "trsr").is_dir()
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(kept), "PYTHONSAFEPATH": "1"}
