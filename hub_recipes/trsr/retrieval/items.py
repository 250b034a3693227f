"""Vectors of a catalogue's items during training, from their text vectors, words and numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from trsr.retrieval.network import Network, Shape
from trsr.retrieval.words import WeightedWords


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What item vectors are made from.

    Attributes:
        text: (items, text_width), if they have a text part.
        words: Of all items, if they have a part from words.
        known: (items,) bool, as `ItemTower` takes it.
        ids: Whether they have an id part.
    """

    text: torch.Tensor | None
    words: WeightedWords | None
    known: torch.Tensor
    ids: bool

    @classmethod
    def of(cls, text: np.ndarray | None, words: csr_array | None, counts: np.ndarray, shape: Shape) -> "Catalogue":
        return cls(
            None if text is None else torch.from_numpy(text),
            None if words is None else WeightedWords.of(words),
            torch.from_numpy(counts > 0),
            bool(shape.ids),
        )

    def items(self, network: Network, numbers: torch.Tensor) -> torch.Tensor:
        """Vectors (items, width) of some items."""
        text = None if self.text is None else self.text[numbers]
        words = None if self.words is None else self.words[numbers]
        return network.item(text, words, numbers if self.ids else None, self.known[numbers])

    @torch.no_grad()
    def vectors(self, network: Network, block: int = 8192) -> np.ndarray:
        """Vectors (items, width) float32 of all items, without dropout."""
        network.eval()
        numbers = torch.arange(len(self.known))
        return torch.cat([self.items(network, part) for part in numbers.split(block)]).numpy()
