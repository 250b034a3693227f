"""Vectors of a catalogue's items during training, from their text vectors and numbers."""

from dataclasses import dataclass

import numpy as np
import torch

from trsr.retrieval.network import Network, Shape


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What item vectors are made from.

    Attributes:
        text: (items, text_width), if they have a text part.
        known: (items,) bool, as `ItemTower` takes it.
        ids: Whether they have an id part.
    """

    text: torch.Tensor | None
    known: torch.Tensor
    ids: bool

    @classmethod
    def of(cls, text: np.ndarray | None, counts: np.ndarray, shape: Shape) -> "Catalogue":
        return cls(None if text is None else torch.from_numpy(text), torch.from_numpy(counts > 0), bool(shape.ids))

    def items(self, network: Network, numbers: torch.Tensor) -> torch.Tensor:
        """Vectors (items, width) of some items."""
        text = None if self.text is None else self.text[numbers]
        return network.item(text, numbers if self.ids else None, self.known[numbers])

    @torch.no_grad()
    def vectors(self, network: Network, block: int = 8192) -> np.ndarray:
        """Vectors (items, width) float32 of all items, without dropout."""
        network.eval()
        numbers = torch.arange(len(self.known))
        return torch.cat([self.items(network, part) for part in numbers.split(block)]).numpy()
