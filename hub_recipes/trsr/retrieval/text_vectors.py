"""Item vectors from text, whatever makes them: one function from texts to a table, and its record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trsr.errors import UsageError

KINDS = ("tf-idf", "sentence-transformers:MODEL", "transformers:MODEL")


class TextVectors(Protocol):
    """Makes a vector of any text; nothing about it changes after it was made."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32."""

    def describe(self) -> dict[str, Any]:
        """Name, and what else the vectors depend on."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs beside the description."""


class EnsembleVectors:
    """Those of several makers, one behind the other, as an ensemble of retrievers takes them."""

    name = "ensemble"

    def __init__(self, members: Sequence[TextVectors]) -> None:
        self.members = members

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, sum of the members' widths) float32."""
        return np.concatenate([member.encode(texts) for member in self.members], axis=1)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "members": [member.describe() for member in self.members]}

    def save(self, folder: Path) -> None:
        for number, member in enumerate(self.members):
            member.save(folder / str(number))


def pretrained(name: str) -> TextVectors | None:
    """The pretrained model that a name of KINDS stands for; None if it stands for none.

    Raises:
        LoadError: If it is neither here nor on the Hub.
    """
    from trsr.retrieval.pretrained import HiddenStateVectors, SentenceVectors

    kind, _, model = name.partition(":")
    vectors = next(
        (vectors for vectors in (SentenceVectors, HiddenStateVectors) if kind == vectors.name and model), None
    )
    return vectors(model) if vectors else None


def make(name: str, texts: Sequence[str], seed: int = 0) -> TextVectors:
    """The maker of item vectors that a name stands for, fitted to a catalogue where it has to be.

    Args:
        name: One of KINDS, MODEL being a folder or a Hub id.
        texts: Of the catalogue's items.

    Raises:
        UsageError: If there is none of that name.
        LoadError: As `pretrained`.
    """
    from trsr.retrieval.tfidf import TfidfVectors

    if name == TfidfVectors.name:
        return TfidfVectors.fit(texts, seed=seed)
    if maker := pretrained(name):
        return maker
    raise UsageError(f"Unknown item vectors {name!r}; there are {', '.join(KINDS)}, and none.")


def load(record: Mapping[str, Any], folder: Path) -> TextVectors:
    """The maker of item vectors that a retriever was trained on.

    Args:
        record: As `describe` gave it.
        folder: Where it was saved.

    Raises:
        UsageError: If it is of a kind that is not known here.
    """
    from trsr.retrieval.pretrained import HiddenStateVectors, SentenceVectors
    from trsr.retrieval.tfidf import TfidfVectors

    if record["name"] == TfidfVectors.name:
        return TfidfVectors.load(folder)
    if record["name"] == EnsembleVectors.name:
        members = enumerate(record["members"])
        return EnsembleVectors([load(member, folder / str(number)) for number, member in members])
    for vectors in (SentenceVectors, HiddenStateVectors):
        if record["name"] == vectors.name:
            return vectors(record["model"], record["checksum"])
    raise UsageError(f"Unknown item vectors {record['name']!r} in {folder}: the retriever is of a later version.")
