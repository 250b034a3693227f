"""Many branches in one forward: candidates lie end to end in chunks, and each looks at its own part of a prefix.

Attention of a candidate over the whole row would cost more than all the rest; a chunk sees its prefix and itself.
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
    """Where things lie in a row of R * P + N * S tokens: R prefixes of P tokens, then N chunks of S.

    Attributes:
        shape: (R, P, N, S).
        owners: (N,) the prefix of each chunk.
        mask: (N, 1, S, P + S) 0 where a token of a chunk may look, else a large negative number.
    """

    shape: tuple[int, int, int, int]
    owners: torch.Tensor
    mask: torch.Tensor


def collate(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Any]:
    """Rows of `rows.Rows` as one batch.

    Returns:
        `tokens` and `positions` (1, R * P + N * S), `layout`, `answers` (candidates,) the places of the candidates' last
        tokens, `sizes` (branches,) their numbers of candidates.
    """
    chunks: list[tuple[int, list[tuple[int, list[int]]]]] = []  # prefix, and (tokens seen, candidate)
    sizes = []
    for owner, row in enumerate(rows):
        room = 0
        for seen, candidates in row["branches"]:
            sizes.append(len(candidates))
            for candidate in candidates:
                if room < len(candidate):
                    chunks.append((owner, []))
                    room = max(CHUNK, len(candidate))
                chunks[-1][1].append((seen, candidate))
                room -= len(candidate)
    width = max(len(row["prefix"]) for row in rows)
    size = max(sum(len(candidate) for _, candidate in parts) for _, parts in chunks)
    tokens = torch.full((len(rows) * width + len(chunks) * size,), pad)
    positions = torch.zeros_like(tokens)
    for owner, row in enumerate(rows):
        tokens[owner * width : owner * width + len(row["prefix"])] = torch.tensor(row["prefix"])
        positions[owner * width : (owner + 1) * width] = torch.arange(width)
    shown = torch.zeros(len(chunks), size, dtype=torch.long)
    candidate_of = torch.full((len(chunks), size), -1)  # padding sees padding: a row of nothing but -inf has no softmax
    answers = []
    for number, (_, parts) in enumerate(chunks):
        start = 0
        for place, (seen, candidate) in enumerate(parts):
            end = start + len(candidate)
            here = len(rows) * width + number * size
            tokens[here + start : here + end] = torch.tensor(candidate)
            positions[here + start : here + end] = torch.arange(seen, seen + len(candidate))
            shown[number, start:end] = seen
            candidate_of[number, start:end] = place
            answers.append(here + end - 1)
            start = end
    prefix = torch.arange(width) < shown[..., None]  # (N, S, P)
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
    """Attention of one row, (1, heads, R * P + N * S, width of a head), as its layout says."""
    prefixes, length, chunks, size = layout.shape
    heads, width = query.shape[1], query.shape[3]
    border = prefixes * length

    def split(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = states[0, :, :border].view(heads, prefixes, length, width).transpose(0, 1)
        after = states[0, :, border:].view(heads, chunks, size, width).transpose(0, 1)
        return before, after  # (R, heads, P, width), (N, heads, S, width)

    (queries, asked), (keys, own_keys), (values, own_values) = map(split, (query, key, value))
    read = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    answered = F.scaled_dot_product_attention(
        asked,
        torch.cat([keys[layout.owners], own_keys], dim=2),
        torch.cat([values[layout.owners], own_values], dim=2),
        attn_mask=layout.mask,
    )
    parts = [states.transpose(1, 2).reshape(1, -1, heads, width) for states in (read, answered)]
    return torch.cat(parts, dim=1), None


NAME = "trsr_branches"
AttentionInterface.register(NAME, attend)


def forward(model, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (candidates, vocabulary) at the answers, candidates of each branch, and the loss on the prefixes."""
    tokens = batch["tokens"]
    model.config._attn_implementation = NAME
    # A mask of four dimensions is passed on as it is; the layout holds the real one.
    mask = torch.zeros(1, 1, 1, 1)
    states = model.model(
        tokens, position_ids=batch["positions"], attention_mask=mask, layout=batch["layout"], use_cache=False
    ).last_hidden_state[0]
    count, width, *_ = batch["layout"].shape
    before = states[: count * width].view(count, width, -1)[:, :-1]
    targets = tokens[0, : count * width].view(count, width)[:, 1:]
    wanted = targets != model.config.pad_token_id
    text = F.cross_entropy(model.lm_head(before[wanted]), targets[wanted])
    return model.lm_head(states[batch["answers"]]), batch["sizes"], text
