"""Differences between versions of transformers and peft.

A published pipeline repo carries this code and runs with whatever versions its user has installed. So the signature of a
model decides, not a version number.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRANSFORMERS = "5.23"  # the lowest version that recommenders load with


def cache_name(model) -> str:
    """The name of a model's cache, as an argument and in its output: `cache`, before transformers 5.24 `past_key_values`."""
    arguments = _arguments(model)
    return "past_key_values" if "past_key_values" in arguments and "cache" not in arguments else "cache"


def last_logits_only(model) -> dict[str, int]:
    """The argument for logits of the last position alone, as keyword -> value; empty where the model takes none."""
    return {"logits_to_keep": 1} if "logits_to_keep" in _arguments(model) else {}


def _arguments(model):
    # Of the class: accelerate wraps the forward of one model, which hides its arguments.
    return inspect.signature(type(without_peft(model)).forward).parameters


def without_peft(model):
    """The model of transformers inside a `PeftModel`; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attention_of(config) -> str | None:
    """The attention implementation that a loaded model uses, such as `sdpa`. transformers has no public name for it."""
    return getattr(config, "_attn_implementation", None)


def context_length(config) -> int:
    """Most tokens of a prompt that a model of this config reads; 0 if it names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", 0) or 0


def adapter_layers(model) -> list[Any]:
    """The layers of peft that hold adapters.

    They are switched one by one: the functions of transformers that switch a whole model refuse all but the newest peft.
    """
    # On a whole model `disable_adapters` is a method.
    return [layer for layer in model.modules() if isinstance(getattr(layer, "disable_adapters", None), bool)]


def use_adapter(model, name: str) -> None:
    """Let every layer that holds adapters use the adapter `name` alone."""
    for layer in adapter_layers(model):
        layer.set_adapter(name)


@contextmanager
def using_adapter(model, name: str | None) -> Iterator[None]:
    """Use the adapter `name`, or the base alone, within the context; the previous state is restored, also after an error."""
    layers = adapter_layers(model)
    states = [(layer.disable_adapters, list(layer.active_adapters)) for layer in layers]
    # Switching adapters changes which weights require gradients.
    gradients = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
    try:
        for layer in layers:
            if name is not None:
                layer.set_adapter(name)
            layer.enable_adapters(name is not None)
        yield
    finally:
        for layer, (disabled, names) in zip(layers, states, strict=True):
            layer.set_adapter(names)
            layer.enable_adapters(not disabled)
        for weight, trained_before in gradients:
            if weight.requires_grad is not trained_before:
                weight.requires_grad_(trained_before)
