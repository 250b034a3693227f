"""Processes without this package: the environment that they get, what they print, and what one that failed said last."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trsr.errors import ReleaseError


def environment_without_package() -> dict[str, str]:
    """Variables for a process that finds the libraries that are found here, but not this package on PYTHONPATH."""
    paths = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and not (Path(path) / "trsr").is_dir()
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def printed_by(words: Sequence[str | Path], folder: Path, failed: str, **variables: str) -> Any:
    """What a process without this package prints, last, as one line of JSON.

    Args:
        words: Its command line.
        folder: It works in; takes the code of releases that it runs, so that none of an earlier release runs.
        failed: Beginning of the message where it fails.
        variables: Of its environment, beside those of `environment_without_package`.

    Raises:
        ReleaseError: If it fails.
    """
    environment = {**environment_without_package(), "HF_MODULES_CACHE": str(folder / "modules"), **variables}
    process = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if process.returncode:
        raise ReleaseError(f"{failed}: {cause_of(process)}")
    return json.loads(process.stdout.splitlines()[-1])


def cause_of(process: subprocess.CompletedProcess[str]) -> str:
    """The last line that a process printed as an error: of Python, the exception."""
    return next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "it printed no error")
