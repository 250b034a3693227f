"""Teach the nano base to summarise: a LoRA adapter on it, trained on the questions of `lessons`.

The loss is on the answer alone, and only its positions go through the language-model head.
"""

import json
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

from trsr.cards import render
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.embedded import base_path
from trsr.lessons import FIRST_WORLD, Lessons
from trsr.train import last_checkpoint, lora_targets, write_adapter_config

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def collate(rows: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded ids and the tokens to predict, (rows, width) each; -100 where nothing is."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = torch.tensor(row["input_ids"])
        labels[place, length - row["answered"] : length] = ids[place, length - row["answered"] : length]
    return {"input_ids": ids, "labels": labels}


class SummarizerTrainer(Trainer):
    """Trainer that computes logits where an answer's token is predicted, and nowhere else."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        causal = model.get_base_model()
        # Padding is on the right, where causal attention never looks: no mask is needed.
        hidden = causal.model(inputs["input_ids"], use_cache=False).last_hidden_state  # (rows, width, size)
        following = inputs["labels"][:, 1:]
        wanted = following != -100
        loss = F.cross_entropy(causal.lm_head(hidden[:, :-1][wanted]), following[wanted])
        return (loss, {}) if return_outputs else loss


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
    started = time.monotonic()
    work = work or out.with_name(out.name + "-checkpoints")
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base_path(base))
    plain = AutoModelForCausalLM.from_pretrained(base_path(base), dtype=torch.float32)
    encoder = Encoder(tokenizer, RankingPrompt(), plain.config.max_position_embeddings)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=lora_targets(plain, LINEAR), task_type="CAUSAL_LM")
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.02},
        warmup_steps=min(100, steps // 10),
        adam_beta2=0.98,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=min(50, max(1, steps // 5)),
        save_steps=save_steps,
        save_total_limit=2,
        seed=seed,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        # Rows must come in order: those of a batch belong together, and they grow harder.
        train_sampling_strategy="sequential",
    )
    model = get_peft_model(plain, lora)
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    trainer = SummarizerTrainer(
        model,
        arguments,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        train_dataset=Lessons(encoder, steps, size, tokenizer.eos_token_id),
    )
    last, _ = last_checkpoint(work)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    # Half the bytes; peft computes in the base's precision after loading.
    model.to(torch.bfloat16).save_pretrained(out)  # type: ignore[arg-type]
    write_adapter_config(out, base, None)
    made = {
        "command": f"trsr pretrain nano-summarizer --seed {seed} --steps {steps}",
        "data": f"trsr.lessons.lesson 0 to {steps - 1}, on worlds {FIRST_WORLD} and on of trsr.worlds.training_world",
        "parameters": trainable,
        "questions": steps * size,
        "rank": rank,
        "learning_rate": learning_rate,
        "seed": seed,
        "seconds": round(time.monotonic() - started),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "last_log": next((entry for entry in reversed(trainer.state.log_history) if "loss" in entry), {}),
    }
    (out / "training.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(render("summarizer", made), encoding="utf-8")
    return made
