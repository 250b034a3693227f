"""Item vectors without a language model: TF-IDF of words, reduced by a truncated singular value decomposition."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import TruncatedSVD

from trsr.errors import DataError
from trsr.retrieval.words import Words

WEIGHTS = "tfidf.safetensors"


class TfidfVectors:
    """Texts to vectors; fitted on one catalogue, it takes any text.

    Attributes:
        words: Those that count, and how much.
        components: (width, words) float32 directions of the decomposition.
    """

    name = "tf-idf"

    def __init__(self, words: Words, components: np.ndarray) -> None:
        self.words, self.components = words, components

    @classmethod
    def fit(cls, texts: Sequence[str], width: int = 256, seed: int = 0) -> "TfidfVectors":
        """Learn the vocabulary and the directions from a catalogue.

        Args:
            width: Of the vectors; smaller where the catalogue is.
            seed: Of the decomposition, which is a random approximation.

        Raises:
            DataError: If no word stands in two texts.
        """
        words = Words.fit(texts)
        weights = words.encode(texts)
        width = min(width, min(weights.shape) - 1)
        if width < 1:
            raise DataError(f"{weights.shape[0]} items with {weights.shape[1]} words make no vectors. Give more items.")
        return cls(words, TruncatedSVD(width, random_state=seed).fit(weights).components_.astype(np.float32))

    @property
    def width(self) -> int:
        return len(self.components)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32 of length 1; 0 for a text without a known word."""
        vectors = np.asarray(self.words.encode(texts) @ self.components.T, np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def describe(self) -> dict[str, Any]:
        """What the vectors depend on, for the retriever's record."""
        return {"name": self.name, "width": self.width, "words": len(self.words.idf)}

    def save(self, folder: Path) -> None:
        self.words.save(folder)
        save_file({"components": np.ascontiguousarray(self.components)}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "TfidfVectors":
        return cls(Words.load(folder), load_file(folder / WEIGHTS)["components"])
