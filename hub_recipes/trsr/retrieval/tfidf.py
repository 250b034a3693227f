"""Item vectors without a language model: TF-IDF of words, reduced by a truncated singular value decomposition."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from trsr.errors import DataError
from trsr.records.files import read_json

VOCABULARY, WEIGHTS = "vocabulary.json", "tfidf.safetensors"
MOST_WORDS = 50_000


class TfidfVectors:
    """Texts to vectors; fitted on one catalogue, it takes any text.

    Attributes:
        words: Word -> column.
        idf: (words,) float32 inverse document frequencies.
        components: (width, words) float32 directions of the decomposition.
    """

    name = "tf-idf"

    def __init__(self, words: dict[str, int], idf: np.ndarray, components: np.ndarray) -> None:
        self.words, self.idf, self.components = words, idf, components
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, norm="l2", vocabulary=words)
        self._vectorizer.idf_ = idf

    @classmethod
    def fit(cls, texts: Sequence[str], width: int = 256, seed: int = 0) -> "TfidfVectors":
        """Learn the vocabulary and the directions from a catalogue.

        Args:
            width: Of the vectors; smaller where the catalogue is.
            seed: Of the decomposition, which is a random approximation.

        Raises:
            DataError: If no word stands in two texts.
        """
        vectorizer = TfidfVectorizer(sublinear_tf=True, norm="l2", min_df=2, max_features=MOST_WORDS)
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(f"The items' texts share no words: {error} Give item vectors of a model.") from error
        width = min(width, min(counts.shape) - 1)
        if width < 1:
            raise DataError(f"{counts.shape[0]} items with {counts.shape[1]} words make no vectors. Give more items.")
        svd = TruncatedSVD(width, random_state=seed).fit(counts)
        words = {word: column for column, word in enumerate(vectorizer.get_feature_names_out().tolist())}
        return cls(words, vectorizer.idf_.astype(np.float32), svd.components_.astype(np.float32))

    @property
    def width(self) -> int:
        return len(self.components)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32 of length 1; 0 for a text without a known word."""
        counts: csr_array = self._vectorizer.transform(texts)
        vectors = np.asarray(counts @ self.components.T, np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def describe(self) -> dict[str, Any]:
        """What the vectors depend on, for the retriever's record."""
        return {"name": self.name, "width": self.width, "words": len(self.words)}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(list(self.words), ensure_ascii=False) + "\n"
        (folder / VOCABULARY).write_text(text, encoding="utf-8", newline="\n")
        save_file({"idf": self.idf, "components": np.ascontiguousarray(self.components)}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "TfidfVectors":
        weights = load_file(folder / WEIGHTS)
        words = {word: column for column, word in enumerate(read_json(folder / VOCABULARY))}
        return cls(words, weights["idf"], weights["components"])
