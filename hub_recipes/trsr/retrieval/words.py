"""The words of items' texts, for a retriever that learns a vector of each: which words, and how much each counts in a text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from trsr.errors import DataError
from trsr.records.files import read_json

VOCABULARY, WEIGHTS = "vocabulary.json", "idf.safetensors"
MOST = 50_000


class Words:
    """Texts to weights of their words, by TF-IDF; fitted on one catalogue, it takes any text.

    Attributes:
        columns: Word -> column.
        idf: (words,) float32 inverse document frequencies.
    """

    def __init__(self, columns: dict[str, int], idf: np.ndarray) -> None:
        self.columns, self.idf = columns, idf
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, norm="l2", vocabulary=columns)
        self._vectorizer.idf_ = idf

    @classmethod
    def fit(cls, texts: Sequence[str]) -> "Words":
        """The words that stand in two texts of a catalogue at least; of more than MOST, the most frequent.

        Raises:
            DataError: If there is none.
        """
        vectorizer = TfidfVectorizer(min_df=2, max_features=MOST)
        try:
            vectorizer.fit(texts)
        except ValueError as error:
            raise DataError(
                f"The items' texts share no words: {error} Give item vectors of a model (--vectors), and --no-words."
            ) from error
        columns = {word: column for column, word in enumerate(vectorizer.get_feature_names_out().tolist())}
        return cls(columns, vectorizer.idf_.astype(np.float32))

    def encode(self, texts: Sequence[str]) -> csr_array:
        """Weights (texts, words) float32, rows of length 1; a text without a known word has none."""
        return csr_array(self._vectorizer.transform(texts), dtype=np.float32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(list(self.columns), ensure_ascii=False) + "\n"
        (folder / VOCABULARY).write_text(text, encoding="utf-8", newline="\n")
        save_file({"idf": self.idf}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "Words":
        columns = {word: column for column, word in enumerate(read_json(folder / VOCABULARY))}
        return cls(columns, load_file(folder / WEIGHTS)["idf"])


@dataclass(frozen=True, slots=True)
class WeightedWords:
    """Rows of `Words.encode`, as an embedding bag takes them.

    Attributes:
        columns: (entries,) int64, those of the first row, the second, and so on.
        weights: (entries,) float32.
        starts: (rows + 1,) int64: a row's first entry, and behind the last row the number of entries.
    """

    columns: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, table: csr_array) -> "WeightedWords":
        columns, starts = table.indices.astype(np.int64), table.indptr.astype(np.int64)
        return cls(torch.from_numpy(columns), torch.from_numpy(table.data), torch.from_numpy(starts))

    def __getitem__(self, rows: torch.Tensor) -> "WeightedWords":
        """Some rows (rows,), in that order."""
        lengths = (self.starts[1:] - self.starts[:-1])[rows]
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        # Where an entry stands here, less where it stands there, is the same in all of a row.
        entries = torch.arange(int(starts[-1])) + torch.repeat_interleave(self.starts[rows] - starts[:-1], lengths)
        return WeightedWords(self.columns[entries], self.weights[entries], starts)
