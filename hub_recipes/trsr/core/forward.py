"""The forwards for a shared prefix: prefill, rows behind a cache, packed rows. Scoring and training are built from these.

Only the positions whose logits are needed go through the language-model head. Gradients flow through everything.
"""

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from .compat import cache_name, last_logits_only, without_peft
from .fork import fork
from .packed import Row

_LOCKS: "weakref.WeakKeyDictionary[Any, threading.RLock]" = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


def exclusive(model) -> "threading.RLock":
    """The lock of a model. Hold it while switching adapters or hooking the head: threads share one model.

    The same for a model and for the `PeftModel` around it. The thread that holds it may take it again.
    """
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(without_peft(model), threading.RLock())


def prefill(model, prefix: torch.Tensor, cache: Cache | None = None) -> Cache:
    """The cache after a prefix (P,).

    Args:
        cache: Filled and returned; None takes a cache of the kind that the model creates.
    """
    # With logits for one position alone, a model whose last layers reuse keys skips the other positions there.
    options = {cache_name(model): cache, "use_cache": True, **last_logits_only(model)}
    ids = prefix[None].to(device(model))
    none = torch.zeros(0, dtype=torch.long)
    with _through_head(model, none, none):
        return getattr(model(input_ids=ids, position_ids=position_ids(0, ids), **options), cache_name(model))


def fork_prefix(model, cache: Cache, count: int) -> Cache:
    """`count` read-only copies of the cache of one prefix, as `fork` makes them."""
    return fork(cache, torch.zeros(count, dtype=torch.long, device=device(model)))


def row_logits(model, rows: Sequence[torch.Tensor], start: int = 0, cache: Cache | None = None) -> torch.Tensor:
    """Logits (rows, vocabulary) after the last token of each row.

    Args:
        rows: Token ids, none empty. Padded on the right: nothing looks there, so that is harmless.
        start: Position of their first token.
        cache: Of `start` tokens before each row.
    """
    ids = pad_sequence(list(rows), batch_first=True).to(device(model))  # (n, width)
    ends = torch.tensor([len(row) for row in rows]) - 1 - ids.shape[1]
    return _logits(model, ids, position_ids(start, ids), torch.arange(len(rows)), ends, cache, None)


def packed_logits(model, parts: Sequence[torch.Tensor], row: Row, cache: Cache | None = None) -> torch.Tensor:
    """Logits (suffixes, vocabulary) after each suffix of `row`.

    Args:
        parts: Token ids, T in all when laid end to end.
        cache: Of the `row.prefix` tokens before them.
    """
    ids = torch.cat(list(parts))[None].to(device(model))  # (1, T)
    mask = row.masks(model.config, model.dtype)
    return _logits(model, ids, row.positions[None], torch.zeros_like(row.ends), row.ends - ids.shape[1], cache, mask)


def end_logits(model, ids: torch.Tensor, positions: torch.Tensor, ends: torch.Tensor, **options) -> torch.Tensor:
    """Logits (ends, vocabulary) at some indices of a row of tokens (T,) at given positions (T,).

    Args:
        options: What else the model's forward takes.
    """
    row = ids[None].to(device(model))
    return _logits(model, row, positions[None], torch.zeros_like(ends), ends - len(ids), None, None, **options)


def device(model) -> torch.device:
    """The device for input tensors. Weights that are offloaded until use have hooks, which move the input to them."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def position_ids(start: int, ids: torch.Tensor) -> torch.Tensor:
    # Explicit: some architectures restart their positions otherwise.
    return torch.arange(start, start + ids.shape[1], device=ids.device).expand(len(ids), -1)


def _logits(model, ids, positions, rows, ends, cache, mask, **options) -> torch.Tensor:
    options |= {cache_name(model): cache, "use_cache": cache is not None}
    with _through_head(model, rows, ends):
        return model(input_ids=ids, position_ids=positions, attention_mask=mask, **options).logits[:, -1]


@contextmanager
def _through_head(model, rows: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """Let only position `positions[i]` of row `rows[i]` through the language-model head.

    Positions are negative, counted from the end: an adapter may put virtual tokens before a row. Other threads are left alone.
    """
    reader = threading.get_ident()

    def pick(module, arguments):
        if threading.get_ident() != reader:
            return None
        hidden = arguments[0]  # (n, width, hidden)
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)][:, None], *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def precise_logits(model, tokens: Sequence[int]) -> Iterator[None]:
    """Let a head in half precision give the logits of `tokens` in fp32, from the same weights and hidden states.

    bf16 keeps 8 bits: around a logit of 20 it knows steps of 1/8, so that many candidates get one score. The other logits stay
    what they are. Nothing changes for a head in fp32, nor for one that is no plain linear layer.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype not in (torch.bfloat16, torch.float16):
        yield
        return
    reader = threading.get_ident()

    def recompute(module, arguments, logits):
        if threading.get_ident() != reader or module.weight.is_meta:  # offloaded again by now
            return None
        hidden, weight = arguments[0], module.weight[list(tokens)].to(logits.device)
        bias = None if module.bias is None else module.bias[list(tokens)].float()
        precise = logits.float()  # a copy
        with torch.autocast(logits.device.type, enabled=False):
            precise[..., list(tokens)] = torch.nn.functional.linear(hidden.float(), weight.float(), bias)
        return precise

    handle = head.register_forward_hook(recompute)
    try:
        yield
    finally:
        handle.remove()
