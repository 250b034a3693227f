"""Models of a stated size with random weights, and prompts of stated lengths in our own wording."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trsr.assets.paths import NANO
from trsr.core.compat import attention_of
from trsr.core.groups import hoist_common_prefix
from trsr.core.history import Item
from trsr.core.prompts import Encoder

SHORTEST, LONGEST = 20, 60  # tokens of a suffix: a title with a few fields, and the cue

_SIZE: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
# Bodies of 23.6 and 25.7 million parameters, and twice 16.4 million of embeddings.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _SIZE,
    "qwen3_5_text": {
        **_SIZE,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
    },
}


@dataclass(frozen=True, slots=True)
class Prompts:
    """A user's ranking prompts, as text and as ids."""

    summary: str
    items: list[str]
    prefix: list[int]
    suffixes: list[list[int]]

    @property
    def shared(self) -> int:
        """Tokens that all prompts begin with: the prefix, and what all suffixes open with."""
        return len(hoist_common_prefix(self.prefix, self.suffixes)[0])

    @property
    def own(self) -> list[list[int]]:
        """The rest of each prompt."""
        return hoist_common_prefix(self.prefix, self.suffixes)[1]


def load(name: str, seed: int, dtype: torch.dtype = torch.float32):
    """A model and a tokenizer: random weights of an architecture in CONFIGS, or a folder or Hub id.

    In half precision it must be loaded so: `model.to` would round the frequencies of rotary embeddings too.
    """
    torch.manual_seed(seed)
    if name in CONFIGS:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **CONFIGS[name]), dtype=dtype)
        return model.eval(), AutoTokenizer.from_pretrained(NANO / "base")
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    return model.eval(), AutoTokenizer.from_pretrained(name)


def describe(name: str, model) -> dict[str, object]:
    """What was measured, for the record."""
    config = model.config.get_text_config()
    # By identity: they may be one and the same.
    outside = {
        id(layer.weight): layer.weight.numel()
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    return {
        "name": Path(name).name,
        "architecture": config.model_type,
        "weights": "random" if name in CONFIGS else "loaded",
        "body_parameters": sum(parameter.numel() for parameter in model.parameters()) - sum(outside.values()),
        "embedding_parameters": list(outside.values()),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "attention": attention_of(config),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def prompts(encoder: Encoder, prefix: int, candidates: int, seed: int) -> Prompts:
    """Ranking prompts with `prefix` shared tokens and suffixes of SHORTEST to LONGEST tokens.

    Raises:
        ValueError: If the instruction alone is longer than `prefix`.
    """
    draw = random.Random(f"{seed}-{prefix}-{candidates}")
    words = _words(encoder, draw)
    bare = len(encoder.prefix_ids(words[0], []).ids) - 1
    if prefix <= bare:
        raise ValueError(f"A prefix of {prefix} tokens is too short: the instruction has {bare}.")
    summary = " ".join(draw.choices(words, k=prefix - bare))
    cue = len(encoder.suffix_ids(Item(words[0]))) - 1
    lengths = [draw.randint(SHORTEST, LONGEST) for _ in range(candidates)]
    items = [" ".join(draw.choices(words, k=max(1, length - cue))) for length in lengths]
    return Prompts(
        summary, items, encoder.prefix_ids(summary, []).ids, [encoder.suffix_ids(Item(item)) for item in items]
    )


def blocks(encoder: Encoder, count: int, seed: int, items: int = 5) -> list[tuple[Item, ...]]:
    """Blocks of `items` items of 8 to 60 tokens."""
    draw = random.Random(f"{seed}-blocks")
    words = _words(encoder, draw)
    return [
        tuple(Item(" ".join(draw.choices(words, k=draw.randint(8, LONGEST)))) for _ in range(items))
        for _ in range(count)
    ]


def _words(encoder: Encoder, draw: random.Random, most: int = 500) -> Sequence[str]:
    """Words that are one token each after a space."""
    tokenizer = encoder.tokenizer
    words = []
    for token in draw.sample(range(len(tokenizer)), len(tokenizer)):
        word = tokenizer.decode([token]).strip()
        if word.isalpha() and word.isascii() and word.islower() and len(encoder.text_ids(f" {word}")) == 1:
            words.append(word)
            if len(words) == most:
                break
    if not words:
        raise ValueError("This tokenizer has no words of one token each, which the prompts are made of.")
    return words
