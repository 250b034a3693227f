"""An environment without our package: the installed libraries, linked into a fresh one, but for trsr and TRL."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

LEFT_OUT = ("trsr", "llm_trsr", "_llm_trsr", "__editable__", "_editable", "trl", "distutils-precedence")


def make(folder: Path) -> Path:
    """Make the environment in `folder`. Returns its Python, which is shown not to find what is left out."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    for name in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(name).iterdir():
            if not entry.name.startswith(LEFT_OUT) and entry.suffix != ".pth" and not (there / entry.name).exists():
                (there / entry.name).symlink_to(entry)
    for name in ("trsr", "trl"):
        assert run(python, f"import {name}", {}).returncode, f"{name} is importable: nothing would be proven"
    return python


def run(python: Path, code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """Run code in the environment, away from the checkout."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run(
        [python, "-c", code, *arguments],
        env={**(environment or plain), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        cwd=python.parent,
        capture_output=True,
        text=True,
        check=False,
    )
