"""What a process that failed said last."""

import subprocess


def cause_of(process: subprocess.CompletedProcess[str]) -> str:
    """The last line that a process printed as an error: of Python, the exception."""
    return next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "it printed no error")
