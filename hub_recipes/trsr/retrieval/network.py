"""The networks of a retriever: a vector for an item from its text and its id, and one for a user from the items met.

Knows nothing of losses, files or where text vectors come from. The user model travels with a recommender: `trsr.core`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from trsr.core.user_model import Shape, UserModel, UserModels

__all__ = ["Ensemble", "ItemTower", "ItemTowers", "Network", "Shape", "network_of"]


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
        if shape.blocks == "relative":
            # Measured: scores that start larger overfit at once, smaller ones learn slowly.
            nn.init.constant_(self.user.last.weight, 0.3)

    def describe(self) -> dict[str, Any]:
        """What `network_of` makes it from."""
        return asdict(self.shape)


class ItemTowers(nn.Module):
    """Item towers of an ensemble: an item's vector is theirs, one behind the other."""

    def __init__(self, members: Sequence[ItemTower], text_widths: Sequence[int]) -> None:
        super().__init__()
        self.members, self.text_widths = nn.ModuleList(members), list(text_widths)

    def forward(self, text: torch.Tensor, numbers: None, known: torch.Tensor) -> torch.Tensor:
        """Vectors of items from their texts alone.

        Args:
            text: (items, sum of text widths), the members' text vectors one behind the other.
            numbers: None, since nothing is trained here.
            known: As `ItemTower.forward` takes it.
        """
        parts = text.split(self.text_widths, dim=1)
        return torch.cat([tower(part, None, known) for tower, part in zip(self.members, parts, strict=True)], dim=1)


class Ensemble(nn.Module):
    """Networks side by side: the vectors of items and users are theirs, one behind the other."""

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.shapes = [member.shape for member in members]
        self.item = ItemTowers([member.item for member in members], [shape.text_width for shape in self.shapes])
        self.user = UserModels([member.user for member in members])

    @classmethod
    def of(cls, members: Sequence[Network]) -> "Ensemble":
        """The ensemble of trained networks: the score of an item is the mean of theirs. They are left as they are."""
        copies = [copy.deepcopy(member) for member in members]
        with torch.no_grad():
            for network in copies:  # the last step to a user's vector, a norm with weight and bias, scales its scores
                for value in network.user.last.parameters():
                    value.div_(len(copies))
        return cls(copies).eval()

    def describe(self) -> list[dict[str, Any]]:
        """What `network_of` makes it from."""
        return [asdict(shape) for shape in self.shapes]


def network_of(shape: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Network | Ensemble:
    """An untrained network of a recorded shape; of several, an ensemble."""
    if isinstance(shape, Mapping):
        return Network(Shape(**shape))
    return Ensemble([Network(Shape(**member)) for member in shape])
