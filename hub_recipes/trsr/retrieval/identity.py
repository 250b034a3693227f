"""Checksums of what recommendations depend on: a catalogue and a recommender as they are in memory."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from trsr.core.catalogue import Catalogue
from trsr.core.compat import without_peft
from trsr.records.checksums import PREFIX


def catalogue_checksum(catalogue: Catalogue) -> str:
    """Of vectors, user model and record, and of the items: their ids, texts and other fields."""
    weights = catalogue.user_model.state_dict() | {"items": catalogue.vectors}
    return _checksum(weights, catalogue.record, dict(catalogue.fields))


def model_checksum(recommender: Any) -> str:
    """Of everything that answers depend on: base, adapters, prompts, settings, and the tokenizer with its chat template."""
    settings = getattr(without_peft(recommender.model).config, "trsr", None) or {}
    prompt, tokenizer = recommender.encoder.prompt.to_dict(), _tokenizer_state(recommender.tokenizer)
    return _checksum(recommender.model.state_dict(), prompt, dict(settings), tokenizer)


def _tokenizer_state(tokenizer: Any) -> list[Any]:
    """What tokens depend on: vocabulary, rules, special tokens and chat template; not how the last call cut and padded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return [{**rules, "truncation": None, "padding": None}, special, tokenizer.chat_template]


def _checksum(weights: Mapping[str, torch.Tensor], *about: Any) -> str:
    """Of weights in memory, and of plain values."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return PREFIX + digest.hexdigest()
