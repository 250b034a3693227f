"""What differs between versions of transformers and peft, and the one name of theirs that is private, in one place.

A published pipeline repo brings this code along, pinned, and meets versions that nobody chose: a model is asked what it takes.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def cache_name(model) -> str:
    """What a model calls its cache, as an argument and in its output: `cache`, before transformers 5.24 `past_key_values`."""
    taken = _arguments(model)
    return "past_key_values" if "past_key_values" in taken and "cache" not in taken else "cache"


def last_logits_only(model) -> dict[str, int]:
    """The argument that asks a model for the logits of the last position alone; empty where it takes none."""
    return {"logits_to_keep": 1} if "logits_to_keep" in _arguments(model) else {}


def _arguments(model):
    # Of the class: wrappers that are put on one model for several devices hide them.
    return inspect.signature(type(plain(model)).forward).parameters


def plain(model):
    """The model of transformers inside a `PeftModel`; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attention_of(config) -> str | None:
    """The attention implementation that a loaded model uses, such as `sdpa`. transformers has no public name for it."""
    return getattr(config, "_attn_implementation", None)


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
    """Run with the adapter `name`, or with the base alone; what was on before is on again afterwards, also after an error."""
    layers = adapter_layers(model)
    before = [(layer.disable_adapters, _names(layer.active_adapters)) for layer in layers]
    # Switching decides anew which weights are trained.
    trained = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
    try:
        for layer in layers:
            if name is not None:
                layer.set_adapter(name)
            layer.enable_adapters(name is not None)
        yield
    finally:
        for layer, (disabled, names) in zip(layers, before, strict=True):
            layer.set_adapter(names)
            layer.enable_adapters(not disabled)
        for weight, wanted in trained:
            if weight.requires_grad is not wanted:
                weight.requires_grad_(wanted)


def _names(active: str | Sequence[str]) -> list[str]:
    return [active] if isinstance(active, str) else list(active)
