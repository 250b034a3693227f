"""Train the nano base from scratch: tokenizer, then a small Llama that learns to rank, then to write as well.

Three losses while it learns to rank: yes or no for each candidate, the softmax over a user's candidates, and the
language-model loss on the prompt and the chosen item, which helps to find the match. `writing` adds a fourth.
"""

import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, Trainer, set_seed

from trsr.core.prompts import Encoder, RankingPrompt
from trsr.hub.cards import render
from trsr.nano import curriculum, writing
from trsr.nano.games import game
from trsr.nano.worlds import training_world
from trsr.nano.writing import Copies, WritingTrainer, pad_right
from trsr.recommender.scratch import (
    CONTEXT,
    RankingTrainer,
    arguments,
    fit,
    kept_tokenizer,
    llama,
    save,
    train_tokenizer,
)

# Steps of the stages that follow, of those of the first.
COPYING, WRITING = 0.2, 0.4

Record = dict[str, Any]


def world_tokenizer(worlds: int, vocab_size: int) -> PreTrainedTokenizerFast:
    """Trained on the prompts of `worlds` worlds."""
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return train_tokenizer(_texts(worlds), vocab_size, [pre_tokenizers.Digits(individual_digits=True), words])


def _texts(worlds: int) -> Iterator[str]:
    prompt = RankingPrompt()
    for number in range(worlds):
        world = training_world(-1 - number)  # pretraining counts up from 0, so these are never trained on
        rng = random.Random(number)
        for user in world.users:
            summary, recent, positive, _ = curriculum.example(world, user.items, rng, 0, clean=False)
            yield prompt.prefix(summary, recent) + prompt.suffix(positive) + f" {rng.choice([prompt.yes, prompt.no])}"
    for number in range(worlds * 20):
        summary, recent, positive, _ = game(-1 - number, 1.0, 2)
        yield prompt.prefix(summary, recent) + prompt.suffix(positive)


def pretrain(
    out: Path,
    *,
    seed: int = 0,
    steps: int = 3500,
    users: int = 12,
    negatives: int = 6,
    vocab_size: int = 3072,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    learning_rate: float = 1.5e-3,
    work: Path | None = None,
) -> dict[str, object]:
    """Train and write the nano base: weights in bf16 safetensors, tokenizer, config, and how it was made.

    Args:
        out: Folder to write.
        seed: Seeds weights and order. Games, worlds and lessons 0, 1, ... are trained on whatever the seed.
        steps: Optimiser steps of the first stage, of `users` users with 1 + `negatives` candidates each. The others take
            COPYING and WRITING of them.
        work: Folder for checkpoints; a run that was killed goes on from the newest there.

    Returns:
        What stands in `training.json`.
    """
    work = work or out.with_name(out.name + "-checkpoints")
    tokenizer = kept_tokenizer(work, lambda: world_tokenizer(worlds=60, vocab_size=vocab_size))
    set_seed(seed)
    model = llama(tokenizer, hidden, layers, heads)
    encoder = Encoder(tokenizer, RankingPrompt(recent_items=10), context=CONTEXT)

    def stage(name: str, rows: Dataset, count: int, size: int, rate: float, kind: Callable[..., Trainer]) -> Record:
        """Train on; a stage is described once, by the run that ends it."""
        trainer = kind(
            model, arguments(work / name, steps=count, rows=size, learning_rate=rate, seed=seed), train_dataset=rows
        )
        record = {"steps": count, "rows": count * size, **fit(trainer)}
        said = work / f"{name}.json"
        if not said.exists():
            said.write_text(json.dumps(record), encoding="utf-8")
        return json.loads(said.read_text(encoding="utf-8"))

    def ranking(how: Any) -> Callable[..., Trainer]:
        return partial(
            RankingTrainer,
            data_collator=lambda batch: how.collate(batch, tokenizer.pad_token_id),
            forward=how.forward,
            yes=encoder.yes_id,
            no=encoder.no_id,
            text_weight=how.TEXT_WEIGHT,
        )

    copying = partial(WritingTrainer, data_collator=lambda batch: pad_right(batch, tokenizer.pad_token_id))
    rows = curriculum.Curriculum(encoder, steps * users, negatives)
    worlds = math.ceil(len(rows) / curriculum.USERS_A_WORLD)
    copies, more = round(steps * COPYING), round(steps * WRITING)
    lessons = writing.Writing(encoder, more, users, negatives, tokenizer.eos_token_id, first_world=worlds)
    stages = {
        "ranking": stage("ranking", rows, steps, users, learning_rate, ranking(curriculum)),
        "copying": stage("copying", Copies(encoder, copies, 2 * users), copies, 2 * users, 1e-3, copying),
        "writing": stage("writing", lessons, more, users, 1e-3, ranking(writing)),
    }
    made = {
        "command": f"trsr pretrain nano --seed {seed} --steps {steps}",
        "data": "rankings of trsr.nano.games and of worlds of trsr.nano.worlds, tokens to copy, questions of trsr.nano.lessons",
        "parameters": model.num_parameters(),
        "seed": seed,
        "candidates_a_row": 1 + negatives,
        "seconds": sum(one["seconds"] for one in stages.values()),
        "stages": stages,
    }
    save(model, tokenizer, made, render("base", made), out)
    return made
