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
    """Of vectors, user model and record."""
    return _checksum(catalogue.user_model.state_dict() | {"items": catalogue.vectors}, catalogue.record)


def model_checksum(recommender: Any) -> str:
    """Of everything that answers depend on: base, adapters, prompts and settings."""
    settings = getattr(without_peft(recommender.model).config, "trsr", None) or {}
    tokens = recommender.tokenizer.get_vocab()
    return _checksum(recommender.model.state_dict(), recommender.encoder.prompt.to_dict(), dict(settings), tokens)


def _checksum(weights: Mapping[str, torch.Tensor], *about: Any) -> str:
    """Of weights in memory, and of plain values."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return PREFIX + found.hexdigest()
