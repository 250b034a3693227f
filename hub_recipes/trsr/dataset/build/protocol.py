"""The protocol `paper`: what of a user's items is kept, who is in which split, which negatives a user gets.

Every choice follows from the seed and from ids, never from the order of rows: the same users get the same split and
negatives wherever and however often a dataset is made. Knows nothing of files.

Reference:
    LLM-TRSR (arXiv 2403.13325) and its code: users with 11 to 26 items, the last one is the target, 20 negatives.
    Unlike in that code, a negative is never an item of the user's history.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset

from trsr.dataset.build import negatives as drawing
from trsr.dataset.build.negatives import Pool
from trsr.dataset.build.sequences import Sequences, decode, lengths, lists, newest
from trsr.dataset.contract import HISTORIES, Tables, in_memory
from trsr.errors import DataError

# Name -> how it draws, in words.
SAMPLINGS = {
    "uniform": "uniformly from the catalogue",
    "popularity": "in proportion to the interactions of training users",
}
_PART = 1 << 16  # users in one chunk of a table: their texts stay far below 2 GB


@dataclass(frozen=True, slots=True)
class Kept:
    """The users a dataset is made of.

    Attributes:
        sequences: What they met; the last item is the target.
        short: Users left out for too few items.
        long: Users left out for too many.
        cut: Users kept with their newest items only.
    """

    sequences: Sequences
    short: int
    long: int
    cut: int


def keep_users(sequences: Sequences, *, shortest: int = 11, longest: int = 26, keep_last: bool = False) -> Kept:
    """Keep the users with `shortest` to `longest` items, the target counted.

    Args:
        keep_last: Keep the newest `longest` items of a longer user instead of leaving the user out.

    Raises:
        DataError: If the bounds make no sense, or no user is left.
    """
    if not 2 <= shortest <= longest:
        raise DataError(
            f"A user needs at least 2 items, one to know and one to find, and the minimum cannot exceed the maximum: "
            f"got {shortest} to {longest}."
        )
    counts = lengths(sequences.items)
    fits = (counts >= shortest) & (keep_last | (counts <= longest))
    short, long = int((counts < shortest).sum()), int((counts > longest).sum())
    if not fits.any():
        hint = "" if keep_last or not long else " Or keep the newest items of long users (--keep-last)."
        raise DataError(
            f"No user is left of {len(sequences)}: {short} have fewer than {shortest} items, {long} more than "
            f"{longest}. Give longer histories or other bounds.{hint}"
        )
    kept = sequences.take(np.flatnonzero(fits))
    if keep_last:
        kept = Sequences(kept.users, newest(kept.items, longest), kept.catalogue)
    return Kept(kept, short, 0 if keep_last else long, long if keep_last else 0)


def hashes(users: pa.StringArray, seed: int) -> np.ndarray:
    """A seeded SHA-256 of each user's id, uint64 (users, 4): what divides users, and what their draws start from."""
    found = (
        hashlib.sha256(f'["split", {seed}, {json.dumps(user_id)}]'.encode()).digest() for user_id in users.to_pylist()
    )
    return np.frombuffer(b"".join(found), ">u8").astype(np.uint64).reshape(-1, 4)


def split_users(
    hashed: np.ndarray,
    *,
    validation: int | None = None,
    test: int | None = None,
    train: int | None = None,
) -> dict[str, np.ndarray]:
    """Divide users by the hashes of their ids.

    Args:
        hashed: As `hashes` gives them.
        validation: Number of users; default a twelfth, at least one.
        test: As `validation`. Who is in test does not change with the sizes of the other splits.
        train: Default all others; with a number, the rest is left out.

    Returns:
        Split -> places in `hashed`, in the order of the hash.

    Raises:
        DataError: If a split would be empty, or there are too few users.
    """
    order = np.lexsort(hashed.T[::-1])
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


def histories(
    sequences: Sequences, keys: np.ndarray, pool: Pool, *, negatives: int = 20, sampling: str = "uniform"
) -> Dataset:
    """Rows of the config `histories`, one a user: the last item is the target.

    Args:
        keys: What each user's draws start from, uint64 (users,).

    Raises:
        DataError: If `negatives` is below 1, or the pool has too few items that a user has not met.
    """
    if negatives < 1:
        raise DataError(f"A target needs at least 1 negative to be ranked against, got {negatives}.")
    drawn = drawing.draw(sequences, keys, pool, negatives, sampling)
    return in_memory(
        pa.concat_tables(
            _rows(sequences.take(np.arange(start, min(start + _PART, len(drawn)))), drawn[start : start + _PART])
            for start in range(0, len(drawn), _PART)
        )
    )


def _rows(sequences: Sequences, drawn: np.ndarray) -> pa.Table:
    ids, items = sequences.catalogue, sequences.items.values
    last = sequences.items.offsets.to_numpy()[1:] - 1
    past = lists(lengths(sequences.items) - 1, items.take(pa.array(np.delete(np.arange(len(items)), last))))
    negatives = lists(np.full(len(drawn), drawn.shape[1]), pa.array(drawn.ravel()))
    columns = [sequences.users, decode(past, ids), ids.take(items.take(pa.array(last))), decode(negatives, ids)]
    return pa.table(columns, schema=HISTORIES.arrow_schema)


def _repeated_targets(sequences: Sequences) -> int:
    """Users whose target stands in their history."""
    items, ends = sequences.items.values.to_numpy(), sequences.items.offsets.to_numpy()
    same = items == np.repeat(items[ends[1:] - 1], np.diff(ends))
    return int((np.add.reduceat(same, ends[:-1], dtype=int) > 1).sum())


def paper(
    sequences: Sequences,
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
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """The whole protocol: keep users, divide them, draw negatives.

    Args:
        sampling: `uniform`, or `popularity`: in proportion to what training users met. Users and splits are the same.

    Returns:
        Split -> rows of the config `histories`, and counts of users.

    Raises:
        DataError: As the steps do.
    """
    if sampling not in SAMPLINGS:
        raise DataError(f"Unknown negative sampling {sampling!r}; expected {' or '.join(SAMPLINGS)}.")
    kept = keep_users(sequences, shortest=shortest, longest=longest, keep_last=keep_last)
    hashed = hashes(kept.sequences.users, seed)
    places = split_users(hashed, validation=validation, test=test, train=train)
    splits = {split: kept.sequences.take(some) for split, some in places.items()}
    pool = Pool.popular(splits["train"]) if sampling == "popularity" else Pool.uniform(len(sequences.catalogue))
    made = {
        # The order of users is that of the hash's first bits; its last ones have no part in it.
        split: histories(users, hashed[places[split], -1], pool, negatives=negatives, sampling=sampling)
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
        "targets_in_own_history": sum(map(_repeated_targets, splits.values())),
    }
    return made, counts


def in_words(shortest: int, longest: int, keep_last: bool) -> str:
    """Which users are kept, as a phrase."""
    if keep_last:
        return f"users with at least {shortest} items, of which the newest {longest} are used"
    return f"users with {shortest} to {longest} items"


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
        users: Which users are kept, see `in_words`.
    """
    return f"""\
{sizes(tables)}

Protocol `paper` of [LLM-TRSR](https://arxiv.org/abs/2403.13325): {users}.
A user's last item is the `target`, the others are the `history`, oldest first. The `negatives` are {negatives} items a
user, drawn {SAMPLINGS[sampling]},
never the target nor an item of the history. Users are divided by a hash of their ids. The seed is {seed}.

{USE}"""
