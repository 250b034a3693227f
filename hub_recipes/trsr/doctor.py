"""What this machine offers to a run: versions, device, disk, the Hub. Reads and asks; changes nothing."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import get_session

from trsr.embedded import ASSETS, NANO
from trsr.versions import versions

EXTRAS = {"demo": "gradio", "plots": "matplotlib", "ray": "ray"}
NEEDED = (NANO / "base" / "model.safetensors", NANO / "adapter" / "adapter_model.safetensors", ASSETS / "sample")
LEAST_DISK = 5e9  # bytes: a small base, its cache and a few checkpoints


def examine(offline: bool = False) -> dict[str, dict[str, object]]:
    """Sections of what was found, as plain values. A token is never among them, only whether there is one.

    Args:
        offline: Ask nothing of the Hub.
    """
    return {
        "versions": {"python": platform.python_version(), **versions(), **dict(_extras())},
        "device": _device(),
        "disk": _disk(),
        "hub": _hub(offline),
        "package": {"path": str(ASSETS.parent), "missing": [str(one) for one in NEEDED if not one.exists()]},
    }


def advice(found: dict[str, dict[str, object]]) -> list[str]:
    """What to do about what was found, a line each."""
    lines = []
    if found["package"]["missing"]:
        lines.append("Files of the package are missing: install llm-trsr again.")
    if found["device"]["kind"] == "cpu":
        lines.append("No accelerator: the nano recipes run in minutes; the others are made for a GPU.")
    if float(str(found["disk"]["free_gb"])) < LEAST_DISK / 1e9:
        lines.append(f"Little disk is left at {found['disk']['cache']}: set HF_HOME to a larger one.")
    if found["hub"]["reachable"] is False:
        lines.append("The Hub is not reached: local folders and what is cached still work (HF_HUB_OFFLINE=1).")
    elif found["hub"]["token"] and found["hub"]["reachable"] and not found["hub"]["user"]:
        lines.append("The Hub refuses the token: hf auth login.")
    elif not found["hub"]["token"]:
        lines.append("No token: enough to load what is public; to publish, run: hf auth login.")
    return lines


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
