"""Read the scores of several evaluations, and align them by user and candidate, which must be the same in all."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trsr.errors import CompareError
from trsr.recommender import results
from trsr.recommender.controls import system_name
from trsr.recommender.results import training_seed
from trsr.recommender.scores import KEYS, ROW, SCORES_FILE
from trsr.recommender.system_names import why_taken

NEEDED = ("run", "dataset", "split", "protocol", "systems")  # in results.json


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores and results of one evaluation.

    Attributes:
        folder: For messages.
        about: Content of results.json.
        own: Name of the evaluated run; the other systems are its baselines.
        users: Sorted. User id of each row or, if users have several rows in the data, `row_name`.
        owners: User id of each row.
        items: Item id of each row, sorted within a user.
        labels: True where a row is a positive.
        systems: Name -> score of each row.
        validation: Folder of the same run's evaluation on the validation split, if the source names one.
    """

    folder: str
    about: Mapping[str, Any]
    own: str
    users: np.ndarray
    owners: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    systems: dict[str, np.ndarray]
    validation: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Scores of several systems on the same candidates.

    Attributes:
        users: As in `Evaluation`, each once.
        owners: User id of each of them.
        targets: Item id of a positive of each.
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
    """Name of a row of the data, if users have several rows."""
    return f"{user_id} (row {row})"


def read(source: str) -> Evaluation:
    """Read an evaluation that `trsr evaluate` or baselines.py wrote.

    Args:
        source: A folder, or NAME=FOLDER, which renames its run to NAME; behind a comma may follow the folder of its evaluation on
            the validation split.

    Raises:
        CompareError: If a file or column is missing, a candidate occurs twice, or a score is not finite.
    """
    name, _, folder_part = source.partition("=")
    renamed, folder = (name, folder_part) if folder_part and not Path(source).exists() else (None, source)
    if Path(folder).exists() or "," not in folder:
        return read_folder(Path(folder), renamed)
    # Names of folders may hold commas too.
    pieces = folder.split(",")
    pairs = [(",".join(pieces[:cut]), ",".join(pieces[cut:])) for cut in range(1, len(pieces))]
    tested, validation = next((pair for pair in pairs if all(Path(part).exists() for part in pair)), pairs[-1])
    return replace(read_folder(Path(tested), renamed), validation=validation)


def read_folder(folder: Path, renamed: str | None = None) -> Evaluation:
    """Read the evaluation in a folder, its run renamed. Raises CompareError as `read` does.

    A control is named so, as `controls.system_name` does, unless it is renamed.
    """
    for file in (SCORES_FILE, results.RESULTS_FILE):
        if not (folder / file).is_file():
            raise CompareError(f"No {file} in {folder}. Make it: trsr evaluate RUN, or hub_recipes/baselines.py.")
    try:
        about = results.load(folder)
        table = pq.read_table(folder / SCORES_FILE)
    except (ValueError, pa.ArrowException) as error:
        raise CompareError(f"{folder} cannot be read: {error}. Make it again.") from None
    lacking = [key for key in KEYS if key not in table.column_names]
    lacking += [f"{key} (in {results.RESULTS_FILE})" for key in NEEDED if about.get(key) is None]
    if lacking:
        raise CompareError(f"{folder} lacks {', '.join(lacking)}. Make it again: trsr evaluate RUN")
    if renamed and renamed not in (about["run"], system_name(about)):
        taken = "another system in it" if renamed in table.column_names else why_taken(renamed)
        if taken:
            raise CompareError(f"{folder} cannot be called {renamed!r}, which is {taken}. Choose another NAME=.")
    renamed = renamed or system_name(about)
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
            scores = np.array(table[column].to_pylist(), dtype=float)[order]
            if broken := int((~np.isfinite(scores)).sum()):
                raise CompareError(f"{folder}: {broken} scores of {column!r} are not finite numbers. Make them again.")
            systems[renamed if column == about["run"] else column] = scores
    return Evaluation(str(folder), about, renamed, users, owners, items, labels[order].astype(bool), systems)


def align(evaluations: Sequence[Evaluation]) -> Aligned:
    """Align evaluations. Runs with the same name and config count as seeds of one system.

    Raises:
        CompareError: If users, candidates or targets differ, or systems share a name but are not seeds of one run.
    """
    if not evaluations:
        raise CompareError("Nothing to compare. Give folders that trsr evaluate wrote.")
    first = evaluations[0]
    for other in evaluations[1:]:
        check_same(first, other)
    users, first_rows, counts = np.unique(first.users, return_index=True, return_counts=True)
    mask = np.arange(counts.max()) < counts[:, None]
    labels = np.zeros(mask.shape, dtype=bool)
    labels[mask] = first.labels
    targets = dict(zip(first.users[first.labels], first.items[first.labels], strict=True))
    if lacking := [user for user in users if user not in targets]:
        raise CompareError(f"{first.folder}: user {str(lacking[0])!r} has no positive among the candidates.")
    seeds: dict[str, list[np.ndarray]] = {}
    about: dict[str, list[Mapping[str, Any]]] = {}
    holders: dict[str, Evaluation] = {}
    runs = {evaluation.own for evaluation in evaluations}
    for evaluation in evaluations:
        for name, scores in evaluation.systems.items():
            if name in runs and name != evaluation.own:
                continue  # skip a baseline that has an evaluation of its own
            table = np.zeros(mask.shape)
            table[mask] = scores
            before = holders.setdefault(name, evaluation)
            if any(np.array_equal(table, seed) for seed in seeds.get(name, [])):
                continue
            training_seeds = {training_seed(record) for record in about.get(name, [])} - {None}
            if before is not evaluation and (
                name != evaluation.own
                or not _of_one_run(before.about, evaluation.about)
                or training_seed(evaluation.about) in training_seeds
            ):
                raise CompareError(
                    f"{before.folder} and {evaluation.folder} both hold {name!r}, and are not two seeds of one run: "
                    "their settings or data differ, or their training seed is the same. "
                    f"Rename one of them (NAME={evaluation.folder}), or leave it out."
                )
            seeds.setdefault(name, []).append(table)
            about.setdefault(name, []).append(evaluation.about)
    target_ids = [str(targets[user]) for user in users]
    return Aligned(users.tolist(), first.owners[first_rows].tolist(), target_ids, labels, mask, seeds, about)


def on_shared_users(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same evaluations, each with the users (or rows of the data) alone that all of them hold.

    Raises:
        CompareError: If there is no such user.
    """
    shared = functools.reduce(np.intersect1d, (evaluation.users for evaluation in evaluations))
    if not len(shared):
        raise CompareError(
            f"No user is in all of {', '.join(evaluation.folder for evaluation in evaluations)}. Give evaluations that share users."
        )
    return [_only(evaluation, shared) for evaluation in evaluations]


def _only(evaluation: Evaluation, users: np.ndarray) -> Evaluation:
    mask = np.isin(evaluation.users, users)
    rows = {name: getattr(evaluation, name)[mask] for name in ("users", "owners", "items", "labels")}
    return replace(evaluation, **rows, systems={name: scores[mask] for name, scores in evaluation.systems.items()})


def _of_one_run(about: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations can be of two seeds of one system: made with the same settings, shown the same summaries and
    histories, both with an adapter or both without."""
    return results.same_settings(about, other) and _shown(about) == _shown(other)


def _shown(about: Mapping[str, Any]) -> tuple:
    without_adapter = "weights" in about and about["weights"] is None
    return bool(about.get("shuffled_summaries")), about.get("history"), without_adapter


def check_same(first: Evaluation, other: Evaluation) -> None:
    """Raise CompareError if two evaluations differ in split, users, candidates or targets; names the first difference."""
    if difference := _difference(first, other):
        first_name, other_name = (
            f"{evaluation.folder} (dataset {evaluation.about['dataset']})" for evaluation in (first, other)
        )
        raise CompareError(
            f"{first_name} and {other_name} {difference}. Systems are compared on the same candidates: evaluate both on one dataset, "
            "split and limit. Where one holds users that another lacks: --shared-users compares those that all hold."
        )


def _difference(first: Evaluation, other: Evaluation) -> str | None:
    splits = first.about["split"], other.about["split"]
    if splits[0] != splits[1]:
        return f"are of the splits {splits[0]} and {splits[1]}"
    if not (np.array_equal(first.users, other.users) and np.array_equal(first.items, other.items)):
        mine, theirs = set(first.users.tolist()), set(other.users.tolist())
        if not mine & theirs:
            return "share no user"
        for complete, incomplete, lacking in ((first, other, mine - theirs), (other, first, theirs - mine)):
            if lacking:
                message = f"{incomplete.folder} lacks {len(lacking)} of {complete.folder}, such as {min(lacking)!r}"
                return f"differ in their users: {message}"
        pairs = [
            set(zip(evaluation.users.tolist(), evaluation.items.tolist(), strict=True)) for evaluation in (first, other)
        ]
        differing_users = {user for user, _ in pairs[0] ^ pairs[1]}
        return f"differ in the candidates of {len(differing_users)} users, such as {min(differing_users)!r}"
    if (changed := first.labels != other.labels).any():
        return f"differ in the target of user {str(first.users[changed][0])!r}"
    return None
