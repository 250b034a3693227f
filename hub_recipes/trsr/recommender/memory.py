"""Compute the memory that a recipe needs, and the GPUs that suffice: counted on a model without weights, activations estimated.

Exact, from the architecture: weights; the adapter with its gradients and AdamW's two moments; the cache of a
shared prefix. With P parameters of the base and A of the adapter, training holds 2 P + (4 + 4 + 8) A bytes: peft keeps an
adapter in fp32 beside a base in bf16. A recipe without bf16 holds 4 P.

Activations of T tokens through L layers of width H are estimated, after Korthikanti et al. 2022 (arXiv 2205.05198), without
the terms of attention scores, which are never stored whole: 34 T H bytes a layer; with checkpointing 2 T H a layer, and one
layer whole. The longest possible prompts are assumed: max_tokens, or the context of the base where that is shorter or
max_tokens is 0. In the form flat, T is batch_size of them. In the form shared-prefix each user has such a prompt, and CANDIDATE
tokens for each negative behind the same prefix; or, where checkpointing keeps a model from sharing, 1 + negatives whole prompts.

Logits are estimated too: in the precision of the weights, and in fp32 they, their softmax and their gradient. In the form flat
every token has a row of them as long as the vocabulary, in the form shared-prefix every candidate. Inference is that of
CANDIDATES behind one prefix. Memory of the libraries themselves is not included, so nine tenths of a card count as usable.

References:
    The arithmetic of mixed precision and Adam: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 3.1.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trsr.assets.paths import ASSETS, base_path
from trsr.errors import RecipeError
from trsr.recommender.recipe import Recipe
from trsr.report import markdown

CARDS = (16, 24, 48, 80)  # GB
USABLE = 0.9
_BASES = ASSETS / "bases.json"  # the part of the config.json of a base that determines its size
_TOKENS = 1000
CANDIDATE = 64  # tokens of a candidate behind a shared prefix
CANDIDATES = 21  # of a user in inference, as in the paper


def estimate_memory(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """For each recipe its `parameters`, the bytes of each part, and the smallest card for each use.

    A base that `bases.json` does not name is looked up, in its folder or on the Hub.

    Raises:
        RecipeError: If a recipe takes the context of its base, which is not known.
    """
    counted: dict[str, Any] = {}
    for recipe in recipes:
        of_base = (recipe.base, recipe.base_revision, recipe.lora)
        counted.setdefault(str(of_base), count_parameters(*of_base))
    rows = {
        recipe.name: _row(recipe, counted[str((recipe.base, recipe.base_revision, recipe.lora))]) for recipe in recipes
    }
    return {"cards_gb": list(CARDS), "usable": USABLE, "recipes": rows}


def count_parameters(base: str, revision: str | None, lora: Any) -> dict[str, Any]:
    """Count a base and its adapter: parameters, and bytes of a bf16 cache: the constant part, and those of 1,000 tokens.

    `context` is 0 where it is not known; `packable`: prompts share a prefix with gradient checkpointing too.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, DynamicCache

    from trsr.core.compat import cache_name, last_logits_only
    from trsr.core.packed import why_not_packable
    from trsr.recommender.train import lora_targets

    config, context = _config(base, revision)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        short_cache, long_cache = DynamicCache(config=config), DynamicCache(config=config)
        with torch.no_grad():
            for cache, tokens in ((short_cache, _TOKENS), (long_cache, 2 * _TOKENS)):
                input_ids = torch.zeros(1, tokens, dtype=torch.long)
                model(input_ids, use_cache=True, **{cache_name(model): cache}, **last_logits_only(model))
        parameters, packable = model.num_parameters(), why_not_packable(model) is None
        targets = lora_targets(model, lora.target_modules)
        adapted: Any = get_peft_model(model, LoraConfig(r=lora.r, target_modules=targets, task_type="CAUSAL_LM"))
    sizes = [cache_bytes(cache) for cache in (short_cache, long_cache)]
    text = config.get_text_config()
    return {
        "parameters": parameters,
        "adapter": sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad),
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "vocabulary": text.vocab_size,
        "context": context,
        "packable": packable,
        "cache_of_1000_tokens": sizes[1] - sizes[0],
        "cache_of_no_length": 2 * sizes[0] - sizes[1],
    }


def cache_bytes(cache: Any) -> int:
    """Bytes of all tensors that a cache of transformers holds: keys and values, and states of linear attention."""
    import torch

    total = 0
    for layer in cache.layers:
        for value in vars(layer).values():
            parts = (
                value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
            )
            total += sum(tensor.numel() * tensor.element_size() for tensor in parts if isinstance(tensor, torch.Tensor))
    return total


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, in GB."""
    uses = ("training", "training_without_checkpointing", "inference")
    head = [
        "recipe",
        "parameters",
        "adapter",
        "cache of 1,000 tokens",
        *(f"{use.replace('_', ' ')}, card" for use in uses),
    ]
    rows = []
    for name, result in results["recipes"].items():
        cells = [
            name,
            _count(result["parameters"]),
            _count(result["adapter"]),
            f"{result['cache_of_1000_tokens'] / 1e6:.1f} MB",
        ]
        cells += [f"{result[use] / 1e9:.1f} GB, {_card(result['card'][use])}" for use in uses]
        rows.append(cells)
    return markdown.table(head, rows)


def _row(recipe: Recipe, counted: Mapping[str, Any]) -> dict[str, Any]:
    precision = 2 if recipe.optim.bf16 else 4  # bytes
    weights = precision * counted["parameters"]
    adapter = 16 * counted["adapter"]
    length = _longest(recipe, counted["context"])
    batch, candidates = recipe.optim.batch_size, 1 + recipe.negatives
    if recipe.form == "flat":
        tokens = checkpointed_tokens = predictions = batch * length
    else:
        tokens = batch * (length + recipe.negatives * CANDIDATE)
        checkpointed_tokens = tokens if counted["packable"] else batch * candidates * length
        predictions = batch * candidates
    all_activations = 34 * tokens * counted["width"] * counted["layers"]
    checkpointed_activations = (2 * counted["layers"] + 34) * checkpointed_tokens * counted["width"]
    logits = (12 if precision == 4 else 14) * predictions * counted["vocabulary"]
    behind_prefix = length + (CANDIDATES - 1) * CANDIDATE
    cache = counted["cache_of_no_length"] + counted["cache_of_1000_tokens"] * behind_prefix // _TOKENS
    needed = {
        "training": weights + adapter + checkpointed_activations + logits,
        "training_without_checkpointing": weights + adapter + all_activations + logits,
        "inference": weights + 4 * counted["adapter"] + cache + (precision + 4) * CANDIDATES * counted["vocabulary"],
    }
    return {
        "base": recipe.base,
        **counted,
        "weights": weights,
        "adapter_gradients_and_optimizer": adapter,
        "activations_estimated": checkpointed_activations,
        "activations_without_checkpointing_estimated": all_activations,
        "logits_estimated": logits,
        **needed,
        "card": {use: next((gb for gb in CARDS if size <= USABLE * gb * 1e9), None) for use, size in needed.items()},
    }


def _longest(recipe: Recipe, context: int) -> int:
    """Tokens of the longest possible prompt."""
    limits = [limit for limit in (recipe.max_tokens, context) if limit]
    if not limits:
        raise RecipeError(
            f"{recipe.name}: max_tokens is 0, the context of {recipe.base}, which is not known here. Give the number of tokens."
        )
    return min(limits)


def _config(base: str, revision: str | None) -> tuple[Any, int]:
    """The config of a base, and the tokens of its context; 0 where they are not known."""
    from transformers import AutoConfig

    from trsr.core.compat import context_length
    from trsr.progress import loading

    known_config = json.loads(_BASES.read_text(encoding="utf-8")).get(base)
    if known_config and not Path(base).is_dir():
        # Where it names no context, the default of its class is none of this base.
        return AutoConfig.for_model(**known_config), known_config.get("max_position_embeddings", 0)
    with loading(base):
        config = AutoConfig.from_pretrained(base_path(base), revision=revision)
    return config, context_length(config)


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _card(gigabytes: int | None) -> str:
    return f"{gigabytes} GB" if gigabytes else "none"
