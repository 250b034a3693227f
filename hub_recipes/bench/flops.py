"""Floating-point operations of a forward, from a model's config: what sharing a prefix could gain at most.

Counts multiplications with weights, and attention over the positions that a token sees. Leaves out norms, activations
and the state updates of linear attention, which are small; a mixture of experts is not counted rightly.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token costs.

    Attributes:
        body: Weights that every token is multiplied with, embeddings and head left out.
        head: Weights of the language-model head.
        layers: (width, window) of each attention layer: heads times head size, and how far it looks back; 0 is all.
    """

    body: int
    head: int
    layers: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model) -> "Cost":
        """Raises ValueError for a config that does not say how it attends."""
        config = model.config.get_text_config()
        linear = [module for name, module in model.get_decoder().named_modules() if _plain(name, module)]
        heads, hidden = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
        if not heads or not hidden:
            raise ValueError(f"The config of {config.model_type} names no attention heads: its cost is not known.")
        width = heads * (getattr(config, "head_dim", None) or hidden // heads)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        window = getattr(config, "sliding_window", None) or 0
        layers = [(width, window if kind == "sliding_attention" else 0) for kind in kinds if "linear" not in kind]
        head = model.get_output_embeddings().weight.numel()
        return cls(sum(module.weight.numel() for module in linear), head, tuple(layers))

    def forward(self, rows: Iterable[tuple[int, int]], answers: int, square: bool = False) -> float:
        """Operations for `rows` of (tokens before, new tokens), with `answers` positions through the head.

        Args:
            square: Attention visits all pairs, hidden ones too, as it does under a padding mask.
        """
        rows = list(rows)
        total = 2.0 * self.body * sum(new for _, new in rows) + 2.0 * self.head * answers
        for width, window in self.layers:
            total += 4.0 * width * sum(_pairs(before, new, window, square) for before, new in rows)
        return total


def _plain(name: str, module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    adapter = "lora_" in name  # of the same rank on every side of a comparison, and small
    return (
        isinstance(weight, torch.Tensor)
        and weight.ndim == 2
        and not isinstance(module, torch.nn.Embedding)
        and not adapter
    )


def _pairs(before: int, new: int, window: int, square: bool) -> int:
    """How many (token, position it looks at) pairs there are."""
    if square and not window:
        return new * (before + new)
    return sum(min(position + 1, window or position + 1) for position in range(before, before + new))
