"""Compute many branches in one forward: candidates are packed end to end in chunks, each attending to part of a prefix.

Attention of each candidate over the whole row would dominate the cost, so a chunk attends to its prefix and itself alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface

CHUNK = 128  # tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of a row of R * P + N * S tokens: R prefixes of P tokens, then N chunks of S tokens.

    Attributes:
        shape: (R, P, N, S).
        owners: (N,) the prefix of each chunk.
        mask: (N, 1, S, P + S) 0 where a token of a chunk may attend, else a large negative number.
    """

    shape: tuple[int, int, int, int]
    owners: torch.Tensor
    mask: torch.Tensor


def collate(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Any]:
    """Collate rows of `rows.Rows` to one batch.

    Returns:
        `tokens` and `positions` (1, R * P + N * S), `layout`, `answers` (candidates,) the indices of the candidates' last
        tokens, `sizes` (branches,) the number of candidates of each branch.
    """
    chunks: list[tuple[int, list[tuple[int, list[int]]]]] = []  # prefix, and (visible tokens of it, candidate)
    sizes = []
    for owner, row in enumerate(rows):
        room = 0
        for prefix_length, candidates in row["branches"]:
            sizes.append(len(candidates))
            for candidate in candidates:
                if room < len(candidate):
                    chunks.append((owner, []))
                    room = max(CHUNK, len(candidate))
                chunks[-1][1].append((prefix_length, candidate))
                room -= len(candidate)
    width = max(len(row["prefix"]) for row in rows)
    size = max(sum(len(candidate) for _, candidate in parts) for _, parts in chunks)
    tokens = torch.full((len(rows) * width + len(chunks) * size,), pad)
    positions = torch.zeros_like(tokens)
    for owner, row in enumerate(rows):
        tokens[owner * width : owner * width + len(row["prefix"])] = torch.tensor(row["prefix"])
        positions[owner * width : (owner + 1) * width] = torch.arange(width)
    visible_lengths = torch.zeros(len(chunks), size, dtype=torch.long)
    candidate_of = torch.full((len(chunks), size), -1)  # padding attends to padding: a fully masked row has no softmax
    answers = []
    for number, (_, parts) in enumerate(chunks):
        start = 0
        for index, (prefix_length, candidate) in enumerate(parts):
            end = start + len(candidate)
            offset = len(rows) * width + number * size
            tokens[offset + start : offset + end] = torch.tensor(candidate)
            positions[offset + start : offset + end] = torch.arange(prefix_length, prefix_length + len(candidate))
            visible_lengths[number, start:end] = prefix_length
            candidate_of[number, start:end] = index
            answers.append(offset + end - 1)
            start = end
    prefix = torch.arange(width) < visible_lengths[..., None]  # (N, S, P)
    own = (candidate_of[:, :, None] == candidate_of[:, None]).tril()  # (N, S, S)
    allowed = torch.cat([prefix, own], dim=2)[:, None]
    return {
        "tokens": tokens[None],
        "positions": positions[None],
        "layout": Layout(
            (len(rows), width, len(chunks), size),
            torch.tensor([owner for owner, _ in chunks]),
            torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min),
        ),
        "answers": torch.tensor(answers),
        "sizes": torch.tensor(sizes),
    }


def attend(
    module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask, *, layout: Layout, **_
) -> tuple[torch.Tensor, None]:
    """Attention over one row, (1, heads, R * P + N * S, head width), by its layout. An attention function for transformers."""
    prefixes, length, chunks, size = layout.shape
    heads, width = query.shape[1], query.shape[3]
    border = prefixes * length

    def split(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = states[0, :, :border].view(heads, prefixes, length, width).transpose(0, 1)
        after = states[0, :, border:].view(heads, chunks, size, width).transpose(0, 1)
        return before, after  # (R, heads, P, width), (N, heads, S, width)

    (queries, branch_queries), (keys, own_keys), (values, own_values) = map(split, (query, key, value))
    prefix_states = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    branch_states = F.scaled_dot_product_attention(
        branch_queries,
        torch.cat([keys[layout.owners], own_keys], dim=2),
        torch.cat([values[layout.owners], own_values], dim=2),
        attn_mask=layout.mask,
    )
    parts = [states.transpose(1, 2).reshape(1, -1, heads, width) for states in (prefix_states, branch_states)]
    return torch.cat(parts, dim=1), None


NAME = "trsr_branches"
AttentionInterface.register(NAME, attend)


def forward(model, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (candidates, vocabulary) at the answers, candidates of each branch, and the loss on the prefixes."""
    tokens = batch["tokens"]
    model.config._attn_implementation = NAME
    # transformers passes a 4-dimensional mask on unchanged; the real mask is in the layout.
    mask = torch.zeros(1, 1, 1, 1)
    states = model.model(
        tokens, position_ids=batch["positions"], attention_mask=mask, layout=batch["layout"], use_cache=False
    ).last_hidden_state[0]
    count, width, *_ = batch["layout"].shape
    prefix_states = states[: count * width].view(count, width, -1)[:, :-1]
    targets = tokens[0, : count * width].view(count, width)[:, 1:]
    is_text = targets != model.config.pad_token_id
    text = F.cross_entropy(model.lm_head(prefix_states[is_text]), targets[is_text])
    return model.lm_head(states[batch["answers"]]), batch["sizes"], text
