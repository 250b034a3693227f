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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa
from datasets import Dataset

from trsr.data import HISTORIES, DataError, Tables

# Name -> how it draws, in words.
SAMPLINGS = {
    "uniform": "uniformly from the catalogue",
    "popularity": "in proportion to the interactions of training users",
}
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
        return hashlib.sha256(f'["split", {seed}, {json.dumps(user_id)}]'.encode()).digest()

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
    _ends: tuple[int, ...] | None = field(init=False, repr=False)  # None where all weigh 1

    def __post_init__(self) -> None:
        if len(self.items) != len(self.weights) or any(weight < 1 for weight in self.weights):
            raise ValueError("A pool needs one positive weight an item.")
        even = all(weight == 1 for weight in self.weights)
        object.__setattr__(self, "_ends", None if even else tuple(accumulate(self.weights)))

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
        if self._ends is None:
            return self.items[int(place * len(self.items))]
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
    rng = random.Random(f'["negatives", {seed}, {json.dumps(user_id)}]')
    chances = [rng.random() for _ in range(count)]
    closed, misses = set(items), 0
    if pool.items:
        drawn = [pool.draw(chance) for chance in chances]
        if len(closed.union(drawn)) == len(closed) + count:  # nearly always
            return drawn
    negatives: list[str] = []
    while len(negatives) < count:
        if not pool.items:
            raise DataError(
                f"User {user_id!r}: the catalogue is too small, it has {len(negatives)} items for {count} negatives "
                f"({sampling} sampling) beside the user's own. Give more items, or ask for fewer negatives."
            )
        item_id = pool.draw(chances.pop(0) if chances else rng.random())
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
    known, drawn = [], []
    for user_id in users:
        known.append(user_id)
        mine = sequences[user_id]
        drawn.append(sample_negatives(user_id, mine, pool, count=negatives, seed=seed, sampling=sampling))
    past = [sequences[user_id][:-1] for user_id in known]
    targets = [sequences[user_id][-1] for user_id in known]
    # Straight to columns: `from_dict` would look at every value once more.
    return Dataset(pa.table([known, past, targets, drawn], schema=HISTORIES.arrow_schema))


def paper(
    sequences: Mapping[str, Sequence[str]],
    catalogue: Collection[str],
    *,
    shortest: int = 11,
    longest: int = 26,
    keep_last: bool = False,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    negatives: int = 20,
    sampling: str = "uniform",
    seed: int = 0,
    watch: Callable[[list[str], str], Iterable[str]] = lambda users, split: users,
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """The whole protocol: keep users, divide them, draw negatives.

    Args:
        sequences: User id -> item ids, oldest first.
        catalogue: Ids of all items.
        sampling: `uniform`, or `popularity`: in proportion to what training users met. Users and splits are the same.
        watch: Passes on the users of a split as they are worked on: a progress bar.

    Returns:
        Split -> rows of the config `histories`, and counts of users.

    Raises:
        DataError: As the steps do.
    """
    if sampling not in SAMPLINGS:
        raise DataError(f"Unknown negative sampling {sampling!r}; expected {' or '.join(SAMPLINGS)}.")
    kept = keep_users(sequences, shortest=shortest, longest=longest, keep_last=keep_last)
    splits = split_users(kept.sequences, validation=validation, test=test, train=train, seed=seed)
    pool = Pool.uniform(catalogue)
    if sampling == "popularity":
        pool = Pool.popular(kept.sequences[user_id] for user_id in splits["train"])
    made = {
        split: histories(watch(users, split), kept.sequences, pool, negatives=negatives, seed=seed, sampling=sampling)
        for split, users in splits.items()
    }
    used = sum(map(len, splits.values()))
    counts = {
        "users_read": len(sequences),
        "users_dropped_short": kept.short,
        "users_dropped_long": kept.long,
        "users_cut_to_newest": kept.cut,
        "users_in_no_split": len(kept.sequences) - used,
        "users_kept": used,
        "targets_in_own_history": sum(
            kept.sequences[user_id][-1] in kept.sequences[user_id][:-1]
            for users in splits.values()
            for user_id in users
        ),
    }
    return made, counts


USE = """\
```python
from datasets import load_dataset

items = load_dataset("FOLDER_OR_REPO", "items", split="train")
test = load_dataset("FOLDER_OR_REPO", "histories", split="test")
```"""


def sizes(tables: Tables) -> str:
    """Rows of each split as a Markdown table."""
    lines = (
        f"| `{config}` | {split} | {len(rows)} |" for config, splits in tables.items() for split, rows in splits.items()
    )
    return "\n".join(["| config | split | rows |", "|---|---|---|", *lines])


def describe(tables: Tables, *, users: str, negatives: int, sampling: str, seed: int) -> str:
    """Sizes, protocol and use in Markdown, for a dataset card.

    Args:
        users: Which users are kept, a phrase: "users with 11 to 26 items".
    """
    return f"""\
{sizes(tables)}

Protocol `paper` of [LLM-TRSR](https://arxiv.org/abs/2403.13325): {users}.
A user's last item is the `target`, the others are the `history`, oldest first. The `negatives` are {negatives} items a
user, drawn {SAMPLINGS[sampling]},
never the target nor an item of the history. Users are divided by a hash of their ids. The seed is {seed}.

{USE}"""
