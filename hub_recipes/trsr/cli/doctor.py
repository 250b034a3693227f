"""Diagnose the installation: versions, a test ranking, device, disk, token and the Hub, with advice.

Ranks a known request with the recommender in the package, and lists all conflicts between versions.
Exit code: 0, or 1 if files are missing, versions conflict, or the ranking is not the expected one. A token is never
shown, only whether there is one. Works without the heavy packages: a section that needs a missing one shows its error.

examples:
  trsr doctor
  trsr doctor --offline --json | jq .device
"""

import argparse
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trsr.assets.paths import ASSETS, NANO, PACKAGE, TASK
from trsr.cli.exits import Exit
from trsr.cli.outcome import Outcome, add_json
from trsr.records.conflicts import Conflict, conflict_with, conflicts
from trsr.records.versions import versions
from trsr.report.redaction import address

EXTRAS = {"demo": "gradio", "plots": "matplotlib", "ray": "ray"}
# The exact versions of the tests: in the package from a wheel, beside it in a checkout.
CONSTRAINTS = (PACKAGE if (PACKAGE / "constraints.txt").is_file() else PACKAGE.parent) / "constraints.txt"
NEEDED = (
    NANO / "base" / "model.safetensors",
    NANO / "adapter" / "adapter_model.safetensors",
    ASSETS / "sample",
    CONSTRAINTS,
)
LEAST_DISK = 5e9  # bytes: enough for a small base, its cache and a few checkpoints
# The example of the README, and the expected log-odds of its candidates, in order.
REQUEST = {
    "history": [
        {"title": "The Salt Lantern", "genre": "sea stories"},
        {"title": "Reef and Anchor", "genre": "sea stories"},
    ],
    "candidates": [
        {"title": "Harbor of the Storm", "genre": "sea stories"},
        {"title": "The Quiet Oven", "genre": "baking"},
    ],
}
LOG_ODDS = (2.2360, -1.2517)
TOLERANCE = 1e-3
RANKS_WITH = ("peft", "safetensors", "tokenizers", "torch", "transformers")

Section = dict[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="send no request to the Hub")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    sections = examine(options.offline)
    lines = []
    for section, values in sections.items():
        if section != "conflicts":  # listed below, with their remedies
            lines += [section, *(f"  {name:14} {value}" for name, value in values.items())]
    advice_lines = advice(sections)
    return Outcome(
        {**sections, "advice": advice_lines},
        "\n".join([*lines, "", *advice_lines]).rstrip(),
        Exit.PROBLEMS_FOUND if broken(sections) else Exit.SUCCESS,
    )


def examine(offline: bool = False) -> dict[str, Section]:
    """Examine the installation. Returns sections of plain values, without the token.

    A section that failed holds an `error`. `conflicts` maps each conflict to the command that resolves it.

    Args:
        offline: Send no request to the Hub.
    """
    ranking = _section(_ranking)
    pairs = conflicts()
    if "error" in ranking and (peft_conflict := _refused_peft()):
        pairs.append(peft_conflict)
    return {
        "versions": {"python": platform.python_version(), **versions(), **dict(_extras())},
        "conflicts": {str(pair): _repair_command(pair) for pair in pairs},
        "ranking": ranking,
        "device": _section(_device),
        "disk": _section(_disk),
        "hub": _section(lambda: _hub(offline)),
        "package": {"path": str(ASSETS.parent), "missing": [str(path) for path in NEEDED if not path.exists()]},
    }


def broken(sections: dict[str, Section]) -> bool:
    """Whether files are missing, versions conflict, or the test ranking is not the expected one."""
    return bool(sections["package"]["missing"] or sections["conflicts"] or "error" in sections["ranking"])


def advice(sections: dict[str, Section]) -> list[str]:
    """Advice for the problems in `sections`, a line each."""
    device, disk, hub = (sections[name] for name in ("device", "disk", "hub"))
    lines = [f"{conflict} Run: {command}" for conflict, command in sections["conflicts"].items()]
    if sections["package"]["missing"]:
        lines.append("Files of the package are missing: install llm-trsr again.")
    elif "error" in sections["ranking"]:
        lines.append(
            f"The recommender in the package fails: {sections['ranking']['error']} Run: {_tested(*RANKS_WITH)}"
        )
    if device.get("kind") == "cpu":
        lines.append("No accelerator: the nano recipes run in minutes; the others are made for a GPU.")
    if disk.get("free_gb", LEAST_DISK) < LEAST_DISK / 1e9:
        lines.append(f"Little disk is left at {disk['cache']}: set HF_HOME to a larger one.")
    if "error" in hub:
        return lines
    if hub["reachable"] is False:
        lines.append("The Hub is not reached: local folders and what is cached still work (HF_HUB_OFFLINE=1).")
    elif hub["token"] and hub["reachable"] and not hub["user"]:
        lines.append("The Hub refuses the token: hf auth login.")
    elif not hub["token"]:
        lines.append("No token: enough to load what is public; to publish, run: hf auth login.")
    return lines


def _section(examine_section: Callable[[], Section]) -> Section:
    try:
        return examine_section()
    except Exception as error:  # any exception is a finding
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _ranking() -> Section:
    """The log-odds of a known request; with an `error` if they are not the expected ones."""
    from transformers import pipeline

    recommender = pipeline(TASK, device="cpu")  # type: ignore[call-overload]
    answer = sorted(recommender(REQUEST)["candidates"], key=lambda candidate: candidate["index"])
    section: Section = {
        "log_odds": [round(candidate["log_odds"], 4) for candidate in answer],
        "expected": list(LOG_ODDS),
    }
    if any(abs(value - expected) > TOLERANCE for value, expected in zip(section["log_odds"], LOG_ODDS, strict=True)):
        section["error"] = "The log-odds are not those that this package gives."
    return section


def _refused_peft() -> Conflict | None:
    """The conflict of peft with the least version that transformers accepts: a constant in its code, no requirement."""
    try:
        from transformers.integrations.peft import MIN_PEFT_VERSION
    except Exception:  # no such constant, or an import error, which the ranking section reports
        return None
    return conflict_with("transformers", Requirement(f"peft>={MIN_PEFT_VERSION}"))


def _repair_command(pair: Conflict) -> str:
    """The command that resolves a conflict: install the tested versions or, if they are installed, the required ones."""
    names = [name for name in pair.names if name != "llm-trsr"]
    return _tested(*names) if any(map(_differs, names)) else f"pip install '{pair.needs}'"


def _tested(*names: str) -> str:
    return shlex.join(["pip", "install", "-c", str(CONSTRAINTS), *names])


def _differs(name: str) -> bool:
    """Whether the installed version is not the tested one."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines() if CONSTRAINTS.is_file() else []
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return any(conflict_with("llm-trsr", pin) for pin in pins if canonicalize_name(pin.name) == canonicalize_name(name))


def _extras() -> Iterator[tuple[str, str]]:
    for extra, package in EXTRAS.items():
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, f"not installed: pip install 'llm-trsr[{extra}]'"


def _device() -> Section:
    import torch

    from trsr.recommender.precision import computes_bf16, processor_computes_bf16

    accelerator = torch.accelerator.current_accelerator()
    section: Section = {"kind": accelerator.type if accelerator else "cpu", "threads": torch.get_num_threads()}
    if accelerator and accelerator.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        section |= {
            "name": torch.cuda.get_device_name(),
            "memory_gb": round(total / 1e9, 1),
            "free_gb": round(free / 1e9, 1),
            "bf16": computes_bf16(cpu=False),
            "count": torch.cuda.device_count(),
        }
    elif not accelerator and (native := processor_computes_bf16()) is not None:
        section["bf16"] = native
    return section


def _disk() -> Section:
    from huggingface_hub import constants

    cache = Path(constants.HF_HOME)
    existing_folder = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {"cache": str(cache), "free_gb": round(shutil.disk_usage(existing_folder).free / 1e9, 1)}


def _hub(offline: bool) -> Section:
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.utils import get_session

    token = get_token()
    token_sources = {"environment": "HF_TOKEN" in os.environ, "file": Path(constants.HF_TOKEN_PATH).is_file()}
    section: Section = {
        "endpoint": address(constants.ENDPOINT),
        "token": next((source for source, present in token_sources.items() if present and token), None),
        "reachable": None,
        "user": None,
    }
    if offline or constants.HF_HUB_OFFLINE:
        return section
    try:
        # A single request without huggingface_hub, which would retry for a minute.
        get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=5)
        section["reachable"] = True
        section["user"] = HfApi(token=token).whoami()["name"] if token else None
    except HfHubHTTPError:
        pass  # the Hub answered, with an error
    except (HTTPError, OSError):
        section["reachable"] = False
    return section
