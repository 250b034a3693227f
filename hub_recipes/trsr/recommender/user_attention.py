"""Attention for a row that holds the users of a batch end to end: each token attends to tokens of its own user alone.

Everything else of a model takes the row as it is, one large product instead of a small one for each user. A model calls the
function that `by_user` switches on through the attention interface of transformers, once a layer, with the row's `users`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from trsr.core.compat import attention_of, without_peft
from trsr.core.packed import Row
from trsr.errors import InputError

NAME = "trsr_by_user"

# Queries and keys of a part as slices of the row, and which of these keys each of these queries sees, (queries, keys).
Part = tuple[slice, slice, torch.Tensor]


class Users:
    """Users end to end in a row of T tokens: of each a prefix, then its suffixes.

    Args:
        seq_lengths: Of each user the tokens of its prefix, then of each suffix.

    Attributes:
        positions: (T,) position of each token in its own prompt.
        ends: (suffixes of all users,) index in the row of the last token of each.
    """

    def __init__(self, seq_lengths: Sequence[Sequence[int]], device: torch.device) -> None:
        self._rows = [Row.of(prefix, lengths, device) for prefix, *lengths in seq_lengths]
        self._starts = [0]
        positions, ends = [], []
        for row in self._rows:
            suffixes = self._starts[-1] + row.prefix
            positions += [torch.arange(row.prefix, device=device), row.positions]
            ends.append(suffixes + row.ends)
            self._starts.append(suffixes + len(row.positions))
        self.positions, self.ends = torch.cat(positions), torch.cat(ends)
        self._parts: dict[int | None, list[Part]] = {}

    def parts(self, window: int | None) -> list[Part]:
        """The row in parts that attention computes one by one: of each user the prefix, then all suffixes."""
        if window not in self._parts:
            self._parts[window] = [part for user in range(len(self._rows)) for part in self._of_user(user, window)]
        return self._parts[window]

    def _of_user(self, user: int, window: int | None) -> Iterator[Part]:
        row, start, end = self._rows[user], self._starts[user], self._starts[user + 1]
        middle = start + row.prefix
        # A prefix is what a single suffix behind nothing is.
        causal = Row.of(0, [row.prefix], self.positions.device).visible(window)
        yield slice(start, middle), slice(start, middle), causal
        yield slice(middle, end), slice(start, end), row.visible(window)


@contextmanager
def by_user(model) -> Iterator[None]:
    """Let `model` attend user by user within the context; its forward must get `users`. The former attention is restored.

    With gradient checkpointing the backward pass, which computes layers again, belongs inside too.

    Raises:
        InputError: If the model does not take another attention.
    """
    decoder = without_peft(model).get_decoder()  # towers for images and sound keep theirs
    former = attention_of(decoder.config)
    if former == NAME:  # within a training step, which has switched it on already
        yield
        return
    decoder.set_attn_implementation(NAME)
    try:
        if attention_of(decoder.config) != NAME:
            raise InputError(f"{type(decoder).__name__} takes no attention but its own.")
        yield
    finally:
        decoder.set_attn_implementation(former)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    users: Users,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """What the attention interface asks for: query (1, heads, T, width) -> (1, T, heads, width).

    Args:
        softcap: Bound of the scores, which pass through tanh.
        s_aux: (heads,) score of a key without a value, an attention sink.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The kernel of torch for half precision on CPUs takes three times as long as plain products, and it knows no such scores.
    plainly = softcap is not None or s_aux is not None or (query.device.type == "cpu" and query.dtype != torch.float32)
    attended = []
    for queries, keys, visible in users.parts(sliding_window):
        q, k, v = query[:, :, queries], key[:, :, keys], value[:, :, keys]
        if plainly:
            attended.append(_products(q * scaling, k, v, visible, dropout, softcap, s_aux))
        else:
            shared_by = query.shape[1] // key.shape[1]
            k, v = (heads.repeat_interleave(shared_by, 1) if shared_by > 1 else heads for heads in (k, v))
            attended.append(F.scaled_dot_product_attention(q, k, v, visible, dropout, scale=scaling))
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _products(query, key, value, visible, dropout, softcap, s_aux) -> torch.Tensor:
    """Attention by plain products, (1, heads, queries, width). Heads that share a key are rows of one product."""
    _, heads, queries, _ = query.shape
    groups, keys = key.shape[1:3]
    scores = torch.bmm(query.reshape(groups, -1, query.shape[-1]), key[0].transpose(1, 2)).view(heads, queries, keys)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, float("-inf"))
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.to(scores.dtype).view(-1, 1, 1).expand(heads, queries, 1)], dim=-1)
    weights = F.dropout(scores.softmax(-1)[..., :keys], dropout)
    return torch.bmm(weights.reshape(groups, -1, keys), value[0]).view(1, heads, queries, -1)


AttentionInterface.register(NAME, _attend)
