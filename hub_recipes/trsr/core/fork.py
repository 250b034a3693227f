"""Continue many suffixes from copies of one prefix's cache. Scoring and training share it.

The prefix runs once. A forked cache shows each branch the prefix's state and stores nothing, so the prefix cache stays
as it was and can be forked again; gradients flow back through it. Exact for attention (full and sliding), convolution
and recurrent layers, because no mask is involved: each branch is a row of an ordinary batch.
"""

import copy
from collections.abc import Sequence
from types import MethodType

import torch
from transformers import Cache

# With a cache these models restart the scan from zero state and raise no error.
_FORGETFUL = ("jamba", "zamba", "mamba", "falcon_mamba")
# Tested in fp32: they continue from the state of their linear-attention and convolution layers.
_STATEFUL = ("qwen3_5", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "falcon_h1", "lfm2", "bamba", "mamba2")


def why_not_forkable(model) -> str | None:
    """Why copies of the cache of `model` may not be continued, as far as its config tells; None if they may."""
    config = model.config
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if config.model_type in _FORGETFUL:
        return "its selective scan restarts from zero state behind a cache"
    states = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
    if states and config.model_type not in _STATEFUL and model.dtype != torch.float32:
        # Losing the state may change the logits of a short probe by no more than rounding.
        return f"in half precision a probe cannot tell whether its {', '.join(sorted(states))} layers keep their state"
    return None


def same_rotation(config, prefix: int, lengths: Sequence[int]) -> bool:
    """Whether the prefix alone and every whole prompt are rotated by the same frequencies.

    `longrope` and `dynamic` choose them by the longest position in sight: a prefix read on its own, or a row padded
    beside a longer one, is then rotated otherwise than its prompt by itself.

    Args:
        prefix: Length of the prefix.
        lengths: Lengths of whole prompts.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    for parameters in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        kind = parameters.get("rope_type") or "default"
        limit = (
            parameters.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None) or 0
        )
        if kind == "longrope" and prefix <= limit < max(lengths):
            return False
        if "dynamic" in kind and max(lengths) > limit:
            return False
    return True


def fork(cache: Cache, rows: torch.Tensor) -> Cache:
    """Return a read-only cache whose branch i continues prefix `rows[i]`.

    Args:
        cache: The cache after the prefix, batch size B.
        rows: (branches,) prefix row of each branch, on the cache's device.

    Raises:
        TypeError: If a layer keeps a kind of state that is not known here; score without sharing then.
    """
    forked = copy.copy(cache)
    forked.layers = [_fork_layer(layer, rows) for layer in cache.layers]
    return forked


def _fork_layer(layer, rows: torch.Tensor):
    twin = copy.copy(layer)
    # A layer without state of its own, such as one that reuses the keys of another, needs no fork.
    forkable = type(layer).__name__ == "DummyLayer"
    if getattr(layer, "keys", None) is not None:
        twin.keys, twin.values = _select(layer.keys, rows), _select(layer.values, rows)
        twin.update = MethodType(_show_keys, twin)
        forkable = True
    if hasattr(layer, "update_conv_state"):
        twin.conv_states = _select_all(layer.conv_states, rows)
        twin.recurrent_states = _select_all(layer.recurrent_states, rows)
        twin.update_conv_state = MethodType(_show_conv, twin)
        twin.update_recurrent_state = MethodType(_show_recurrent, twin)
        forkable = True
    if not forkable and getattr(layer, "is_initialized", False):
        raise TypeError(f"Cache layer {type(layer).__name__} cannot be forked.")
    return twin


def _select(state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    if state.shape[0] == 1:
        return state.expand(len(rows), *state.shape[1:])
    return state.index_select(0, rows)


def _select_all(states, rows: torch.Tensor):
    pairs = states.items() if isinstance(states, dict) else enumerate(states)
    # Cloned: layers may write into these in place.
    chosen = {key: None if state is None else _select(state, rows).clone() for key, state in pairs}
    return chosen if isinstance(states, dict) else list(chosen.values())


def _show_keys(self, key_states, value_states, *args, **kwargs):
    return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def _show_conv(self, conv_states, state_idx: int = 0, **kwargs):
    return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)


def _show_recurrent(self, recurrent_states, state_idx: int = 0, **kwargs):
    return recurrent_states
