"""Which split a user stands in, and with which items: by users, leave-one-out, by a date, or as given.

A row asks for the last of a user's first so many items. That number, for each user and split, is what `leave_one_out`,
`by_date` and `as_given` return; fewer than 2 are no row.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trsr.dataset.build.column_types import moment
from trsr.dataset.build.sequences import Sequences, lengths
from trsr.dataset.contract import SPLITS
from trsr.dataset.time_units import parts_of_second
from trsr.errors import DataError

# Name -> how it divides, in words.
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
        dates: Of `date`, one or two: see `by_date`.
        unit: Of `date`: how many of the units of the times are a second; None as the size of most times tells.
        given: Of `given`: user id -> split, see `given_splits`.
    """

    split: str = "users"
    dates: tuple[str, ...] = ()
    unit: int | None = None
    given: Mapping[str, str] | None = None

    @property
    def within_users(self) -> bool:
        """Whether a user's own items are divided, so that the user stands in several splits."""
        return self.split in ("leave-one-out", "date")

    @property
    def least(self) -> int:
        """Items that a user needs: one is known and one found, or three are found after it."""
        return 4 if self.split == "leave-one-out" else 2

    def divide(
        self, sequences: Sequences, hashed: np.ndarray, sizes: Mapping[str, int | None]
    ) -> dict[str, tuple[np.ndarray, Sequences]]:
        """Who stands in which split.

        Args:
            hashed: Of the users, as `hashes` gives them.
            sizes: Split -> number of users, those whose hash is lowest; None for all, or a twelfth of `users`.

        Returns:
            Split -> places of the users in the order of the hash, and their items in that split, the target last.

        Raises:
            DataError: If a split would be empty, or has fewer users than asked for.
        """
        if self.split == "users":
            return {split: (places, sequences.take(places)) for split, places in split_users(hashed, **sizes).items()}
        if self.split == "leave-one-out":
            ends = leave_one_out(sequences)
        elif self.split == "date":
            ends = by_date(sequences, self.dates, self.unit)
        else:
            ends = as_given(sequences, self.given or {})
        order, made = hash_order(hashed), {}
        for split in SPLITS:
            fits = order[ends[split][order] > 1]
            wanted = sizes.get(split)
            if len(fits) < (1 if wanted is None else max(wanted, 1)):
                raise DataError(
                    f"The split {split} has {len(fits)} users, {wanted or 'at least 1'} needed. Give more users, or other "
                    "sizes."
                )
            places = fits[:wanted]
            made[split] = places, sequences.take(places).between(np.zeros(len(places), int), ends[split][places])
        return made


def hashes(users: pa.StringArray, seed: int) -> np.ndarray:
    """A seeded SHA-256 of each user's id, uint64 (users, 4): what divides users, and what their draws start from."""
    found = (
        hashlib.sha256(f'["split", {seed}, {json.dumps(user_id)}]'.encode()).digest() for user_id in users.to_pylist()
    )
    return np.frombuffer(b"".join(found), ">u8").astype(np.uint64).reshape(-1, 4)


def hash_order(hashed: np.ndarray) -> np.ndarray:
    """Places of users in the order of their hashes."""
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
        hashed: As `hashes` gives them.
        validation: Number of users; default a twelfth, at least one.
        test: As `validation`. Who is in test does not change with the sizes of the other splits.
        train: Default all others; with a number, the rest is left out.

    Returns:
        Split -> places in `hashed`, in the order of the hash.

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
    """Every user in all splits: the last item is asked for in test, the one before in validation, then train.

    Returns:
        Split -> number of items, int (users,).

    Reference:
        SASRec (arXiv 1808.09781); `LS: valid_and_test` of RecBole, `leave_n_out: 1` of Elliot.
    """
    counts = lengths(sequences.items)
    return {"train": counts - 2, "validation": counts - 1, "test": counts}


def by_date(sequences: Sequences, dates: Sequence[str], unit: int | None = None) -> dict[str, np.ndarray]:
    """Targets from a date on are test; `fixed_timestamp` of Elliot.

    With two dates, those between them are validation, and training ends before the first. With one, the item before it is
    validation, and the one before that is the target of training.

    Args:
        dates: One or two, rising: ISO 8601, or numbers as in the log. The log may be in milliseconds.
        unit: See `Division`.

    Returns:
        Split -> number of items, int (users,).

    Raises:
        DataError: If the log has no times, or a date is none.
    """
    if sequences.times is None:
        raise DataError("A split by date needs the time of each interaction: give --time.")
    counts = lengths(sequences.items)
    owner = np.repeat(np.arange(len(counts)), counts)
    times = sequences.times.values.to_numpy()
    unit = unit or parts_of_second(times)
    moments = [_as_logged(date, unit) for date in dates]
    if not 1 <= len(moments) <= 2 or moments != sorted(set(moments)):
        raise DataError(f"--split-date takes one date, or two of which the second is later; got {','.join(dates)}.")
    *first, last = (np.bincount(owner[times < one], minlength=len(counts)) for one in moments)
    made = {"train": last - 1, "validation": last}
    if first:
        made = {"train": first[0], "validation": np.where(last > first[0], first[0] + 1, 0)}
    made["test"] = np.where(counts > last, last + 1, 0)
    if empty := [split for split, ends in made.items() if not (ends > 1).any()]:
        log = [np.datetime64(int(one // unit), "s") for one in (times.min(), times.max())]
        raise DataError(
            f"No user has a row for {' and '.join(empty)} with --split-date {','.join(dates)}: a target and an item before "
            f"it. The log is from {log[0]} to {log[1]}. Give a date between, or two that lie further apart."
        )
    return made


def _as_logged(date: str, unit: int) -> float:
    found = moment(date)
    if found is None:
        raise DataError(
            f"--split-date takes ISO 8601 dates, such as 2003-01-31, or numbers as in the log; got {date!r}."
        )
    return found if _is_number(date) else found * unit


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_given(sequences: Sequences, given: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The split that is given for each user.

    Args:
        given: User id -> split, as `given_splits` reads them.

    Returns:
        Split -> number of items, int (users,).
    """
    counts = lengths(sequences.items)
    named = np.array([given.get(user, "") for user in sequences.users.to_pylist()], str)
    return {split: np.where(named == split, counts, 0) for split in SPLITS}


def given_splits(users: pa.Array, names: pa.Array) -> dict[str, str]:
    """User id -> split, from columns; rows without a split do not count.

    Raises:
        DataError: If a name is no split, or a user has two.
    """
    pairs = pa.table({"user": users, "split": names}).group_by(["user", "split"]).aggregate([])
    found: dict[str, str] = {}
    for user, name in zip(pairs["user"].to_pylist(), pairs["split"].to_pylist(), strict=True):
        if name is None:
            continue
        split = NAMES.get(name.lower())
        if split is None:
            raise DataError(f"User {user!r}: {name!r} is no split; expected {', '.join(NAMES)}.")
        if found.setdefault(user, split) != split:
            raise DataError(
                f"User {user!r} stands in {found[user]} and in {split}; where a split is given, a user has one. To divide "
                "each user's own items, give --split leave-one-out or --split-date."
            )
    return found
