"""Run the tests marked `compat` in a new environment: at the lowest, the tested or the newest versions of all requirements.

    python tests/compatibility.py --versions lowest

Needs the package index, and nothing but the standard library. Prints the versions that it got, what pytest prints, and one
line at the end: how it went, minutes, versions. Exit code: that of pip or pytest.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parent.parent
SELECTED = "compat and not slow"
STACK = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "huggingface_hub", "numpy")


def lowest(left_out: Collection[str] = ()) -> list[str]:
    """Every direct requirement of the package and of its tests as a pin of its lower bound, but those in `left_out`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = []
    for one in project["dependencies"] + project["optional-dependencies"]["test"]:
        name, bound = re.match(r"([\w.-]+)(?:\[.*?\])?>=([\d.]+)", one).groups()
        if name not in left_out:
            pins.append(f"{name}=={bound}")
    return pins


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", choices=["lowest", "pinned", "newest"], required=True)
    parser.add_argument(
        "--except", action="append", default=[], metavar="NAME", dest="left_out", help="no lowest version of this one"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "env", "bin", "python")
        install = [python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[test]"]
        if options.versions == "lowest":
            Path(folder, "lowest.txt").write_text("\n".join(lowest(options.left_out)))
            install += ["-c", Path(folder, "lowest.txt")]
        elif options.versions == "pinned":
            install += ["-c", ROOT / "hub_recipes" / "constraints.txt"]
        subprocess.run([sys.executable, "-m", "venv", Path(folder, "env")], check=True)
        stack, code = "nothing could be installed", subprocess.run(install).returncode
        installed = minutes(started)
        if not code:
            freeze = [python, "-m", "pip", "freeze", "--exclude-editable"]
            got = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split()
            print(*got, flush=True)
            stack = ", ".join(one.replace("==", " ") for one in got if one.split("==")[0] in STACK)
            code = subprocess.run([python, "-m", "pytest", "-m", SELECTED], cwd=ROOT).returncode
    outcome = f"FAILED with exit code {code}" if code else "passed"
    print(
        f"compatibility, {options.versions} versions: {outcome} in {minutes(started)} ({installed} to install): {stack}"
    )
    return code


def minutes(started: float) -> str:
    return f"{(time.monotonic() - started) / 60:.1f} minutes"


if __name__ == "__main__":
    sys.exit(main())
