"""A user's vector from the vectors of the items met: a causal transformer, trained with a retriever.

Knows nothing of where item vectors come from, nor of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .errors import InputError

BATCH = 256  # users in one forward


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

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.heads, self.longest, self.layers + 1) < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                f"Width and the other sizes of a user model must be 1 or more, layers not negative, and dropout from 0 to less than 1; got {self}."
            )
        if self.width % self.heads:
            raise InputError(f"The width of vectors must be a multiple of {self.heads} heads, got {self.width}.")


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
        self.longest = shape.longest
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


class UserModels(nn.Module):
    """User models of an ensemble: items' vectors hold a part for each, and a user's vector is theirs, one behind the other.

    Raises:
        InputError: If they look at different numbers of items.
    """

    def __init__(self, members: Sequence[UserModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.widths = [len(member.begin) for member in members]
        if len(longest := {member.longest for member in members}) > 1:
            raise InputError(
                f"Members of an ensemble look at the same number of newest items; these at {sorted(longest)}."
            )
        self.longest = longest.pop()

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """As `UserModel.forward`; the width is the sum of the members'."""
        parts = items.split(self.widths, dim=-1)
        return torch.cat([member(part) for member, part in zip(self.members, parts, strict=True)], dim=-1)


def user_model_of(shape: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> UserModel | UserModels:
    """An untrained user model of a recorded shape; of several, the models of an ensemble."""
    if isinstance(shape, Mapping):
        return UserModel(Shape(**shape))
    return UserModels([UserModel(Shape(**one)) for one in shape])


@torch.no_grad()
def user_vectors(model: UserModel | UserModels, vectors: torch.Tensor, histories: Sequence[Any]) -> torch.Tensor:
    """Vectors (users, width) after the whole of each history; its newest items count.

    Args:
        vectors: (items, width) of the catalogue.
        histories: Numbers of items, oldest first, as lists or arrays; may be empty.

    Raises:
        InputError: If a vector is not finite: such a user has no nearest items.
    """
    model.eval()
    made = vectors.new_empty(len(histories), vectors.shape[1])
    order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        newest = [torch.as_tensor(histories[number][-model.longest :], dtype=torch.long) for number in chosen]
        after = model(vectors[pad_sequence(newest, batch_first=True)])  # (users, length + 1, width)
        made[chosen] = after[torch.arange(len(newest)), torch.tensor([len(items) for items in newest])]
    if broken := int((~made.isfinite()).any(1).sum()):
        raise InputError(
            f"The vectors of {broken} of {len(made)} users are not finite: the retriever's training diverged, or its files are "
            "damaged. Train it with a lower learning rate, or take a copy of them."
        )
    return made
