"""Fine-tune a base with LoRA on pairs of a summarising prompt and the answer that is wanted, through TRL's SFTTrainer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from trsr.core.compat import context_length
from trsr.core.prompts import Encoder
from trsr.core.summarize import SummaryRequest
from trsr.core.summary_prompts import SummaryPrompts
from trsr.errors import TrainError, UsageError
from trsr.progress import show_training
from trsr.recommender.recipe import Recipe, Watch
from trsr.recommender.train import AdapterTrainer, learn, load_base, lora_config, training_arguments, trains_on


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the adapter is trained; LoRA and the other settings are those of the ranker's recipe.

    Attributes:
        batch_size: Answers a step.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-4
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.epochs < math.inf or not 0 < self.learning_rate < math.inf or self.batch_size < 1:
            raise UsageError(
                "Fine-tuning takes epochs and a learning rate above 0, and at least 1 answer a step. Got "
                f"{self.epochs}, {self.learning_rate} and {self.batch_size}."
            )


def answer_row(
    encoder: Encoder, prompts: SummaryPrompts, question: SummaryRequest, summary: str
) -> dict[str, list[int]]:
    """Ids of a prompt, its answer in the form that is asked for, and the end of the answer; labels of the answer alone."""
    prompt_ids = encoder.request_ids(prompts.text(question), prompts.turns(question.kind))
    answered = [*encoder.text_ids(f"{prompts.form} {summary}".strip()), encoder.tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + answered, "labels": [-100] * len(prompt_ids) + answered}


def fine_tune(
    pairs: Sequence[tuple[SummaryRequest, str]],
    prompts: SummaryPrompts,
    recipe: Recipe,
    tuning: Tuning,
    checkpoints: Path,
    seed: int,
) -> tuple[Any, Mapping[str, Any]]:
    """Train an adapter; a killed training goes on from its last checkpoint.

    Args:
        pairs: Questions with the summaries that are wanted.
        recipe: Of the ranker: its base, LoRA, precision and device.

    Returns:
        The model with its adapter, and what is to be recorded: steps, tokens, precision.

    Raises:
        TrainError: If the base's tokenizer has no token that ends an answer.
    """
    cpu, half = trains_on(recipe)
    # A row is one prompt. The ranker is trained in rows of many candidates, so its sizes of a batch do not fit.
    optim = replace(
        recipe.optim,
        epochs=tuning.epochs,
        learning_rate=tuning.learning_rate,
        max_steps=0,
        batch_size=1,
        accumulation=tuning.batch_size,
    )
    own = replace(recipe, form="flat", listwise=0.0, seed=seed, optim=optim, watch=Watch())
    set_seed(seed)
    tokenizer, model = load_base(recipe, half)
    if tokenizer.eos_token_id is None:
        raise TrainError(f"The tokenizer of {recipe.base} has no end of text: an answer could not end. Set eos_token.")
    encoder = Encoder(tokenizer, context=context_length(model.config))
    rows = [answer_row(encoder, prompts, question, summary) for question, summary in pairs]
    trainer = AdapterTrainer(
        model,
        training_arguments(own, checkpoints, half, cpu),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(own, model),
    )
    show_training(trainer, "train summarizer")
    training = learn(trainer, checkpoints)
    return trainer.model, {
        "steps": training["steps"],
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "precision": "bf16" if half else "fp32",
    }
