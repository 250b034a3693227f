"""Where the training of a retriever stands after an epoch, so that one that was killed goes on and gives the same bytes.

Knows the state as a whole, not what is in it: `training` does.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from trsr.errors import RunError
from trsr.records.files import beside, bind, is_bound, whole_file

STATE, TEXT = "state.pt", "text.npy"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder beside a retriever's, that is there while it is trained.

    Attributes:
        began: `time.process_time()` at the beginning of this process's work.
        started: `time.monotonic()` then.
        spent: CPU seconds and seconds of the processes before.
        state: What `save` was given last; None at the beginning.
    """

    folder: Path
    made_from: Mapping[str, Any]
    began: float
    started: float
    spent: tuple[float, float]
    state: Mapping[str, Any] | None

    @classmethod
    def open(cls, out: Path, made_from: Mapping[str, Any], began: float, started: float) -> "Checkpoint":
        """The checkpoint of a retriever that is to be written to `out`.

        Raises:
            UsageError: If it is of other settings or another dataset.
            RunError: If it cannot be read.
        """
        folder = beside(out, "-work")
        if folder.exists():
            bind(folder, made_from)
        path = folder / STATE
        if not path.is_file():
            return cls(folder, made_from, began, started, (0.0, 0.0), None)
        try:
            saved = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            raise RunError(f"{path} is no checkpoint, or damaged: {error}. Remove {folder} to train anew.") from error
        return cls(folder, made_from, began, started, tuple(saved["spent"]), saved["training"])

    @classmethod
    def remove_left(cls, out: Path, made_from: Mapping[str, Any]) -> None:
        """Remove what a process left that was killed once `out` was written. The checkpoint of another training stays."""
        folder = beside(out, "-work")
        if is_bound(folder, made_from):
            shutil.rmtree(folder)

    @property
    def seconds(self) -> tuple[float, float]:
        """CPU seconds and seconds so far, those of processes that were killed included up to their last epoch.

        Of one that was killed before its first epoch nothing is counted, text vectors neither, although they are kept.
        """
        cpu, clock = self.spent
        return cpu + time.process_time() - self.began, clock + time.monotonic() - self.started

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep tensors, numbers, texts and containers of them. The file is complete or as it was."""
        bind(self.folder, self.made_from)
        with whole_file(self.folder / STATE) as draft:
            torch.save({"spent": list(self.seconds), "training": dict(state)}, draft)

    def text_vectors(self, encode: Callable[[], np.ndarray]) -> np.ndarray:
        """Text vectors of the catalogue, which a language model may take long to make: kept as soon as they are there."""
        path = self.folder / TEXT
        if not path.is_file():
            vectors = encode()
            bind(self.folder, self.made_from)
            with whole_file(path) as draft, draft.open("wb") as file:
                np.save(file, vectors)
        return np.load(path)

    def remove(self) -> None:
        """Once the retriever is there."""
        shutil.rmtree(self.folder)


def generator_state(generator: np.random.Generator) -> str:
    """The state of a generator as a text."""
    return json.dumps(generator.bit_generator.state)


def restore_generator(generator: np.random.Generator, state: str) -> None:
    generator.bit_generator.state = json.loads(state)
