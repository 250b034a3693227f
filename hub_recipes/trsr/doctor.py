"""What this machine offers to a run: versions, a ranking, device, disk, the Hub. Reads and asks; changes nothing.

Reports whatever is broken: heavy packages are imported one section at a time, and none of them is needed.
"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from trsr.conflicts import Conflict, conflict_with, conflicts
from trsr.embedded import ASSETS, NANO, PACKAGE, TASK
from trsr.versions import versions

EXTRAS = {"demo": "gradio", "plots": "matplotlib", "ray": "ray"}
NEEDED = (NANO / "base" / "model.safetensors", NANO / "adapter" / "adapter_model.safetensors", ASSETS / "sample")
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

Section = dict[str, Any]


def examine(offline: bool = False) -> dict[str, Section]:
    """Sections of what was found, as plain values. A token is never among them, only whether there is one.

    A section that cannot be looked at holds its `error` alone.

    Args:
        offline: Ask nothing of the Hub.
    """
    return {
        "versions": {"python": platform.python_version(), **versions(), **dict(_extras())},
        "conflicts": {one.names[1]: str(one) for one in _conflicts()},
        "ranking": _section(_ranking),
        "device": _section(_device),
        "disk": _section(_disk),
        "hub": _section(lambda: _hub(offline)),
        "package": {"path": str(ASSETS.parent), "missing": [str(one) for one in NEEDED if not one.exists()]},
    }


def works(found: dict[str, Section]) -> bool:
    """Whether the package is whole, ranks as it should, and finds the versions that it asks for."""
    asked_by_us = [one for one in _conflicts() if one.package != "transformers" or one.names[1] != "peft"]
    return not (found["package"]["missing"] or found["ranking"].get("error") or asked_by_us)


def _extras() -> Iterator[tuple[str, str]]:
    for extra, package in EXTRAS.items():
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, f"not installed: pip install 'llm-trsr[{extra}]'"


def _device() -> dict[str, object]:
    import torch

    where = torch.accelerator.current_accelerator()
    found: dict[str, object] = {"kind": where.type if where else "cpu", "threads": torch.get_num_threads()}
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


def _disk() -> dict[str, object]:
    cache = Path(constants.HF_HOME)
    there = next(one for one in (cache, *cache.parents) if one.exists())
    return {"cache": str(cache), "free_gb": round(shutil.disk_usage(there).free / 1e9, 1)}


def _hub(offline: bool) -> dict[str, object]:
    token = get_token()
    kept = {"environment": "HF_TOKEN" in os.environ, "file": Path(constants.HF_TOKEN_PATH).is_file()}
    found: dict[str, object] = {
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
