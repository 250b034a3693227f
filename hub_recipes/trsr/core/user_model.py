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
BLOCKS = ("relative", "sasrec")


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
        blocks: One of BLOCKS, the transformer of the user model: `RelativeAttentionBlock`, or `SasRecBlock` with positions.
    """

    ids: int
    text_width: int
    width: int = 128
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    longest: int = 50
    dropout: float = 0.4
    blocks: str = "relative"

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.heads, self.longest, self.layers + 1) < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                f"Width and the other sizes of a user model must be 1 or more, layers not negative, and dropout from 0 to less than 1; got {self}."
            )
        if self.width % self.heads:
            raise InputError(f"The width of vectors must be a multiple of {self.heads} heads, got {self.width}.")
        if self.blocks not in BLOCKS:
            raise InputError(f"Unknown blocks {self.blocks!r} of a user model, expected one of {', '.join(BLOCKS)}.")


class RelativeAttentionBlock(nn.Module):
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
        users, length, _ = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(users, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = attention(q, k, v, self.distance, self.dropout if self.training else 0.0)
        x = x + F.dropout(self.out(mixed), self.dropout, self.training)
        return x + F.dropout(self.feed(self.feed_norm(x)), self.dropout, self.training)


class SasRecBlock(nn.Module):
    """The block of SASRec as its authors wrote it: only the queries are normalised, and the residual connection starts from
    the normalised input. It has the bias for distances of `RelativeAttentionBlock` too.

    Reference:
        Kang and McAuley, Self-Attentive Sequential Recommendation (ICDM 2018).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (nn.Linear(width, size * width) for size in (1, 2, 1))
        self.feed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(shape.dropout), nn.Linear(width, width)
        )
        self.distance = nn.Parameter(torch.zeros(shape.heads, shape.longest + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        users, length, _ = x.shape
        queries = self.attention_norm(x)
        q = self.query(queries).view(users, length, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(x).view(users, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = self.feed_norm(
            queries + self.out(attention(q, k, v, self.distance, self.dropout if self.training else 0.0))
        )
        return x + F.dropout(self.feed(x), self.dropout, self.training)


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, distance: torch.Tensor, dropout: float
) -> torch.Tensor:
    """Causal attention with a bias for the distance of two items.

    Args:
        q, k, v: (users, heads, length, size).
        distance: (heads, longest + 1), the bias for each distance.

    Returns:
        (users, length, heads * size)
    """
    positions = torch.arange(q.shape[2], device=q.device)
    distances = positions[:, None] - positions  # (length, length)
    bias = distance[:, distances.clamp(min=0)].masked_fill(distances < 0, -torch.inf)  # (heads, length, length)
    return F.scaled_dot_product_attention(q, k, v, bias, dropout_p=dropout).transpose(1, 2).flatten(2)


class UserModel(nn.Module):
    """A user's vector after each item: a causal transformer over the items' vectors."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.longest = shape.longest
        self.begin = nn.Parameter(torch.randn(shape.width) * 0.02)
        sasrec = shape.blocks == "sasrec"
        self.norm = nn.Identity() if sasrec else nn.LayerNorm(shape.width)
        self.last = nn.LayerNorm(shape.width)
        block = SasRecBlock if sasrec else RelativeAttentionBlock
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.layers))
        # A vector for each number of items that are still to come.
        self.positions = nn.Parameter(torch.randn(shape.longest + 1, shape.width) * 0.02) if sasrec else None
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, items: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Vectors after the first 0, 1, ... of a user's items, (users, length + 1, width).

        Args:
            items: (users, length, width), oldest first, padded behind: later items change no earlier vector.
            counts: (users,) how many items each user has, from the first of `items` on. Positions are counted from the newest.
        """
        begin = self.begin.expand(len(items), 1, -1)
        x = self.norm(torch.cat([begin, items], dim=1))
        if self.positions is not None:
            to_come = counts[:, None] - torch.arange(x.shape[1], device=x.device)
            x = x + self.positions[to_come.clamp(0, self.longest)]
        x = self.dropout(x)
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

    def forward(self, items: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """As `UserModel.forward`; the width is the sum of the members'."""
        parts = items.split(self.widths, dim=-1)
        return torch.cat([member(part, counts) for member, part in zip(self.members, parts, strict=True)], dim=-1)


def user_model_of(shape: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> UserModel | UserModels:
    """An untrained user model of a recorded shape; of several, the models of an ensemble."""
    if isinstance(shape, Mapping):
        return UserModel(Shape(**shape))
    return UserModels([UserModel(Shape(**member)) for member in shape])


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
    users = vectors.new_empty(len(histories), vectors.shape[1])
    order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        newest = [torch.as_tensor(histories[number][-model.longest :], dtype=torch.long) for number in chosen]
        counts = torch.tensor([len(items) for items in newest], device=vectors.device)
        after = model(vectors[pad_sequence(newest, batch_first=True)], counts)  # (users, length + 1, width)
        users[chosen] = after[torch.arange(len(newest)), counts]
    if broken := int((~users.isfinite()).any(1).sum()):
        raise InputError(
            f"The vectors of {broken} of {len(users)} users are not finite: the retriever's training diverged, or its files are "
            "damaged. Train it with a lower learning rate, or take a copy of them."
        )
    return users
