"""Rows of a dataset's users: a history, and candidates that branch off after its items.

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

from torch.utils.data import Dataset

from trsr.core.history import Item
from trsr.core.prompts import Encoder
from trsr.errors import DataError

STRETCH = 24  # items, at most
SHORTEST = 6  # items of a stretch, where there are as many
FEWEST = 2  # items that candidates of a stretch are asked after
ASKED = 10  # places of a stretch that are asked after, at most
SHOWN = (3, 5, 10, 10)  # recent items behind a summary of the whole past; ten are what adapters read


@dataclass(frozen=True, slots=True)
class User:
    """A user's items, oldest first, and the summaries on the way.

    Attributes:
        items: The target is the last one, where it may be seen.
        summaries: Number of items that a summary speaks of, from the first -> the summary.
    """

    items: tuple[str, ...]
    summaries: Mapping[int, str]


def users(rows: Iterable[Mapping[str, Any]], block_size: int, target: bool) -> list[User]:
    """Users of a config `recurrent`, whose summaries after each full block are known.

    Args:
        target: Take the target for the newest item. Without it only the history is learnt from.
    """
    found = []
    for row in rows:
        history, trail = row["history"], row["block_summaries"]
        blocks = math.ceil(len(history) / block_size)
        ends = [min(block * block_size, len(history)) for block in range(blocks - len(trail) + 1, blocks + 1)]
        items = (*history, row["target"]) if target else tuple(history)
        found.append(User(items, dict(zip(ends, trail, strict=True))))
    return found


class Rows(Dataset):
    """Row n is {"prefix": ids, "branches": [(tokens of the prefix that are seen, [ids of a candidate, ...]), ...]}.

    Candidates of a branch are what the user chose next, then others: half of them drawn uniformly, half in proportion
    to how often users chose them.

    Args:
        texts: Item id -> text.
        length: Number of rows. Every user is met once before any is met again.
        negatives: Other candidates a branch of a stretch; behind a whole past there are twice as many and two.

    Raises:
        DataError: If there are too few items to draw from.
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
        self.users = users
        self.length, self.negatives, self.seed = length, negatives, seed
        needed = max(len(set(user.items)) for user in users) + 2 * negatives + 2
        if len(texts) < needed:
            raise DataError(
                f"{len(texts)} items are too few to draw candidates that a user did not choose: {needed} are needed. "
                "Give more items."
            )
        self._encoder = encoder
        self._items = {item_id: Item.parse(text) for item_id, text in texts.items()}
        self._ids = sorted(texts)
        chosen = Counter(item_id for user in users for item_id in user.items)
        self._ends = list(accumulate(chosen[item_id] for item_id in self._ids))
        self._newline = encoder.text_ids("\n")
        self._line = {one: encoder.text_ids(f"- {item.text}") + self._newline for one, item in self._items.items()}
        self._suffix = {one: encoder.suffix_ids(item) for one, item in self._items.items()}
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self.length:
            raise IndexError(number)
        rng = random.Random(f"{self.seed}-{number}")
        user = self.users[self._user(number)]
        ends = [end for end in user.summaries if end < len(user.items)]
        kind = rng.random()
        if kind < 0.35 and ends:
            return self._past(user, rng.choice(ends), rng)
        latest = max(0, len(user.items) - SHORTEST)
        start = rng.randint(0, latest) if rng.random() < 0.5 else 0
        summary = None
        if kind < 0.7 and (fits := [end for end in ends if end <= latest]):
            start = rng.choice(fits)
            summary = user.summaries[start]
        return self._stretch(user.items, start, summary, rng)

    def _user(self, number: int) -> int:
        turn, place = divmod(number, len(self.users))
        if self._order[0] != turn:
            self._order = (
                turn,
                random.Random(f"{self.seed}-turn-{turn}").sample(range(len(self.users)), len(self.users)),
            )
        return self._order[1][place]

    def _past(self, user: User, end: int, rng: random.Random) -> dict[str, Any]:
        shown = user.items[max(0, end - rng.choice(SHOWN)) : end]
        prefix = self._encoder.prefix_ids(user.summaries[end], [self._items[item_id] for item_id in shown]).ids
        return {
            "prefix": prefix,
            "branches": [(len(prefix), self._candidates(user.items, end, 2 * self.negatives + 2, rng))],
        }

    def _stretch(self, items: Sequence[str], start: int, summary: str | None, rng: random.Random) -> dict[str, Any]:
        shown = items[start : start + STRETCH]
        # The prefix of the first item alone, without its line and the empty line that closes the prompt.
        first = self._encoder.prefix_ids(summary, [self._items[shown[0]]]).ids
        prefix = first[: -len(self._line[shown[0]]) - len(self._newline)]
        places = range(FEWEST, len(shown))
        asked = set(rng.sample(places, min(ASKED, len(places))))
        branches = []
        for place, item_id in enumerate(shown):
            if place in asked:
                candidates = self._candidates(items, start + place, self.negatives, rng)
                branches.append((len(prefix), [self._newline + ids for ids in candidates]))
            prefix = prefix + self._line[item_id]
        return {"prefix": prefix, "branches": branches}

    def _candidates(self, items: Sequence[str], place: int, count: int, rng: random.Random) -> list[list[int]]:
        own, drawn = set(items), [items[place]]
        while len(drawn) <= count:
            if rng.random() < 0.5:
                item_id = self._ids[bisect_right(self._ends, rng.random() * self._ends[-1])]
            else:
                item_id = rng.choice(self._ids)
            if item_id not in own:
                own.add(item_id)
                drawn.append(item_id)
        return [self._suffix[item_id] for item_id in drawn]
