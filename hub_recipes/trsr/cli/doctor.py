"""Look at versions, a ranking, device, disk, token and the Hub, and say what to do.

Ranks a known request with the recommender in the package, and names every pair of versions that does not fit.
Exit code: 0, or 1 if files are missing, versions do not fit, or the ranking is not the known one. A token is never
shown, only whether there is one. Heavy packages are imported one section at a time, and none of them is needed.

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

EXTRAS = {"demo": "gradio", "plots": "matplotlib", "ray": "ray"}
# The exact versions of the tests: in the package from a wheel, beside it in a checkout.
CONSTRAINTS = (PACKAGE if (PACKAGE / "constraints.txt").is_file() else PACKAGE.parent) / "constraints.txt"
NEEDED = (
    NANO / "base" / "model.safetensors",
    NANO / "adapter" / "adapter_model.safetensors",
    ASSETS / "sample",
    CONSTRAINTS,
)
LEAST_DISK = 5e9  # bytes: a small base, its cache and a few checkpoints
# The README's ten lines, and the log-odds that the recommender in the package gives, in the order of the candidates.
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
LOG_ODDS = (2.1148, -1.2041)
TOLERANCE = 1e-3
RANKS_WITH = ("peft", "safetensors", "tokenizers", "torch", "transformers")

Section = dict[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="ask nothing of the Hub")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    found = examine(options.offline)
    lines = []
    for section, values in found.items():
        if section != "conflicts":  # told below, with what mends them
            lines += [section, *(f"  {name:14} {value}" for name, value in values.items())]
    told = advice(found)
    return Outcome(
        {**found, "advice": told}, "\n".join([*lines, "", *told]).rstrip(), Exit.FOUND if broken(found) else Exit.DONE
    )


def examine(offline: bool = False) -> dict[str, Section]:
    """Sections of what was found, as plain values. A token is never among them, only whether there is one.

    A section that could not be looked at holds an `error`. `conflicts` holds the command that mends each.

    Args:
        offline: Ask nothing of the Hub.
    """
    ranking = _section(_ranking)
    pairs = conflicts()
    if "error" in ranking and (refused := _refused_peft()):
        pairs.append(refused)
    return {
        "versions": {"python": platform.python_version(), **versions(), **dict(_extras())},
        "conflicts": {str(pair): _mend(pair) for pair in pairs},
        "ranking": ranking,
        "device": _section(_device),
        "disk": _section(_disk),
        "hub": _section(lambda: _hub(offline)),
        "package": {"path": str(ASSETS.parent), "missing": [str(one) for one in NEEDED if not one.exists()]},
    }


def broken(found: dict[str, Section]) -> bool:
    """Whether files are missing, versions do not fit, or the recommender in the package does not rank as it should."""
    return bool(found["package"]["missing"] or found["conflicts"] or "error" in found["ranking"])


def advice(found: dict[str, Section]) -> list[str]:
    """What to do about what was found, a line each."""
    device, disk, hub = (found[name] for name in ("device", "disk", "hub"))
    lines = [f"{conflict} Run: {command}" for conflict, command in found["conflicts"].items()]
    if found["package"]["missing"]:
        lines.append("Files of the package are missing: install llm-trsr again.")
    elif "error" in found["ranking"]:
        lines.append(f"The recommender in the package fails: {found['ranking']['error']} Run: {_tested(*RANKS_WITH)}")
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


def _section(look: Callable[[], Section]) -> Section:
    try:
        return look()
    except Exception as error:  # whatever is broken is what was looked for
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _ranking() -> Section:
    """The log-odds of a known request; with an `error` if they are not the known ones."""
    from transformers import pipeline

    recommender = pipeline(TASK, device="cpu")  # type: ignore[call-overload]
    answer = sorted(recommender(REQUEST)["candidates"], key=lambda one: one["index"])
    found: Section = {"log_odds": [round(one["log_odds"], 4) for one in answer], "expected": list(LOG_ODDS)}
    if any(abs(one - known) > TOLERANCE for one, known in zip(found["log_odds"], LOG_ODDS, strict=True)):
        found["error"] = "The log-odds are not those that this package gives."
    return found


def _refused_peft() -> Conflict | None:
    """The peft that transformers refuses. It requires none, and asks for one in a constant."""
    try:
        from transformers.integrations.peft import MIN_PEFT_VERSION
    except Exception:  # it has no such constant, or cannot be imported, which the ranking has told
        return None
    return conflict_with("transformers", Requirement(f"peft>={MIN_PEFT_VERSION}"))


def _mend(pair: Conflict) -> str:
    """The command that mends it: with the tested versions, or where they are installed, with what is asked for."""
    names = [name for name in pair.names if name != "llm-trsr"]
    return _tested(*names) if any(map(_differs, names)) else f"pip install '{pair.needs}'"


def _tested(*names: str) -> str:
    return shlex.join(["pip", "install", "-c", str(CONSTRAINTS), *names])


def _differs(name: str) -> bool:
    """Whether another version is installed than the tested one."""
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

    where = torch.accelerator.current_accelerator()
    found: Section = {"kind": where.type if where else "cpu", "threads": torch.get_num_threads()}
    if where and where.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {
            "name": torch.cuda.get_device_name(),
            "memory_gb": round(total / 1e9, 1),
            "free_gb": round(free / 1e9, 1),
            "bf16": torch.cuda.is_bf16_supported(),
            "count": torch.cuda.device_count(),
        }
    return found


def _disk() -> Section:
    from huggingface_hub import constants

    cache = Path(constants.HF_HOME)
    there = next(one for one in (cache, *cache.parents) if one.exists())
    return {"cache": str(cache), "free_gb": round(shutil.disk_usage(there).free / 1e9, 1)}


def _hub(offline: bool) -> Section:
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.utils import get_session

    token = get_token()
    kept = {"environment": "HF_TOKEN" in os.environ, "file": Path(constants.HF_TOKEN_PATH).is_file()}
    found: Section = {
        "endpoint": constants.ENDPOINT,
        "token": next((place for place, there in kept.items() if there and token), None),
        "reachable": None,
        "user": None,
    }
    if offline or constants.HF_HUB_OFFLINE:
        return found
    try:
        # Asked once and by hand: the clients would try again for a minute.
        get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=5)
        found["reachable"] = True
        found["user"] = HfApi(token=token).whoami()["name"] if token else None
    except HfHubHTTPError:
        pass  # it answered, if only to say no
    except (HTTPError, OSError):
        found["reachable"] = False
    return found
