"""Tiny models and tokenizers built in code: nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
import torch

from tests import tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def byte_tokenizer():
    """Byte-level BPE with BOS and no chat template, like the nano base's."""
    return tiny.byte_level()


@pytest.fixture(scope="session")
def chat_tokenizer():
    """Byte-level BPE with a ChatML template and control tokens, like Qwen's."""
    return tiny.chatml()


@pytest.fixture(scope="session")
def sentencepiece_tokenizer():
    """Metaspace BPE with byte fallback, like Llama 2's."""
    return tiny.metaspace()


@pytest.fixture
def llama():
    return tiny.model("llama")
