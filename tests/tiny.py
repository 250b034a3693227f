"""Tiny tokenizers and models of real kinds, made in code."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXT = [
    "Will the user choose the candidate item next? Answer yes or no.",
    "Preference summary:\n- genre: mystery x6, travel x2; author: Mara Quill x3",
    "Recent items, oldest first:\n- title: The Salt Lamp; author: Mara Quill; genre: sea stories",
    "Candidate item:\n- title: Emma; author: Jane Austen\n\nAnswer: yes",
    "Candidate item:\n- title: Emma; author: Jane Austen\n\nAnswer: no",
    "yes no yes no user assistant system",
] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Trims the message, writes BOS itself.
INST = "{{ bos_token }}{% for message in messages %}[INST] {{ message['content'] | trim }} [/INST]{% endfor %}"


def byte_level(vocab: int = 600, chat_template: str | None = None, special: tuple[str, ...] = (), plain: tuple[str, ...] = ()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if chat_template is None:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.add_tokens(list(plain))
    fast.chat_template = chat_template
    return fast


def chatml():
    return byte_level(
        chat_template=CHATML, special=("<|im_start|>", "<|im_end|>"), plain=("<think>", "</think>", "<tool_call>")
    )


def metaspace(chat_template: str | None = INST):
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    learner.train_from_iterator([f" {word}" for text in TEXT for word in text.split()], trainer)
    learned = json.loads(learner.to_str())["model"]
    # Bytes are ordinary entries of the vocabulary, not control tokens.
    vocab = learned["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = chat_template
    return fast


def configs() -> dict[str, dict]:
    """Keyword arguments of a tiny config for each architecture."""
    common = {
        "vocab_size": 600,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    return {
        "llama": common,
        "qwen3": common,
        "mistral": {**common, "sliding_window": 8},
        "gemma3_text": {
            **common,
            "num_hidden_layers": 4,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "query_pre_attn_scalar": 8,
        },
        "qwen3_5_text": {
            **common,
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        "gpt2": {
            "vocab_size": 600,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 1024,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
        },
        "mamba": {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    }


def model(kind: str, seed: int = 0, **changes):
    """A randomly initialised model of `kind`, fp32, in evaluation mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**configs()[kind], **changes})
    network = AutoModelForCausalLM.from_config(config)
    # Larger than the usual 0.02, so that wrong attention shows in the scores.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.2)
    return network.eval()
