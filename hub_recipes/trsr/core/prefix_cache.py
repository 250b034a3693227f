"""Run the common prefix of many prompts once: a left-padded batch starts from copies of its cache.

    long row     b e g i n n i n g   r e s t   o f   a   p r o m p t
    short row            b e g i n   n i n g   a n o t h e r   o n e
                |----- cache ----|  |------------- run -------------|

The rows stand as in any left-padded batch, so positions and windows are right as they are. Where padding would be run,
the last tokens of the prefix are run instead.
"""

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from .compat import adapter_layers, cache_name

# Without recurrent and convolution layers: their state cannot be cut back to fewer tokens.
_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}


class PrefixCache:
    """The key-value cache of a model after the tokens `ids`.

    Args:
        model: A causal language model with `generate`.
        ids: At least one token.

    Raises:
        TypeError: If the model's cache cannot be cut to a row's padding; run whole prompts then.
    """

    def __init__(self, model, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._model = model
        self._made_in = _state(model)
        self._cache = self._empty_cache()
        self._cache.activate_past_recording()  # keep all keys, also where a window is shorter
        row = torch.tensor([self.ids], device=model.device)
        model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=1,
            pad_token_id=0,
            do_sample=False,
            **{cache_name(model): self._cache},
        )

    def is_current(self) -> bool:
        """Whether the model is unchanged since: no weight trained or moved, no adapter switched on or off."""
        return self._made_in == _state(self._model)

    def rows(self, shared: int, padding: torch.Tensor) -> DynamicCache:
        """The first `shared` columns of each row of a left-padded batch.

        Args:
            shared: Number of tokens of the prefix that all rows begin with.
            padding: (rows,) columns of padding.
        """
        columns = torch.arange(shared) - padding[:, None]  # (rows, shared)
        columns = columns.clamp(min=0)  # padding may hold any state: it is masked
        cache = self._empty_cache()
        for number, layer in enumerate(self._cache.layers):
            states = [state for name in ("keys", "values") if (state := getattr(layer, name, None)) is not None]
            if states:  # else the layer reuses the keys of another
                keys, values = (state[0][:, columns.to(state.device)].transpose(0, 1) for state in states)
                cache.update(keys, values, number)  # (rows, heads, shared, size) each
        return cache

    def _empty_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        names = {type(layer).__name__ for layer in cache.layers}
        if not names or not names <= _LAYERS:
            raise TypeError(f"its cache of {', '.join(sorted(names)) or 'no layers'} cannot be cut to a row's padding")
        return cache


def _state(model) -> tuple[object, ...]:
    """A value that changes whenever the model's logits may have changed: versions of weights, and active adapters."""
    weights = [
        (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
        for parameter in model.parameters()
    ]
    adapters = [
        (layer.disable_adapters, tuple(layer.active_adapters), tuple(getattr(layer, "merged_adapters", ())))
        for layer in adapter_layers(model)
    ]
    return (*weights, *adapters)
