"""Score files of several evaluations, put in one order. What they score must be the same candidates of the same users."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trsr.errors import CompareError
from trsr.recommender import results
from trsr.recommender.scores import FILE, KEYS, ROW

NEEDED = ("run", "dataset", "split", "protocol", "systems")  # in results.json


@dataclass(frozen=True, slots=True)
class Scored:
    """One evaluation.

    Attributes:
        place: The folder, for messages.
        about: Its results.json.
        own: The system that it is about; the others stand beside it.
        users: Who each row is of, sorted: a user, or a user's row of the data where users have several (`row_name`).
        owners: User id of each row.
        items: Item id of each row, sorted within a user.
        labels: Whether a row is a positive.
        systems: Name -> score of each row.
    """

    place: str
    about: Mapping[str, Any]
    own: str
    users: np.ndarray
    owners: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    systems: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Systems on the same candidates.

    Attributes:
        users: As in `Scored`, each once.
        owners: User id of each of them.
        targets: A positive of each.
        labels, mask: (users, candidates) bool; the mask says which cells hold a candidate.
        seeds: System -> the scores of each of its seeds, (users, candidates) each.
        about: System -> the results.json of each of its seeds.
    """

    users: list[str]
    owners: list[str]
    targets: list[str]
    labels: np.ndarray
    mask: np.ndarray
    seeds: dict[str, list[np.ndarray]]
    about: dict[str, list[Mapping[str, Any]]]


def row_name(user_id: str, row: int) -> str:
    """What a row of the data is called where users have several."""
    return f"{user_id} (row {row})"


def read(source: str) -> Scored:
    """Read what `trsr evaluate` or baselines.py wrote.

    Args:
        source: A folder, or NAME=FOLDER, which calls the folder's own run NAME.

    Raises:
        CompareError: If a file or column is missing, a candidate stands there twice, or a score is no number.
    """
    name, _, rest = source.partition("=")
    renamed, folder = (name, Path(rest)) if rest and not Path(source).exists() else (None, Path(source))
    for file in (FILE, results.FILE):
        if not (folder / file).is_file():
            raise CompareError(f"No {file} in {folder}. Make it: trsr evaluate RUN, or hub_recipes/baselines.py.")
    try:
        about = json.loads((folder / results.FILE).read_text(encoding="utf-8"))
        table = pq.read_table(folder / FILE)
    except (ValueError, pa.ArrowException) as error:
        raise CompareError(f"{folder} cannot be read: {error}. Make it anew.") from None
    lacking = [key for key in KEYS if key not in table.column_names]
    lacking += [f"{key} (in {results.FILE})" for key in NEEDED if about.get(key) is None]
    if lacking:
        raise CompareError(f"{folder} lacks {', '.join(lacking)}. Make it anew: trsr evaluate RUN")
    owners, items, labels = (np.array(table[key].to_pylist()) for key in KEYS)
    users = owners
    if ROW in table.column_names:
        rows = np.array(table[ROW].to_pylist())
        if len(np.unique(rows)) > len(np.unique(owners)):
            users = np.array([row_name(user, row) for user, row in zip(owners, rows, strict=True)])
    order = np.lexsort((items, users))
    users, owners, items = users[order], owners[order], items[order]
    if twice := np.flatnonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1])).tolist():
        raise CompareError(f"{folder}: user {str(users[twice[0]])!r} has candidate {str(items[twice[0]])!r} twice.")
    systems = {}
    for column in table.column_names:
        if column not in (ROW, *KEYS):
            made = np.array(table[column].to_pylist(), dtype=float)[order]
            if broken := int((~np.isfinite(made)).sum()):
                raise CompareError(f"{folder}: {broken} scores of {column!r} are not finite numbers. Make them anew.")
            systems[renamed if renamed and column == about["run"] else column] = made
    return Scored(
        str(folder), about, renamed or about["run"], users, owners, items, labels[order].astype(bool), systems
    )


def align(scored: Sequence[Scored]) -> Aligned:
    """Put evaluations side by side; runs of one name and config are the seeds of one system.

    Raises:
        CompareError: If users, candidates or targets differ, or systems of one name are no seeds of one run.
    """
    if not scored:
        raise CompareError("Nothing to compare. Give folders that trsr evaluate wrote.")
    first = scored[0]
    for other in scored[1:]:
        _check_same(first, other)
    users, places, counts = np.unique(first.users, return_index=True, return_counts=True)
    mask = np.arange(counts.max()) < counts[:, None]
    labels = np.zeros(mask.shape, dtype=bool)
    labels[mask] = first.labels
    targets = dict(zip(first.users[first.labels], first.items[first.labels], strict=True))
    if lacking := [user for user in users if user not in targets]:
        raise CompareError(f"{first.place}: user {str(lacking[0])!r} has no positive among the candidates.")
    seeds: dict[str, list[np.ndarray]] = {}
    about: dict[str, list[Mapping[str, Any]]] = {}
    known: dict[str, Scored] = {}
    runs = {one.own for one in scored}
    for one in scored:
        for name, made in one.systems.items():
            if name in runs and name != one.own:
                continue  # a peer beside a run gives way to an evaluation of its own
            table = np.zeros(mask.shape)
            table[mask] = made
            before = known.setdefault(name, one)
            if any(np.array_equal(table, seed) for seed in seeds.get(name, [])):
                continue
            if before is not one and (name != one.own or before.about.get("config") != one.about.get("config")):
                raise CompareError(
                    f"{before.place} and {one.place} both hold {name!r}, which differ and are no two seeds of one run. "
                    f"Call the run of one of them otherwise (NAME={one.place}), or leave it out."
                )
            seeds.setdefault(name, []).append(table)
            about.setdefault(name, []).append(one.about)
    wanted = [str(targets[user]) for user in users]
    return Aligned(users.tolist(), first.owners[places].tolist(), wanted, labels, mask, seeds, about)


def _check_same(first: Scored, other: Scored) -> None:
    """Raise CompareError with the first thing in which two evaluations differ."""
    if difference := _difference(first, other):
        one, two = (f"{each.place} (dataset {each.about['dataset']})" for each in (first, other))
        raise CompareError(
            f"{one} and {two} {difference}. Systems are compared on the same candidates: evaluate both on one dataset, "
            "split and limit."
        )


def _difference(first: Scored, other: Scored) -> str | None:
    splits = first.about["split"], other.about["split"]
    if splits[0] != splits[1]:
        return f"are of the splits {splits[0]} and {splits[1]}"
    if not (np.array_equal(first.users, other.users) and np.array_equal(first.items, other.items)):
        mine, theirs = set(first.users.tolist()), set(other.users.tolist())
        if not mine & theirs:
            return "share no user"
        for here, there, lacking in ((first, other, mine - theirs), (other, first, theirs - mine)):
            if lacking:
                lacks = f"{there.place} lacks {len(lacking)} of {here.place}, such as {min(lacking)!r}"
                return f"differ in their users: {lacks}"
        pairs = [set(zip(one.users.tolist(), one.items.tolist(), strict=True)) for one in (first, other)]
        odd = {user for user, _ in pairs[0] ^ pairs[1]}
        return f"differ in the candidates of {len(odd)} users, such as {min(odd)!r}"
    if (changed := first.labels != other.labels).any():
        return f"differ in the target of user {str(first.users[changed][0])!r}"
    return None
