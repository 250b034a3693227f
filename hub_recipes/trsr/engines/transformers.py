"""Summaries by a transformers model in this process: greedy, length-sorted batches, its chat template when it has one."""

from dataclasses import asdict
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trsr.core.generation import ModelSummarizer
from trsr.core.prompts import Encoder, SummaryPrompts
from trsr.engines import Engine


def engine(model: str, revision: str | None, max_new_tokens: int) -> Engine:
    """Load `model` (Hub id or folder) onto the accelerator, if there is one."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    network: Any = AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype="auto")
    network.to(device).eval()
    context = getattr(network.config.get_text_config(), "max_position_embeddings", 0) or 0
    prompts = SummaryPrompts()
    identity = {
        "engine": "transformers",
        "model": model,
        "revision": getattr(network.config, "_commit_hash", None) or revision,
        "sampling": {"do_sample": False, "max_new_tokens": max_new_tokens},
        "prompts": asdict(prompts),
    }
    summarizer = ModelSummarizer(network, Encoder(tokenizer, context=context), prompts, max_new_tokens)
    return Engine(summarizer, identity, generates=True)
