"""Train the nano base from scratch: tokenizer, then a small Llama on the rankings of `curriculum`.

Three losses: yes or no for each candidate, the softmax over a user's candidates, and the language-model loss on the prompt
and the chosen item, which helps to learn matching.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast, set_seed

from trsr.core.prompts import Encoder, RankingPrompt
from trsr.pretrain.nano.curriculum import USERS_A_WORLD, Curriculum, collate, example, forward
from trsr.pretrain.nano.games import game
from trsr.pretrain.nano.worlds import training_world
from trsr.pretrain.scratch import (
    CONTEXT,
    RankingTrainer,
    arguments,
    claim_folders,
    finished,
    fit,
    llama,
    load_or_train_tokenizer,
    save,
    train_tokenizer,
)
from trsr.records.files import beside, one_writer
from trsr.report.templates import render


def world_tokenizer(worlds: int, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the prompts of `worlds` worlds."""
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return train_tokenizer(_texts(worlds), vocab_size, [pre_tokenizers.Digits(individual_digits=True), words])


def _texts(worlds: int) -> Iterator[str]:
    prompt = RankingPrompt()
    for number in range(worlds):
        world = training_world(-1 - number)  # pretraining uses worlds 0, 1, ...: it never uses these
        rng = random.Random(number)
        for user in world.users:
            summary, recent, positive, _ = example(world, user.items, rng, 0, clean=False)
            yield prompt.prefix(summary, recent) + prompt.suffix(positive) + f" {rng.choice([prompt.yes, prompt.no])}"
    for number in range(worlds * 20):
        summary, recent, positive, _ = game(-1 - number, 1.0, 2)
        yield prompt.prefix(summary, recent) + prompt.suffix(positive)


@one_writer
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
        seed: Seeds weights and order. Games and worlds are always 0, 1, ..., whatever the seed.
        steps: Optimiser steps of `users` users with 1 + `negatives` candidates each.
        work: Folder for checkpoints; a killed run goes on from the newest one, and a finished one is not run again.

    Returns:
        The content of `training.json`.
    """
    work = work or beside(out, "-checkpoints")
    claim_folders(
        out,
        work,
        model="nano",
        seed=seed,
        steps=steps,
        users=users,
        negatives=negatives,
        vocab_size=vocab_size,
        hidden=hidden,
        layers=layers,
        heads=heads,
        learning_rate=learning_rate,
    )
    if (done := finished(out, work)) is not None:
        return done
    tokenizer = load_or_train_tokenizer(work, lambda: world_tokenizer(worlds=60, vocab_size=vocab_size))
    set_seed(seed)
    model = llama(tokenizer, hidden, layers, heads)
    encoder = Encoder(tokenizer, RankingPrompt(recent_items=10), context=CONTEXT)

    rows = steps * users
    trainer = RankingTrainer(
        model,
        arguments(work, steps=steps, rows=users, learning_rate=learning_rate, seed=seed),
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        train_dataset=Curriculum(encoder, rows, negatives),
        forward=forward,
        yes=encoder.yes_id,
        no=encoder.no_id,
        text_weight=0.2,
    )
    record = fit(trainer)
    about = {
        "command": f"trsr pretrain nano --seed {seed} --steps {steps}",
        "data": f"trsr.pretrain.nano.games.game, and worlds 0 to {(rows - 1) // USERS_A_WORLD} of trsr.pretrain.nano.worlds.training_world",
        "parameters": model.num_parameters(),
        "rows": rows,
        "candidates_a_row": 1 + negatives,
        **record,
    }
    save(model, tokenizer, about, render("base", about), out, work)
    return about
