"""The networks of a retriever: a vector for an item from its text and its id, and one for a user from the items met.

Knows nothing of losses, files or where text vectors come from.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the networks.

    Attributes:
        ids: Items that have an id part; 0 = none has, and vectors come from text alone.
        text_width: Of the text vectors; 0 = none, and vectors come from ids alone.
        width: Of item and user vectors.
        hidden: Width between the two layers over a text vector.
        layers, heads: Of the user model.
        longest: Newest items of a user that count.
        dropout: Share of values that training sets to 0.
    """

    ids: int
    text_width: int
    width: int = 128
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    longest: int = 50
    dropout: float = 0.4


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


class Block(nn.Module):
    """A causal transformer block, normalised before each part, with a learnt bias for the distance of two items."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(shape.dropout), nn.Linear(4 * width, width)
        )
        self.distance = nn.Parameter(torch.zeros(shape.heads, shape.longest + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        users, length, width = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(users, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        places = torch.arange(length, device=x.device)
        apart = places[:, None] - places  # (length, length)
        bias = self.distance[:, apart.clamp(min=0)].masked_fill(apart < 0, -torch.inf)  # (heads, length, length)
        mixed = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=self.dropout if self.training else 0.0)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(users, length, width)), self.dropout, self.training)
        return x + F.dropout(self.feed(self.feed_norm(x)), self.dropout, self.training)


class UserModel(nn.Module):
    """A user's vector after each item: a causal transformer over the items' vectors."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.begin = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.norm, self.last = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Vectors after the first 0, 1, ... of a user's items, (users, length + 1, width).

        Args:
            items: (users, length, width), oldest first, padded behind: what comes later changes no earlier vector.
        """
        begin = self.begin.expand(len(items), 1, -1)
        x = self.dropout(self.norm(torch.cat([begin, items], dim=1)))
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Network(nn.Module):
    """Both networks. The score of an item is the product of its vector and the user's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.item, self.user = ItemTower(shape), UserModel(shape)
        # Measured: scores that start larger overfit at once, smaller ones learn slowly.
        nn.init.constant_(self.user.last.weight, 0.3)
