"""Divide users, or each user's items, into splits: by users, leave-one-out, by a date, or as given.

A row of a split is a prefix of a user's items, of which the last one is the target. `leave_one_out`, `by_date` and `as_given`
return the length of that prefix for each user and split; below 2 there is no row.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trsr.dataset.build.column_types import timestamp_of
from trsr.dataset.build.sequences import Sequences, lengths
from trsr.dataset.contract import SPLITS
from trsr.dataset.time_units import parts_of_second
from trsr.errors import DataError

# Name -> description.
KINDS = {
    "users": "Users are divided by a hash of their ids.",
    "leave-one-out": "`test` asks for a user's last item, `validation` for the one before it, `train` for the one before "
    "that. A user may stand in all splits.",
    "date": "`test` asks for each user's first item from the date on. A user may stand in all splits.",
    "given": "The source says which split a user stands in.",
}
NAMES = {**{split: split for split in SPLITS}, "valid": "validation", "val": "validation", "dev": "validation"}


@dataclass(frozen=True, slots=True)
class Division:
    """How users are divided.

    Attributes:
        split: One of KINDS.
        dates: For `date`: one or two, see `by_date`.
        unit: For `date`: units of the times per second; None guesses it from the size of most times.
        given: For `given`: user id -> split, see `given_splits`.
    """

    split: str = "users"
    dates: tuple[str, ...] = ()
    unit: int | None = None
    given: Mapping[str, str] | None = None

    @property
    def within_users(self) -> bool:
        """Whether each user's items are divided, so that a user is in several splits."""
        return self.split in ("leave-one-out", "date")

    @property
    def min_items(self) -> int:
        """Smallest number of items of a user: one for the history, and one target, or three for leave-one-out."""
        return 4 if self.split == "leave-one-out" else 2

    def divide(
        self, sequences: Sequences, hashed: np.ndarray, sizes: Mapping[str, int | None]
    ) -> dict[str, tuple[np.ndarray, Sequences]]:
        """Divide users, or their items, into splits.

        Args:
            hashed: Hashes of the users, see `hashes`.
            sizes: Split -> number of users, those with the lowest hashes; None is all users, or a twelfth for `users`.

        Returns:
            Split -> indices of its users in the order of the hash, and their items in that split, the target last.

        Raises:
            DataError: If a split would be empty, or has fewer users than wanted.
        """
        if self.split == "users":
            return {split: (users, sequences.take(users)) for split, users in split_users(hashed, **sizes).items()}
        if self.split == "leave-one-out":
            prefix_lengths = leave_one_out(sequences)
        elif self.split == "date":
            prefix_lengths = by_date(sequences, self.dates, self.unit)
        else:
            prefix_lengths = as_given(sequences, self.given or {})
        order, divided = hash_order(hashed), {}
        for split in SPLITS:
            eligible = order[prefix_lengths[split][order] > 1]
            wanted = sizes.get(split)
            if len(eligible) < (1 if wanted is None else max(wanted, 1)):
                raise DataError(
                    f"The split {split} has {len(eligible)} users, {wanted or 'at least 1'} needed. Give more users, or other "
                    "sizes."
                )
            indices = eligible[:wanted]
            starts = np.zeros(len(indices), int)
            divided[split] = indices, sequences.take(indices).between(starts, prefix_lengths[split][indices])
        return divided


def hashes(users: pa.StringArray, seed: int) -> np.ndarray:
    """A seeded SHA-256 of each user's id, uint64 (users, 4). It divides users, and is the seed of their negatives."""
    digests = (
        hashlib.sha256(f'["split", {seed}, {json.dumps(user_id)}]'.encode()).digest() for user_id in users.to_pylist()
    )
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 4)


def hash_order(hashed: np.ndarray) -> np.ndarray:
    """Indices of users in the order of their hashes."""
    return np.lexsort(hashed.T[::-1])


def split_users(
    hashed: np.ndarray,
    *,
    validation: int | None = None,
    test: int | None = None,
    train: int | None = None,
) -> dict[str, np.ndarray]:
    """Divide users by the hashes of their ids.

    Args:
        hashed: Hashes of the users, see `hashes`.
        validation: Number of users; default a twelfth, at least one.
        test: As `validation`. The test users do not depend on the sizes of the other splits.
        train: Number of users; default all others. With a number, the remaining users are left out.

    Returns:
        Split -> indices of its users, in the order of the hash.

    Raises:
        DataError: If a split would be empty, or there are too few users.
    """
    order = hash_order(hashed)
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


def leave_one_out(sequences: Sequences) -> dict[str, np.ndarray]:
    """Every user is in all splits: the last item is the target of test, the one before of validation, then of train.

    Returns:
        Split -> length of the prefix that is a row, int (users,).

    Reference:
        SASRec (arXiv 1808.09781); `LS: valid_and_test` of RecBole, `leave_n_out: 1` of Elliot.
    """
    counts = lengths(sequences.items)
    return {"train": counts - 2, "validation": counts - 1, "test": counts}


def by_date(sequences: Sequences, dates: Sequence[str], unit: int | None = None) -> dict[str, np.ndarray]:
    """Each user's first item from a date on is the target of test; `fixed_timestamp` of Elliot.

    With two dates, the first item between them is the target of validation, and training uses items before the first date. With
    one date, the last item before it is the target of validation, and the one before that of training.

    Args:
        dates: One or two in rising order: ISO 8601, or numbers in the unit of the log.
        unit: See `Division`.

    Returns:
        Split -> length of the prefix that is a row, int (users,).

    Raises:
        DataError: If the log has no times, or a date is not valid.
    """
    if sequences.times is None:
        raise DataError("A split by date needs the time of each interaction: give --time.")
    counts = lengths(sequences.items)
    owner = np.repeat(np.arange(len(counts)), counts)
    times = sequences.times.values.to_numpy()
    unit = unit or parts_of_second(times)
    timestamps = [_in_log_units(date, unit) for date in dates]
    if not 1 <= len(timestamps) <= 2 or timestamps != sorted(set(timestamps)):
        raise DataError(f"--split-date takes one date, or two of which the second is later; got {','.join(dates)}.")
    *first, last = (np.bincount(owner[times < timestamp], minlength=len(counts)) for timestamp in timestamps)
    prefix_lengths = {"train": last - 1, "validation": last}
    if first:
        prefix_lengths = {"train": first[0], "validation": np.where(last > first[0], first[0] + 1, 0)}
    prefix_lengths["test"] = np.where(counts > last, last + 1, 0)
    if empty := [split for split, lengths_of_rows in prefix_lengths.items() if not (lengths_of_rows > 1).any()]:
        log = [np.datetime64(int(time // unit), "s") for time in (times.min(), times.max())]
        raise DataError(
            f"No user has a row for {' and '.join(empty)} with --split-date {','.join(dates)}: a target and an item before "
            f"it. The log is from {log[0]} to {log[1]}. Give a date between, or two that lie further apart."
        )
    return prefix_lengths


def _in_log_units(date: str, unit: int) -> float:
    timestamp = timestamp_of(date)
    if timestamp is None:
        raise DataError(
            f"--split-date takes ISO 8601 dates, such as 2003-01-31, or numbers as in the log; got {date!r}."
        )
    return timestamp if _is_number(date) else timestamp * unit


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_given(sequences: Sequences, given: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Each user, with all items, is in the given split.

    Args:
        given: User id -> split, see `given_splits`.

    Returns:
        Split -> length of the prefix that is a row, int (users,).

    Raises:
        DataError: If no user is given a split.
    """
    counts = lengths(sequences.items)
    named = np.array([given.get(user, "") for user in sequences.users.to_pylist()], str)
    if given and not (named != "").any():
        raise DataError(
            f"No user that is kept is given a split: ids are as {sequences.users[0].as_py()!r} in the interactions, and as "
            f"{next(iter(given))!r} where splits are named. Write them alike, or keep more users (--min-history)."
        )
    return {split: np.where(named == split, counts, 0) for split in SPLITS}


def given_splits(users: pa.Array, names: pa.Array) -> dict[str, str]:
    """User id -> split, from two columns; rows without a split are ignored.

    Raises:
        DataError: If a name is not a split, or a user has two splits.
    """
    pairs = pa.table({"user": users, "split": names}).group_by(["user", "split"]).aggregate([])
    split_of_user: dict[str, str] = {}
    for user, name in zip(pairs["user"].to_pylist(), pairs["split"].to_pylist(), strict=True):
        if name is None:
            continue
        split = NAMES.get(name.lower())
        if split is None:
            raise DataError(f"User {user!r}: {name!r} is no split; expected {', '.join(NAMES)}.")
        if split_of_user.setdefault(user, split) != split:
            raise DataError(
                f"User {user!r} stands in {split_of_user[user]} and in {split}; where a split is given, a user has one. To divide "
                "each user's own items, give --split leave-one-out or --split-date."
            )
    return split_of_user
