"""Teach the nano base to summarise: a LoRA adapter on it, trained on the questions of `lessons`."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from trsr.core.prompts import Encoder, RankingPrompt
from trsr.embedded import base_path
from trsr.hub.cards import render
from trsr.nano.lessons import FIRST_WORLD, Lessons
from trsr.nano.writing import WritingTrainer, pad_right
from trsr.recommender.scratch import arguments, fit
from trsr.recommender.train import lora_targets, write_adapter_config

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def train_summarizer(
    out: Path,
    *,
    seed: int = 0,
    steps: int = 2500,
    size: int = 24,
    rank: int = 16,
    learning_rate: float = 3e-3,
    base: str = "nano",
    save_steps: int = 250,
    work: Path | None = None,
) -> dict[str, object]:
    """Train and write an adapter: weights in bf16 safetensors, config, card, and how it was made.

    Args:
        out: Folder to write.
        seed: Seeds the weights. Lessons 0, 1, ... are trained on whatever the seed.
        steps: Optimiser steps of `size` questions.
        rank: Of LoRA, on all linear layers.
        base: A recipe's name of a base without a chat template.
        save_steps: Steps between checkpoints.
        work: Folder for checkpoints; a run that was killed goes on from the newest there.

    Returns:
        What stands in `training.json`.
    """
    work = work or out.with_name(out.name + "-checkpoints")
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base_path(base))
    plain = AutoModelForCausalLM.from_pretrained(base_path(base), dtype=torch.float32)
    encoder = Encoder(tokenizer, RankingPrompt(), plain.config.max_position_embeddings)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=lora_targets(plain, LINEAR), task_type="CAUSAL_LM")
    model = get_peft_model(plain, lora)
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    trainer = WritingTrainer(
        model,
        arguments(
            work,
            steps=steps,
            rows=size,
            learning_rate=learning_rate,
            seed=seed,
            least=0.02,
            warmup=100,
            weight_decay=0.0,
            save_steps=save_steps,
        ),
        data_collator=lambda rows: pad_right(rows, tokenizer.pad_token_id),
        train_dataset=Lessons(encoder, steps, size, tokenizer.eos_token_id),
    )
    record = fit(trainer)
    # Half the bytes; peft computes in the base's precision after loading.
    model.to(torch.bfloat16).save_pretrained(out)  # type: ignore[arg-type]
    write_adapter_config(out, base, None)
    made = {
        "command": f"trsr pretrain nano-summarizer --seed {seed} --steps {steps}",
        "data": f"trsr.nano.lessons.lesson 0 to {steps - 1}, on worlds {FIRST_WORLD} and on of trsr.nano.worlds.training_world",
        "parameters": trainable,
        "questions": steps * size,
        "rank": rank,
        **record,
    }
    (out / "training.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(render("summarizer", made), encoding="utf-8")
    return made
