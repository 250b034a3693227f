"""Pack many suffixes into one row behind one prefix: which models allow it, and the mask that separates the suffixes.

Every suffix token sees the prefix and its own suffix up to itself (a tree mask). A ready-made mask is taken as it is:
transformers adds no causality and no window to it, and layers that carry a state do not read it at all, so a model that
misreads it gives wrong logits and raises no error. Hence an allow-list: a model type that is not listed is not packed.

Knows nothing of caches or tokens: lengths go in, positions and masks come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .compat import attention_of, without_peft

# Model types that take one mask for all layers, and have no window.
_PLAIN = ("llama", "gemma", "granite", "olmo2", "gpt_neox", "gpt2", "opt", "falcon")
# Model types that take one mask for all layers; a window, if the config has one, applies to all of them and must be in that mask.
_ONE_WINDOW = ("mistral", "mixtral", "phi3", "qwen3_moe")
# Model types that take a mask for each type of layer.
_BY_LAYER = ("qwen2", "qwen3", "gemma2", "gemma3_text", "gemma4", "gemma4_text", "smollm3", "olmo3", "gpt_oss")

_FULL, _SLIDING = "full_attention", "sliding_attention"


def why_not_packable(model) -> str | None:
    """Why `model` may not score suffixes in one packed row; None if it may."""
    base = without_peft(model)
    config = base.config
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [_FULL])
    attention = attention_of(text)
    if unmasked := kinds - {_FULL, _SLIDING}:
        return f"it has {', '.join(sorted(unmasked))} layers, which do not read a mask"
    if config.model_type not in _PLAIN + _ONE_WINDOW + _BY_LAYER:
        return f"no mask is known for model type {config.model_type!r}"
    if not type(base).__module__.startswith("transformers."):
        return f"{type(base).__name__} is not the {config.model_type} of transformers"
    if attention not in ("sdpa", "eager"):
        # flash attention takes no such mask, flex attention a kind of its own.
        return f"attention {attention!r} takes no ready-made mask; sdpa and eager do"
    if getattr(text, "alibi", False):
        return "alibi counts distances along the row"
    if getattr(text, "use_bidirectional_attention", None) not in (None, False, "vision"):
        return "its attention looks to the right"
    window = getattr(text, "sliding_window", None)
    if window is not None and config.model_type in _PLAIN:
        return f"a window is not expected in model type {config.model_type!r}"
    if window is None and _SLIDING in kinds:
        return "its sliding layers name no window"
    return None


@dataclass(frozen=True, slots=True)
class Row:
    """Suffixes laid end to end behind a prefix of `prefix` tokens, T suffix tokens in all.

    Attributes:
        positions: (T,) position of each token in its own prompt.
        owners: (T,) number of the suffix that each token belongs to.
        ends: (suffixes,) index in the row of the last token of each.
    """

    prefix: int
    positions: torch.Tensor
    owners: torch.Tensor
    ends: torch.Tensor

    @classmethod
    def of(cls, prefix: int, lengths: Sequence[int], device=None) -> "Row":
        positions = [prefix + step for length in lengths for step in range(length)]
        owners = [owner for owner, length in enumerate(lengths) for _ in range(length)]
        ends = torch.tensor(lengths).cumsum(0) - 1
        return cls(prefix, *(torch.as_tensor(values, device=device) for values in (positions, owners, ends)))

    def visible(self, window: int | None = None) -> torch.Tensor:
        """(T, prefix + T) True where a token may attend. A window counts positions in the prompt, not indices in the row."""
        rows = self.positions[:, None]
        visible = torch.ones(len(rows), self.prefix + len(rows), dtype=torch.bool, device=rows.device)
        visible[:, self.prefix :] = (self.owners[:, None] == self.owners) & (self.positions <= rows)
        if window is not None:
            before = torch.arange(self.prefix, device=rows.device)
            visible &= torch.cat([before, self.positions]) > rows - window
        return visible

    def masks(self, config, dtype: torch.dtype) -> torch.Tensor | dict[str, torch.Tensor]:
        """The `attention_mask` for a model of this config: (1, 1, T, prefix + T), or one such for each layer type.

        Args:
            config: Of a model that `why_not_packable` allows.
            dtype: The model's; for the mask that eager attention adds.
        """
        text = config.get_text_config()
        window = getattr(text, "sliding_window", None)

        def as_attention_mask(visible: torch.Tensor) -> torch.Tensor:
            if attention_of(text) == "eager":
                # Added to the scores there: a bool would count as 0 and 1, and mask nothing.
                least = torch.finfo(dtype).min
                visible = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, least)
            return visible[None, None]

        if config.model_type not in _BY_LAYER:
            return as_attention_mask(self.visible(window))
        masks = {_FULL: as_attention_mask(self.visible())}
        if _SLIDING in text.layer_types:
            masks[_SLIDING] = as_attention_mask(self.visible(window))
        return masks
