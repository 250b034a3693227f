"""Train the nano base to summarise: first to copy, then on `lessons`. The change of weights is written as a LoRA adapter.

A model that was trained to rank alone cannot repeat a name that it has just read. Repeated random tokens teach it to copy,
if all weights are trained; low-rank adapters do not learn it. So all weights are trained, and the change is written as
LoRA factors of full rank, which are small for a model of this size.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, set_seed

from trsr.assets.paths import base_path
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.pretrain.nano.lessons import FIRST_WORLD, Lessons
from trsr.pretrain.scratch import arguments, claim_folders, describe, finished, fit
from trsr.progress import loading
from trsr.records.adapters import write_adapter_config
from trsr.records.checksums import base_checksum
from trsr.records.files import beside, one_writer, read_json, whole_folder, write_text
from trsr.report.templates import render

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head")
LENGTH = 48  # tokens of a row of `Copies`
GROWS = 100  # steps after which the repeated pattern may be one token longer


class Copies(Dataset):
    """A dataset of repeated patterns of random tokens, first of 3 tokens, later of up to 16. Row i is always the same.

    Args:
        steps: Length of the dataset in steps.
        size: Rows per step.
    """

    def __init__(self, encoder: Encoder, steps: int, size: int) -> None:
        self.steps, self.size = steps, size
        special = encoder.tokenizer.all_special_ids
        self._tokens = sorted(set(range(len(encoder.tokenizer))) - set(special))
        self._start = encoder.head_ids

    def __len__(self) -> int:
        return self.steps * self.size

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        rng = random.Random(f"copy-{row}")
        few = rng.choices(self._tokens, k=rng.randint(3, 3 + min(13, row // self.size // GROWS)))
        repeated = few * (LENGTH // len(few))
        return {"input_ids": self._start + repeated, "answered": len(repeated) - len(few)}


def collate(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded ids and the tokens to predict, (rows, width) each; -100 where no token is to be predicted."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[index, :length] = torch.tensor(row["input_ids"])
        labels[index, length - row["answered"] : length] = ids[index, length - row["answered"] : length]
    return {"input_ids": ids, "labels": labels}


class AnswerTrainer(Trainer):
    """Trainer with the loss on answer tokens; logits are computed at their positions alone."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Padding is on the right, which causal attention cannot see: no mask is needed.
        hidden = model.model(inputs["input_ids"], use_cache=False).last_hidden_state  # (rows, width, size)
        targets = inputs["labels"][:, 1:]
        is_answer = targets != -100
        loss = F.cross_entropy(model.lm_head(hidden[:, :-1][is_answer]), targets[is_answer])
        return (loss, {}) if return_outputs else loss


@one_writer
def train_summarizer(
    out: Path,
    *,
    seed: int = 0,
    steps: int = 6000,
    copying: int = 2800,
    size: int = 24,
    learning_rate: float = 1e-3,
    base: str = "nano",
    save_steps: int = 250,
    work: Path | None = None,
) -> dict[str, object]:
    """Train and write an adapter: weights in bf16 safetensors, config, card, and how it was made.

    Args:
        out: Folder to write.
        seed: Seeds the order. Lessons are always 0, 1, ..., whatever the seed.
        steps: Optimiser steps on lessons, of `size` prompts each.
        copying: Optimiser steps on copying before them, of `size` rows each.
        learning_rate: Peak; doubled for copying.
        base: A base without a chat template, named as in a recipe.
        save_steps: Steps between checkpoints.
        work: Folder for checkpoints; a killed run goes on from the newest one, and a finished one is not run again.

    Returns:
        The content of `training.json`.
    """
    work = work or beside(out, "-checkpoints")
    claim_folders(
        out,
        work,
        model="nano-summarizer",
        base=base_checksum(base),
        seed=seed,
        steps=steps,
        copying=copying,
        size=size,
        learning_rate=learning_rate,
    )
    if (done := finished(out, work)) is not None:
        return done
    set_seed(seed)
    with loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base_path(base))
        model = AutoModelForCausalLM.from_pretrained(base_path(base), dtype=torch.float32)
    encoder = Encoder(tokenizer, RankingPrompt(), model.config.max_position_embeddings)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def stage(name: str, rows: Dataset, count: int, rate: float) -> dict[str, Any]:
        """Train a stage. Its record is written once, by the process that finishes it."""
        training_arguments = arguments(
            work / name, steps=count, rows=size, learning_rate=rate, seed=seed, save_steps=save_steps
        )
        trainer = AnswerTrainer(
            model,
            training_arguments,
            data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
            train_dataset=rows,
        )
        record = {"steps": count, "rows": count * size, **fit(trainer)}
        record_file = work / f"{name}.json"
        if not record_file.exists():
            write_text(record_file, json.dumps(record))
        return read_json(record_file)

    stages = {
        "copying": stage("copying", Copies(encoder, copying, size), copying, 2 * learning_rate),
        "lessons": stage("lessons", Lessons(encoder, steps, size, tokenizer.eos_token_id), steps, learning_rate),
    }
    with whole_folder(out) as draft:
        parameters = write_change(model, before, draft)
        write_adapter_config(draft, base, None)
        about = {
            "command": f"trsr pretrain nano-summarizer --seed {seed} --steps {steps}",
            "data": f"trsr.pretrain.nano.lessons.lesson 0 to {steps - 1}, on worlds {FIRST_WORLD} and on of trsr.pretrain.nano.worlds",
            "parameters": parameters,
            "seed": seed,
            "seconds": sum(stage_record["seconds"] for stage_record in stages.values()),
            "stages": stages,
        }
        describe(draft, work, about, render("summarizer", about))
    return about


def write_change(model: Any, before: Mapping[str, torch.Tensor], out: Path) -> int:
    """Write the change of a Llama with tied embeddings as a LoRA adapter in bf16.

    One factor is the change of a weight, the other one the identity; the rank is the hidden size. An adapter holds no
    norms: their changes are folded into the weights of the layers after them.

    Args:
        model: As trained. Afterwards it is the base with the adapter, in bf16.
        before: Name of a weight -> its value before training.

    Returns:
        Number of parameters of the adapter.
    """
    after = _without_norms(model, before)
    for name, weight in before.items():
        model.get_parameter(name).data.copy_(weight)
    rank = model.config.hidden_size
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS), task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, weight in after.items():
        layer: Any = adapted.get_base_model().get_submodule(name)
        up, down = _factors(weight - layer.weight.detach(), rank)
        if name.endswith("embed_tokens"):
            layer.lora_embedding_A["default"].data.copy_(up.T)
            layer.lora_embedding_B["default"].data.copy_(down.T)
        else:
            layer.lora_A["default"].weight.data.copy_(down)
            layer.lora_B["default"].weight.data.copy_(up)
    adapted.to(torch.bfloat16).save_pretrained(out, save_embedding_layers=False)  # type: ignore[arg-type]
    return sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)


def _without_norms(model: Any, before: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Layer -> its trained weights, rescaled so that they give the same output with the norms in `before`."""

    def gain(norm: str) -> torch.Tensor:
        return model.get_parameter(f"{norm}.weight").detach() / before[f"{norm}.weight"]

    weights: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.split(".")[-1] in LAYERS:
            weights[name] = module.weight.detach().clone()
            block = name.rsplit(".", 2)[0]
            if name.endswith(("q_proj", "k_proj", "v_proj")):
                weights[name] *= gain(f"{block}.input_layernorm")
            elif name.endswith(("gate_proj", "up_proj")):
                weights[name] *= gain(f"{block}.post_attention_layernorm")
            elif name.endswith("lm_head"):
                weights[name] *= gain("model.norm")
    return weights


def _factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs, rank) and (rank, inputs), whose product is a matrix (outputs, inputs)."""
    outputs, inputs = matrix.shape
    if inputs <= outputs:
        return F.pad(matrix, (0, rank - inputs)), torch.eye(rank, inputs)
    return torch.eye(outputs, rank), F.pad(matrix, (0, 0, 0, rank - outputs))
