"""Continue many suffixes from copies of one prefix's cache. Scoring and training share it.

The prefix runs once. A forked cache shows each branch the prefix's state and stores nothing, so the prefix cache stays
as it was and can be forked again; gradients flow back through it. Exact for attention (full and sliding), convolution
and recurrent layers, because no mask is involved: each branch is a row of an ordinary batch.
"""

import copy
from types import MethodType

import torch
from transformers import Cache


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
    # A layer without state of its own, such as one that reads another's keys, is shown as it is.
    known = type(layer).__name__ == "DummyLayer"
    if getattr(layer, "keys", None) is not None:
        twin.keys, twin.values = _select(layer.keys, rows), _select(layer.values, rows)
        twin.update = MethodType(_show_keys, twin)
        known = True
    if hasattr(layer, "update_conv_state"):
        twin.conv_states = _select_all(layer.conv_states, rows)
        twin.recurrent_states = _select_all(layer.recurrent_states, rows)
        twin.update_conv_state = MethodType(_show_conv, twin)
        twin.update_recurrent_state = MethodType(_show_recurrent, twin)
        known = True
    if not known and getattr(layer, "is_initialized", False):
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
