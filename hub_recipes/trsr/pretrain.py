"""Train the nano base from scratch: tokenizer, then a small Llama, on matching games and users of synthetic worlds.

Each row is the prompt of `core.prompts`, one item that the user chose and a few that they did not, all continuing from
one prefix (`core.fork`). Games (`games`) come first, then more and more users of fresh worlds (`worlds`). Three losses:
yes or no for each candidate, the softmax over a user's candidates, and the language-model loss on the prompt and the
chosen item, which helps to find the match.
"""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, set_seed

from trsr.cards import render
from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.fork import fork
from trsr.core.history import Item, blocks_by_count
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.core.summarize import METHODS, summarize
from trsr.games import game
from trsr.scratch import CONTEXT, fit, kept_tokenizer, llama, save, train_tokenizer
from trsr.worlds import World, training_world

USERS_A_WORLD = 64


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
            summary, recent, positive, _ = _example(world, user.items, rng, 0, clean=False)
            yield prompt.prefix(summary, recent) + prompt.suffix(positive) + f" {rng.choice([prompt.yes, prompt.no])}"
    for number in range(worlds * 20):
        summary, recent, positive, _ = game(-1 - number, 1.0, 2)
        yield prompt.prefix(summary, recent) + prompt.suffix(positive)


def _example(world: World, items: tuple[int, ...], rng: random.Random, negatives: int, clean: bool):
    """A user's summary, recent items, chosen item and other items, with the form of the prompt varied.

    With `clean`, the chosen item is of a topic that the prompt shows and the others are of topics that the user never met;
    without, the chosen item is the user's last one and the others are drawn uniformly.
    """
    *past, target = items
    parsed = [Item.parse(world.items[number].fields) for number in past]
    shown = past[-rng.choice([1, 3, 3, 3, 5]) :]
    summary = None
    if rng.random() < 0.8:
        blocks = blocks_by_count(parsed)
        summary = summarize([blocks], ExtractiveSummarizer(), rng.choice(METHODS))[0].summary
        if rng.random() < 0.15:
            shown = []
    avoided: set[int] = set()
    if clean:
        avoided = {world.items[number].topic for number in past}
        counted = Counter(world.items[number].topic for number in (past if summary else shown))
        liked = {topic for topic, _ in counted.most_common(3)}
        fresh = [n for n, item in enumerate(world.items) if item.topic in liked and n not in past]
        target = rng.choice(fresh) if fresh else target
    others: list[int] = []
    while len(others) < negatives:
        number = rng.randrange(len(world.items))
        if number not in items and number != target and world.items[number].topic not in avoided:
            others.append(number)
    recent = parsed[len(past) - len(shown) :]
    return summary, recent, *_read(world, [target, *others])


def _read(world: World, numbers: list[int]) -> tuple[Item, list[Item]]:
    chosen, *others = (Item.parse(world.items[number].fields) for number in numbers)
    return chosen, others


# Shares of the rows at which the curriculum turns.
EASY, FULL, NOISY = 0.15, 0.4, 0.8


class Curriculum(Dataset):
    """From matching games to users; row i is always the same.

    Until `EASY` the easiest games only, until matching is found: harder ones would hide it. Then more and more users of
    fresh worlds, whose items show more and more; from `FULL` on they are five rows of six. Their candidates are clean
    until `NOISY`; then they are the users' own last items.

    Args:
        encoder: Encodes the prompts.
        rows: Length of the dataset.
        negatives: Items not chosen, a row.
        first_world: Worlds are counted from here.
    """

    def __init__(self, encoder: Encoder, rows: int, negatives: int, first_world: int = 0) -> None:
        self.encoder = encoder
        self.rows = rows
        self.negatives = negatives
        self.first_world = first_world
        self._world: tuple[int, World] | None = None

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, list]:
        rng = random.Random(f"{self.first_world}-{row}")
        growth = self._growth(row)
        if rng.random() < 5 / 6 * growth:
            summary, recent, positive, others = self._user(row, rng, clean=row / self.rows < NOISY)
        else:
            summary, recent, positive, others = game(row, 0.3 * growth, self.negatives)
        return {
            "prefix": self.encoder.prefix_ids(summary, recent).ids,
            "suffixes": [self.encoder.suffix_ids(item) for item in (positive, *others)],
        }

    def _growth(self, row: int) -> float:
        return min(1.0, max(0.0, (row / self.rows - EASY) / (FULL - EASY)))

    def _user(self, row: int, rng: random.Random, clean: bool):
        number = row // USERS_A_WORLD
        richness = self._growth(number * USERS_A_WORLD)
        if self._world is None or self._world[0] != number:
            world = training_world(self.first_world + number, users=USERS_A_WORLD, richness=richness)
            self._world = number, world
        world = self._world[1]
        items = world.users[row % USERS_A_WORLD].items
        return _example(world, items[-(6 + int(20 * richness)) :], rng, self.negatives, clean)


def collate(rows: list[dict[str, list]], pad: int) -> dict[str, torch.Tensor]:
    """Left-pad prefixes (users, P), right-pad suffixes (users * candidates, S), the chosen item first of each user."""
    prefixes = [row["prefix"] for row in rows]
    suffixes = [suffix for row in rows for suffix in row["suffixes"]]
    width = max(map(len, prefixes))
    length = max(map(len, suffixes))
    return {
        "prefix": torch.tensor([[pad] * (width - len(ids)) + ids for ids in prefixes]),
        "prefix_mask": torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prefixes]),
        "suffix": torch.tensor([ids + [pad] * (length - len(ids)) for ids in suffixes]),
        "suffix_lengths": torch.tensor([len(ids) for ids in suffixes]),
    }


def forward(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (users * candidates, vocabulary) at the answers, candidates a user, and the loss on prompt and chosen item."""
    users = len(batch["prefix"])
    mask = batch["prefix_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    body, head = model.model, model.lm_head
    seen = body(batch["prefix"], attention_mask=mask, position_ids=positions, use_cache=True)
    suffix, lengths = batch["suffix"], batch["suffix_lengths"]
    branches = len(suffix) // users
    rows = torch.arange(users).repeat_interleave(branches)
    full_mask = torch.cat([mask[rows], torch.ones_like(suffix)], dim=1)
    places = mask.sum(1)[rows][:, None] + torch.arange(suffix.shape[1])
    hidden = body(
        suffix, attention_mask=full_mask, position_ids=places, past_key_values=fork(seen.past_key_values, rows)
    ).last_hidden_state
    answers = head(hidden[torch.arange(len(suffix)), lengths - 1])
    chosen = torch.arange(0, len(suffix), branches)
    # Positions that predict the prompt's tokens, then the chosen item's.
    states = torch.cat([seen.last_hidden_state, hidden[chosen, :-1]], dim=1)
    targets = torch.cat([batch["prefix"][:, 1:].masked_fill(mask[:, :-1] == 0, -100), suffix[chosen]], dim=1)
    targets = targets.masked_fill(targets == model.config.pad_token_id, -100)
    wanted = targets != -100
    return answers, torch.full((users,), branches), F.cross_entropy(head(states[wanted]), targets[wanted])


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
        seed: Seeds weights and order. Games and worlds 0, 1, ... are trained on whatever the seed.
        steps: Optimiser steps of `users` users with 1 + `negatives` candidates each.
        work: Folder for checkpoints; a run that was killed goes on from the newest there.

    Returns:
        What stands in `training.json`.
    """
    work = work or out.with_name(out.name + "-checkpoints")
    tokenizer = kept_tokenizer(work, lambda: world_tokenizer(worlds=60, vocab_size=vocab_size))
    set_seed(seed)
    model = llama(tokenizer, hidden, layers, heads)
    encoder = Encoder(tokenizer, RankingPrompt(recent_items=10), context=CONTEXT)
    rows = steps * users
    record = fit(
        model,
        Curriculum(encoder, rows, negatives),
        lambda batch: collate(batch, tokenizer.pad_token_id),
        forward,
        work,
        steps=steps,
        users=users,
        learning_rate=learning_rate,
        seed=seed,
        answers=(encoder.yes_id, encoder.no_id),
        text_weight=0.2,
    )
    made = {
        "command": f"trsr pretrain nano --seed {seed} --steps {steps}",
        "data": f"trsr.games.game, and worlds 0 to {(rows - 1) // USERS_A_WORLD} of trsr.worlds.training_world",
        "parameters": model.num_parameters(),
        "candidates_a_row": 1 + negatives,
        **record,
    }
    save(model, tokenizer, made, render("base", made), out)
    return made
