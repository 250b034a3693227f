"""Training rows from the users of a dataset: a history, with candidates to score after several of its items.

Two thirds of the rows score candidates at many positions of a history window; the rest use the fine-tuning format: once, behind
the summary of the whole past. A row is determined by its number.
"""

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from datasets import Dataset as HubDataset
from torch.utils.data import Dataset

from trsr.core.history import Item
from trsr.core.prompts import Encoder
from trsr.dataset.sequences import usable_lengths
from trsr.errors import DataError

MAX_WINDOW = 24  # most items of a history window
MIN_WINDOW = 6  # least items of a window, if the history is as long
MIN_CONTEXT = 2  # items of a window before the first candidates
MAX_POSITIONS = 10  # most positions of a window at which candidates are scored
RECENT_COUNTS = (3, 5, 10, 10)  # numbers of recent items after a summary of the whole past; adapters use 10


@dataclass(frozen=True, slots=True)
class User:
    """A user's items, oldest first, and their recurrent summaries.

    Attributes:
        items: Ends with the target, if training may use it.
        summaries: Number of oldest items -> the summary of them.
    """

    items: tuple[str, ...]
    summaries: Mapping[int, str]

    @property
    def ends(self) -> list[int]:
        """Numbers of items with a summary that an item comes after."""
        return [end for end in self.summaries if end < len(self.items)]

    @property
    def has_window(self) -> bool:
        """Whether there are items enough to score candidates within a window."""
        return len(self.items) > MIN_CONTEXT


def training_users(splits: Mapping[str, HubDataset], block_size: int) -> list[User]:
    """Users to train on: those of the training split with their targets, the others without.

    Args:
        splits: Split -> rows of the config `recurrent`, as `dataset.sequences.training_splits` chooses them.
    """
    all_users = []
    for split, rows in splits.items():
        train = split == "train"
        all_users += users(rows, block_size, target=train, usable={} if train else usable_lengths(rows))
    return all_users


def users(
    rows: Iterable[Mapping[str, Any]], block_size: int, target: bool, usable: Mapping[int, int] | None = None
) -> list[User]:
    """Users from rows of the config `recurrent`, with the summary after each block.

    Args:
        target: Append the target to the items; without it, training uses the history alone.
        usable: As `dataset.sequences.usable_lengths` gives it. No summary of more items is kept.
    """
    all_users = []
    for number, row in enumerate(rows):
        history, block_summaries = row["history"], row["block_summaries"]
        blocks = math.ceil(len(history) / block_size)
        ends = [min(block * block_size, len(history)) for block in range(blocks - len(block_summaries) + 1, blocks + 1)]
        items = (*history, row["target"]) if target else tuple(history)
        items = items[: (usable or {}).get(number, len(items))]
        summaries = {end: summary for end, summary in zip(ends, block_summaries, strict=True) if end <= len(items)}
        all_users.append(User(items, summaries))
    return all_users


class Rows(Dataset):
    """Row n is {"prefix": ids, "branches": [(visible tokens of the prefix, [ids of a candidate, ...]), ...]}.

    Candidates of a branch are the next item of the user, then negatives: half of them sampled uniformly, half by
    popularity.

    Args:
        users: Those with too few items to score candidates are left out.
        texts: Item id -> text.
        length: Number of rows. Users are visited in random order, each once per epoch.
        negatives: Negatives per branch of a window; after a summary of the whole past, 2 * `negatives` + 2.

    Raises:
        DataError: If there are too few items to sample negatives from, or no user has items enough to score candidates.
    """

    def __init__(
        self,
        users: Sequence[User],
        texts: Mapping[str, str],
        encoder: Encoder,
        *,
        length: int,
        negatives: int = 4,
        seed: int = 0,
    ) -> None:
        self.users = [user for user in users if user.has_window or user.ends]
        if not self.users:
            raise DataError(
                f"None of {len(users)} users has {MIN_CONTEXT + 1} items to train on, or an item after a summary. Give a dataset with longer "
                "histories."
            )
        self.length, self.negatives, self.seed = length, negatives, seed
        needed = max(len(set(user.items)) for user in self.users) + 2 * negatives + 2
        if len(texts) < needed:
            raise DataError(
                f"{len(texts)} items are too few to draw candidates that a user did not choose: {needed} are needed. "
                "Give more items."
            )
        self._encoder = encoder
        self._items = {item_id: Item.parse(text) for item_id, text in texts.items()}
        self._ids = sorted(texts)
        chosen = Counter(item_id for user in self.users for item_id in user.items)
        self._ends = list(accumulate(chosen[item_id] for item_id in self._ids))
        self._newline = encoder.text_ids("\n")
        self._line = {
            item_id: encoder.text_ids(f"- {item.text}") + self._newline for item_id, item in self._items.items()
        }
        self._suffix = {item_id: encoder.suffix_ids(item) for item_id, item in self._items.items()}
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self.length:
            raise IndexError(number)
        rng = random.Random(f"{self.seed}-{number}")
        user = self.users[self._user(number)]
        ends = user.ends
        kind = rng.random()
        if ends and (kind < 0.35 or not user.has_window):
            return self._fine_tuning_row(user, rng.choice(ends), rng)
        latest = max(0, len(user.items) - MIN_WINDOW)
        start = rng.randint(0, latest) if rng.random() < 0.5 else 0
        summary = None
        if kind < 0.7 and (starts := [end for end in ends if end <= latest]):
            start = rng.choice(starts)
            summary = user.summaries[start]
        return self._window_row(user.items, start, summary, rng)

    def _user(self, number: int) -> int:
        epoch, index = divmod(number, len(self.users))
        if self._order[0] != epoch:
            self._order = (
                epoch,
                random.Random(f"{self.seed}-turn-{epoch}").sample(range(len(self.users)), len(self.users)),
            )
        return self._order[1][index]

    def _fine_tuning_row(self, user: User, end: int, rng: random.Random) -> dict[str, Any]:
        recent = user.items[max(0, end - rng.choice(RECENT_COUNTS)) : end]
        prefix = self._encoder.prefix_ids(user.summaries[end], [self._items[item_id] for item_id in recent]).ids
        return {
            "prefix": prefix,
            "branches": [(len(prefix), self._candidates(user.items, end, 2 * self.negatives + 2, rng))],
        }

    def _window_row(self, items: Sequence[str], start: int, summary: str | None, rng: random.Random) -> dict[str, Any]:
        window = items[start : start + MAX_WINDOW]
        # The prefix for the first item, without the line of that item and the empty line at the end.
        first = self._encoder.prefix_ids(summary, [self._items[window[0]]]).ids
        prefix = first[: -len(self._line[window[0]]) - len(self._newline)]
        positions = range(MIN_CONTEXT, len(window))
        chosen_positions = set(rng.sample(positions, min(MAX_POSITIONS, len(positions))))
        branches = []
        for position, item_id in enumerate(window):
            if position in chosen_positions:
                candidates = self._candidates(items, start + position, self.negatives, rng)
                branches.append((len(prefix), [self._newline + ids for ids in candidates]))
            prefix = prefix + self._line[item_id]
        return {"prefix": prefix, "branches": branches}

    def _candidates(self, items: Sequence[str], position: int, count: int, rng: random.Random) -> list[list[int]]:
        own, drawn = set(items), [items[position]]
        while len(drawn) <= count:
            if rng.random() < 0.5:
                item_id = self._ids[bisect_right(self._ends, rng.random() * self._ends[-1])]
            else:
                item_id = rng.choice(self._ids)
            if item_id not in own:
                own.add(item_id)
                drawn.append(item_id)
        return [self._suffix[item_id] for item_id in drawn]
