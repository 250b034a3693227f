"""The networks of a retriever: a vector for an item from its text and its id, and one for a user from the items met.

Knows nothing of losses, files or where text vectors come from. The user model travels with a recommender: `trsr.core`.
"""

import torch
from torch import nn

from trsr.core.user_model import Shape, UserModel

__all__ = ["ItemTower", "Network", "Shape"]


class ItemTower(nn.Module):
    """An item's vector: its text vector through two layers, plus an id part where it has one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.text_width:
            self.register_buffer("center", torch.zeros(shape.text_width))
            self.register_buffer("spread", torch.ones(()))
            self.text = nn.Sequential(
                nn.Linear(shape.text_width, shape.hidden),
                nn.GELU(),
                nn.Dropout(shape.dropout),
                nn.Linear(shape.hidden, shape.width),
            )
        if shape.ids:
            self.ids = nn.Embedding(shape.ids, shape.width)
            nn.init.normal_(self.ids.weight, std=0.05)

    def scale_to(self, text: torch.Tensor) -> None:
        """Let text vectors (items, text_width) of a catalogue have mean 0 and variance 1: models' vectors share a direction."""
        self.center = text.mean(0)
        self.spread = (text - self.center).square().mean().sqrt().clamp(min=1e-6)

    def forward(self, text: torch.Tensor | None, numbers: torch.Tensor | None, known: torch.Tensor) -> torch.Tensor:
        """Vectors of items.

        Args:
            text: (items, text_width), if vectors have a text part.
            numbers: (items,) rows of the id parts, if vectors have one.
            known: (items,) bool: which of them have been met in training; the others have no id part.
        """
        parts = []
        if text is not None:
            parts.append(self.text((text - self.center) / self.spread))
        if numbers is not None:
            parts.append(self.ids(numbers) * known[:, None])
        return sum(parts[1:], parts[0])


class Network(nn.Module):
    """Both networks. The score of an item is the product of its vector and the user's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.item, self.user = ItemTower(shape), UserModel(shape)
        # Measured: scores that start larger overfit at once, smaller ones learn slowly.
        nn.init.constant_(self.user.last.weight, 0.3)
