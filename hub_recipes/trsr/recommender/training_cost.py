"""Seconds and CPU seconds of a training, over all processes that worked on it; written beside its checkpoints."""

import json
import time
from pathlib import Path

from transformers import TrainerCallback

from trsr.records.files import read_json, write_text

SPENT = "spent.json"  # beside checkpoints


class CostCallback(TrainerCallback):
    """Seconds of a training since this was made, and those of killed processes before, up to their last checkpoint.

    Args:
        file: Written with every checkpoint.
        resumed: Whether what the file holds counts, as where the training goes on from a checkpoint.
    """

    def __init__(self, file: Path, resumed: bool) -> None:
        self._file = file
        self._before = read_json(file) if resumed and file.is_file() else {"seconds": 0.0, "cpu_seconds": 0.0}
        self._started, self._began = time.monotonic(), time.process_time()

    def total(self) -> dict[str, float]:
        """`seconds`, and `cpu_seconds` of this process and those before it."""
        return {
            "seconds": self._before["seconds"] + time.monotonic() - self._started,
            "cpu_seconds": self._before["cpu_seconds"] + time.process_time() - self._began,
        }

    def on_save(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            write_text(self._file, json.dumps(self.total()))
