"""The training data of the nano base: ranking prompts, first from matching games, then more and more from new worlds.

A row is a prompt of `core.prompts`, one item that the user chose and a few negatives, all continuing one prefix
(`core.fork`).
"""

import random
from collections import Counter

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from trsr.core.compat import cache_name
from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.fork import fork
from trsr.core.history import Item, blocks_by_count
from trsr.core.prompts import Encoder
from trsr.core.summarize import METHODS, summarize
from trsr.pretrain.nano.games import game
from trsr.pretrain.nano.worlds import World, training_world

USERS_A_WORLD = 64
# Shares of the rows at which the curriculum changes.
EASY, FULL, NOISY = 0.15, 0.4, 0.8


def example(world: World, items: tuple[int, ...], rng: random.Random, negatives: int, clean: bool):
    """A user's summary, recent items, chosen item and other items, with the form of the prompt varied.

    With `clean`, the chosen item is of a topic that the prompt shows and the others are of topics that are not in the history;
    without, the chosen item is the user's last one and the others are sampled uniformly.
    """
    *past, target = items
    parsed = [Item.parse(world.items[number].fields) for number in past]
    recent_numbers = past[-rng.choice([1, 3, 3, 3, 5]) :]
    summary = None
    if rng.random() < 0.8:
        blocks = blocks_by_count(parsed)
        summary = summarize([blocks], ExtractiveSummarizer(), rng.choice(METHODS))[0].summary
        if rng.random() < 0.15:
            recent_numbers = []
    avoided: set[int] = set()
    if clean:
        avoided = {world.items[number].topic for number in past}
        topic_counts = Counter(world.items[number].topic for number in (past if summary else recent_numbers))
        liked = {topic for topic, _ in topic_counts.most_common(3)}
        fresh = [n for n, item in enumerate(world.items) if item.topic in liked and n not in past]
        target = rng.choice(fresh) if fresh else target
    other_numbers: list[int] = []
    while len(other_numbers) < negatives:
        number = rng.randrange(len(world.items))
        if number not in items and number != target and world.items[number].topic not in avoided:
            other_numbers.append(number)
    recent = parsed[len(past) - len(recent_numbers) :]
    return summary, recent, *_parse(world, [target, *other_numbers])


def _parse(world: World, numbers: list[int]) -> tuple[Item, list[Item]]:
    chosen, *other_items = (Item.parse(world.items[number].fields) for number in numbers)
    return chosen, other_items


class Curriculum(Dataset):
    """Rows from matching games, then from users of worlds; row i is always the same.

    Until `EASY`, only the easiest games: with harder ones a small model does not learn to match. Then the share of users
    of new worlds grows, and so does the number of fields of their items; from `FULL` on they are five rows of six. Their
    candidates are clean until `NOISY`; then the positive is the user's last item.

    Args:
        encoder: Encodes the prompts.
        rows: Length of the dataset.
        negatives: Negatives per row.
    """

    def __init__(self, encoder: Encoder, rows: int, negatives: int) -> None:
        self.encoder = encoder
        self.rows = rows
        self.negatives = negatives
        self._world: tuple[int, World] | None = None

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, list]:
        rng = random.Random(f"0-{row}")
        growth = self._growth(row)
        if rng.random() < 5 / 6 * growth:
            summary, recent, positive, other_items = self._user(row, rng, clean=row / self.rows < NOISY)
        else:
            summary, recent, positive, other_items = game(row, 0.3 * growth, self.negatives)
        return {
            "prefix": self.encoder.prefix_ids(summary, recent).ids,
            "suffixes": [self.encoder.suffix_ids(item) for item in (positive, *other_items)],
        }

    def _growth(self, row: int) -> float:
        return min(1.0, max(0.0, (row / self.rows - EASY) / (FULL - EASY)))

    def _user(self, row: int, rng: random.Random, clean: bool):
        number = row // USERS_A_WORLD
        richness = self._growth(number * USERS_A_WORLD)
        if self._world is None or self._world[0] != number:
            world = training_world(number, users=USERS_A_WORLD, richness=richness)
            self._world = number, world
        world = self._world[1]
        items = world.users[row % USERS_A_WORLD].items
        return example(world, items[-(6 + int(20 * richness)) :], rng, self.negatives, clean)


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
    """Logits (users * candidates, vocabulary) at the answers, candidates per user, and the loss on prompt and chosen item."""
    users = len(batch["prefix"])
    mask = batch["prefix_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    body, head = model.model, model.lm_head
    prefix_output = body(batch["prefix"], attention_mask=mask, position_ids=positions, use_cache=True)
    suffix, lengths = batch["suffix"], batch["suffix_lengths"]
    branches = len(suffix) // users
    rows = torch.arange(users).repeat_interleave(branches)
    full_mask = torch.cat([mask[rows], torch.ones_like(suffix)], dim=1)
    suffix_positions = mask.sum(1)[rows][:, None] + torch.arange(suffix.shape[1])
    cache = {cache_name(body): fork(getattr(prefix_output, cache_name(body)), rows)}
    hidden = body(suffix, attention_mask=full_mask, position_ids=suffix_positions, **cache).last_hidden_state
    answers = head(hidden[torch.arange(len(suffix)), lengths - 1])
    chosen = torch.arange(0, len(suffix), branches)
    # Positions that predict the prompt's tokens, then the chosen item's.
    states = torch.cat([prefix_output.last_hidden_state, hidden[chosen, :-1]], dim=1)
    targets = torch.cat([batch["prefix"][:, 1:].masked_fill(mask[:, :-1] == 0, -100), suffix[chosen]], dim=1)
    targets = targets.masked_fill(targets == model.config.pad_token_id, -100)
    is_target = targets != -100
    return answers, torch.full((users,), branches), F.cross_entropy(head(states[is_target]), targets[is_target])
