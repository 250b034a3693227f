"""Tiny tokenizers and models of real kinds, made in code."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedTokenizerFast

from trsr.core.prompts import Encoder
from trsr.dataset import contract
from trsr.hub.inputs import ReleaseInputs
from trsr.recommender.examples import ranking_prompt
from trsr.recommender.results import Results
from trsr.recommender.run import Run

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
# Gemma 4's kind: BOS and turns.
TURNS = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n{{ message['content'] | trim }}<turn|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)
# SmolLM3's kind: the head names today's date.
DATED = "<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}<|im_end|>\n" + CHATML

# Of Llama 3's kind: another way to the date.
DATED_IF_UNSAID = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "<|im_start|>system\nToday Date: {{ date_string }}<|im_end|>\n" + CHATML
)
# Of models that always think: the answer is opened with a thinking block, whatever is asked for.
THINKING = CHATML[: CHATML.index("{% if enable_thinking")] + "<think>\n{% endif %}"


def byte_level(
    vocab: int = 600,
    chat_template: str | None = None,
    special: tuple[str, ...] = (),
    plain: tuple[str, ...] = (),
    texts: Sequence[str] | None = None,
):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts or TEXT, trainer)
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
    return _spread(AutoModelForCausalLM.from_config(config)).eval()


def _spread(network):
    """Weights larger than the usual 0.02, so that wrong attention shows in the scores."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.2)
    return network


def _without_pad(tokenizer):
    """As Llama's base checkpoints come."""
    tokenizer.pad_token = None
    return tokenizer


def _turns():
    tokenizer = metaspace(TURNS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn>", "<turn|>"]})
    return tokenizer


def _dated():
    tokenizer = chatml()
    tokenizer.chat_template = DATED
    return tokenizer


# What stands behind each base that a recipe names: the architecture of its checkpoint and a tokenizer of its kind.
BASES = {
    "nano": ("llama", byte_level),
    "data/mine-base": ("llama", byte_level),
    "Qwen/Qwen3-0.6B": ("qwen3", chatml),
    "Qwen/Qwen3.5-2B": ("qwen3_5", chatml),
    "Qwen/Qwen3.5-4B": ("qwen3_5", chatml),
    "google/gemma-4-E2B-it": ("gemma4", _turns),
    "google/gemma-3-270m": ("gemma3_text", _turns),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", chatml),
    "HuggingFaceTB/SmolLM3-3B": ("smollm3", _dated),
    "meta-llama/Llama-2-7b-hf": ("llama", lambda: _without_pad(metaspace(None))),
    "meta-llama/Llama-3.2-1B": ("llama", lambda: _without_pad(byte_level())),
}


def checkpoint_config(kind: str, vocab: int):
    """The tiny config of a whole checkpoint: several bases hold more than their language model."""
    small = {"hidden_size": 16, "intermediate_size": 16}
    known = configs()
    if kind == "smollm3":
        return AutoConfig.for_model(kind, **{**known["llama"], "vocab_size": vocab, "no_rope_layers": [1, 0]})
    if kind == "qwen3_5":
        text = {**known["qwen3_5_text"], "vocab_size": vocab}
        vision = {**small, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "num_position_embeddings": 16}
        return AutoConfig.for_model(kind, text_config=text, vision_config=vision)
    if kind == "gemma4":
        text = {
            **known["llama"],
            "vocab_size": vocab,
            "vocab_size_per_layer_input": vocab,
            "hidden_size_per_layer_input": 8,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "global_head_dim": 16,
        }
        vision = {**small, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
        audio = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 16}
        return AutoConfig.for_model(
            kind, text_config=text, vision_config={**vision, "position_embedding_size": 16}, audio_config=audio
        )
    return AutoConfig.for_model(kind, **{**known[kind], "vocab_size": vocab})


def save_base(base: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random checkpoint of the architecture behind `base`, with a tokenizer of its kind."""
    kind, make = BASES[base]
    tokenizer = make()
    torch.manual_seed(seed)
    config = checkpoint_config(kind, len(tokenizer))
    family = AutoModelForCausalLM if config.get_text_config() is config else AutoModelForImageTextToText
    _spread(family.from_config(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sample(folder: Path, train: int = 16, validation: int = 30, test: int = 6) -> str:
    """The sample in the package with the first users of each split alone. Of fewer validation users no temperature is told."""
    counts = dict(zip(contract.SPLITS, (train, validation, test), strict=True))
    tables: dict[str, dict[str, Dataset]] = {"items": {"train": contract.read_items("sample")}, "histories": {}}
    for split in contract.SPLITS:
        rows = contract.read("sample", "histories", split)
        tables["histories"][split] = rows.select(range(counts[split]))
    contract.write(folder, tables, provenance=contract.provenance("sample").values, body="# Sample, the first users")
    return str(folder)


def write_splits(folder: Path, items: list[dict], splits: dict[str, list[dict]], **provenance) -> str:
    """Write a dataset folder without summaries: items, and rows of histories by split."""
    tables = {
        "items": DatasetDict(train=Dataset.from_list(items, features=contract.items_features(contract.ITEM_COLUMNS))),
        "histories": DatasetDict(
            {split: Dataset.from_list(rows, features=contract.HISTORIES) for split, rows in splits.items()}
        ),
    }
    contract.write(folder, tables, provenance={"script": "test", **provenance}, body="# Small")
    return str(folder)


def dataset(folder: Path, users: int = 12, items: int = 30, negatives: int = 6, summary: str | None = None) -> Path:
    """Write a dataset folder with summaries: `users` in train, four each in validation and test."""
    genres = ("mystery", "travel", "sea stories")
    catalogue = [
        {"item_id": f"i{n}", "title": f"Book {n}", "text": f"title: Book {n}; genre: {genres[n % 3]}"}
        for n in range(items)
    ]

    def row(user: int, method: str | None) -> dict[str, object]:
        known = {
            "user_id": f"u{user}",
            "history": [f"i{(user + 3 * step) % items}" for step in range(7)],
            "target": f"i{(user + 21) % items}",
            "negatives": [f"i{(user + 1 + 3 * step) % items}" for step in range(negatives)],
        }
        text = summary or f"genre: {genres[user % 3]} x7"
        return known if method is None else {**known, "block_summaries": [text], "summary": f"{text}; {method}"}

    places = {"train": range(users), "validation": range(users, users + 4), "test": range(users + 4, users + 8)}
    tables = {"items": {"train": Dataset.from_list(catalogue, features=contract.items_features(contract.ITEM_COLUMNS))}}
    for config, method in (("histories", None), ("recurrent", "recurrent"), ("hierarchical", "hierarchical")):
        features = contract.HISTORIES if method is None else contract.SUMMARIES
        tables[config] = {
            split: Dataset.from_list([row(user, method) for user in place], features=features)
            for split, place in places.items()
        }
    contract.write(folder, tables, provenance={"made_by": "tests"}, body="# Tiny")
    return folder


def release_inputs(run: Run, test: Results | None = None, validation: Results | None = None) -> ReleaseInputs:
    """What a release is made from, for a run with these results alone; its dataset may hold nothing but its provenance."""
    source = run.recipe.dataset
    provenance = contract.provenance(source)
    tables = contract.tables(source) if (Path(source) / "items").is_dir() else {}
    texts = contract.texts_of(tables["items"]["train"], source) if tables else {}
    encoder = Encoder(byte_level(), ranking_prompt(run.recipe, provenance))
    audit, config = contract.audit(source), AutoConfig.for_model("llama")
    return ReleaseInputs(run, test, validation, "", (), provenance, audit, tables, texts, config, encoder, {})
