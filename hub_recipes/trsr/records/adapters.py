"""The record that PEFT keeps of an adapter: which base it belongs to."""

import json
from pathlib import Path

from trsr.records.files import read_json


def write_adapter_config(folder: Path, base: str, revision: str | None) -> None:
    """Set the base and its commit in adapter_config.json, and sort `target_modules`, which peft keeps as a set."""
    path = folder / "adapter_config.json"
    config = read_json(path)
    config["base_model_name_or_path"] = base
    config["revision"] = revision
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
