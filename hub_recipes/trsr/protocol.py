"""The protocol `paper`: what of a user's items is kept, who is in which split, which negatives a user gets.

Every choice follows from the seed and from ids, never from the order of rows: the same users get the same split and
negatives wherever and however often a dataset is made. Knows nothing of files.

Reference:
    LLM-TRSR (arXiv 2403.13325) and its code: users with 11 to 26 items, the last one is the target, 20 negatives.
    Unlike in that code, a negative is never an item of the user's history.
"""

import hashlib
import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from datasets import Dataset

from trsr.data import HISTORIES, DataError, Tables

# Draws in vain after which a pool is narrowed to what is still free.
_MISSES = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """The users a dataset is made of.

    Attributes:
        sequences: User id -> item ids, oldest first; the last one is the target.
        short: Users left out for too few items.
        long: Users left out for too many.
        cut: Users kept with their newest items only.
    """

    sequences: dict[str, tuple[str, ...]]
    short: int
    long: int
    cut: int


def keep_users(
    sequences: Mapping[str, Sequence[str]], *, shortest: int = 11, longest: int = 26, keep_last: bool = False
) -> Kept:
    """Keep the users with `shortest` to `longest` items, the target counted.

    Args:
        sequences: User id -> item ids, oldest first.
        keep_last: Keep the newest `longest` items of a longer user instead of leaving the user out.

    Raises:
        DataError: If the bounds make no sense, or no user is left.
    """
    if not 2 <= shortest <= longest:
        raise DataError(
            f"A user needs at least 2 items, one to know and one to find, and the minimum cannot exceed the maximum: "
            f"got {shortest} to {longest}."
        )
    short = sum(len(items) < shortest for items in sequences.values())
    long = sum(len(items) > longest for items in sequences.values())
    kept = {
        user_id: tuple(items[-longest:])
        for user_id, items in sequences.items()
        if len(items) >= shortest and (keep_last or len(items) <= longest)
    }
    if not kept:
        hint = "" if keep_last or not long else " Or keep the newest items of long users (--keep-last)."
        raise DataError(
            f"No user is left of {len(sequences)}: {short} have fewer than {shortest} items, {long} more than "
            f"{longest}. Give longer histories or other bounds.{hint}"
        )
    return Kept(kept, short, 0 if keep_last else long, long if keep_last else 0)


def split_users(
    users: Iterable[str],
    *,
    validation: int | None = None,
    test: int | None = None,
    train: int | None = None,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Divide users by a seeded hash of their ids.

    Args:
        validation: Number of users; default a twelfth, at least one.
        test: As `validation`. Who is in test does not change with the sizes of the other splits.
        train: Default all others; with a number, the rest is left out.

    Returns:
        Split -> user ids, in the order of the hash.

    Raises:
        DataError: If a split would be empty, or there are too few users.
    """

    def digest(user_id: str) -> bytes:
        return hashlib.sha256(json.dumps(["split", seed, user_id]).encode()).digest()

    order = sorted(users, key=digest)
    share = max(1, len(order) // 12)
    test = share if test is None else test
    validation = share if validation is None else validation
    train = len(order) - test - validation if train is None else train
    if min(train, validation, test) < 1 or train + validation + test > len(order):
        raise DataError(
            f"Cannot divide {len(order)} users into train {train}, validation {validation}, test {test}: every split "
            "needs at least one user. Give more users, or other sizes."
        )
    held_out = test + validation
    return {"train": order[held_out : held_out + train], "validation": order[test:held_out], "test": order[:test]}


@dataclass(frozen=True, slots=True)
class Pool:
    """Items that negatives are drawn from, each in proportion to its weight.

    Attributes:
        items: Item ids; sorted, so that draws do not depend on the order of a catalogue.
        weights: Positive, one an item.
    """

    items: tuple[str, ...]
    weights: tuple[int, ...]
    _ends: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.items) != len(self.weights) or any(weight < 1 for weight in self.weights):
            raise ValueError("A pool needs one positive weight an item.")
        object.__setattr__(self, "_ends", tuple(accumulate(self.weights)))

    @classmethod
    def weighted(cls, weights: Mapping[str, int]) -> "Pool":
        """A pool of the items whose weight is positive."""
        items = sorted(item_id for item_id, weight in weights.items() if weight > 0)
        return cls(tuple(items), tuple(weights[item_id] for item_id in items))

    @classmethod
    def uniform(cls, catalogue: Iterable[str]) -> "Pool":
        """Every item of the catalogue alike."""
        return cls.weighted(dict.fromkeys(catalogue, 1))

    @classmethod
    def popular(cls, sequences: Iterable[Sequence[str]]) -> "Pool":
        """Items in proportion to how often they stand in `sequences`: those of training users, targets included."""
        return cls.weighted(Counter(item_id for items in sequences for item_id in items))

    def draw(self, place: float) -> str:
        """The item at `place`, in [0, 1), of the running total of weights."""
        return self.items[bisect_right(self._ends, place * self._ends[-1])]

    def without(self, closed: set[str]) -> "Pool":
        """The items that are not in `closed`."""
        return Pool.weighted({i: weight for i, weight in zip(self.items, self.weights, strict=True) if i not in closed})


def sample_negatives(
    user_id: str, items: Iterable[str], pool: Pool, *, count: int = 20, seed: int = 0, sampling: str = "uniform"
) -> list[str]:
    """Draw `count` different items that the user has not met.

    Args:
        items: All items of the user, the target included; none is drawn.
        sampling: What the pool is, for the message.

    Returns:
        Item ids in the order they were drawn.

    Raises:
        DataError: If the pool has too few other items.
    """
    # Of `random`, only `random()` is promised to give the same numbers in every version of Python.
    rng = random.Random(json.dumps(["negatives", seed, user_id]))
    closed, negatives, misses = set(items), [], 0
    while len(negatives) < count:
        if not pool.items:
            raise DataError(
                f"User {user_id!r}: the catalogue is too small, it has {len(negatives)} items for {count} negatives "
                f"({sampling} sampling) beside the user's own. Give more items, or ask for fewer negatives."
            )
        item_id = pool.draw(rng.random())
        if item_id not in closed:
            closed.add(item_id)
            negatives.append(item_id)
        elif (misses := misses + 1) == _MISSES:
            # Most weight is taken. Drawing from the rest has the same distribution, and ends.
            pool, misses = pool.without(closed), 0
    return negatives


def histories(
    users: Iterable[str],
    sequences: Mapping[str, Sequence[str]],
    pool: Pool,
    *,
    negatives: int = 20,
    seed: int = 0,
    sampling: str = "uniform",
) -> Dataset:
    """Rows of the config `histories` for `users`, in their order.

    Raises:
        DataError: If `negatives` is below 1, or as `sample_negatives` does.
    """
    if negatives < 1:
        raise DataError(f"A target needs at least 1 negative to be ranked against, got {negatives}.")
    rows = []
    for user_id in users:
        *history, target = sequences[user_id]
        drawn = sample_negatives(user_id, sequences[user_id], pool, count=negatives, seed=seed, sampling=sampling)
        rows.append({"user_id": user_id, "history": history, "target": target, "negatives": drawn})
    return Dataset.from_list(rows, features=HISTORIES)


def describe(tables: Tables, *, bounds: str, negatives: int, sampling: str, seed: int) -> str:
    """The protocol and the sizes in Markdown, for a dataset card.

    Args:
        bounds: Which users are kept, as a phrase that follows "Users with".
    """
    sizes = "\n".join(
        f"| `{config}` | {split} | {len(rows)} |" for config, splits in tables.items() for split, rows in splits.items()
    )
    drawn = {"uniform": "uniformly", "popularity": "in proportion to their interactions of training users"}[sampling]
    return f"""\
| config | split | rows |
|---|---|---|
{sizes}

Protocol `paper` of [LLM-TRSR](https://arxiv.org/abs/2403.13325): users with {bounds}. A user's last item is the
`target`, the others are the `history`, oldest first. The `negatives` are {negatives} items a user, drawn {drawn} from
the items that are neither the target nor in the history. Users are divided by a hash of their ids; the seed is {seed}.

```python
from datasets import load_dataset

items = load_dataset("FOLDER_OR_REPO", "items", split="train")
test = load_dataset("FOLDER_OR_REPO", "histories", split="test")
```"""
