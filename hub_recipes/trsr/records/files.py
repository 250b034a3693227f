"""Files and folders that are there whole or not at all, know what they were made from, and have one writer at a time."""

import functools
import hashlib
import inspect
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from huggingface_hub.constants import HF_HOME

from trsr.errors import UsageError

MADE_FROM = "made_from.json"
P = ParamSpec("P")
R = TypeVar("R")
_held: set[str] = set()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft to write; it takes the place of `path` where the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UsageError if it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{path} is no JSON file, or not whole: {error}. Make it anew, or take a copy of it."
        ) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty draft beside `folder` to fill; it takes its place, and all that it held, where the block ends without an error.

    Whether `folder` may be replaced is for the caller to know.
    """
    folder = folder.resolve()  # "." and links have a place beside them too
    draft, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    with locked(folder):  # so a draft that is there is one that a kill left
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            draft.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def bind(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Make sure that a work folder is free, or was begun with the same settings; they are noted there.

    Args:
        made_from: Settings and checksums, by name, as JSON can hold them.

    Raises:
        UsageError: If it was begun with others, or holds files and no such note.
    """
    note, now = folder / MADE_FROM, json.loads(json.dumps(made_from))
    if note.is_file():
        before = read_json(note)
        if changed := sorted(name for name in before | now if before.get(name) != now.get(name)):
            told = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)
            raise UsageError(f"{folder} was made from something else: {told}. Choose another folder, or remove it.")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and does not say what it was made from. Choose another, or remove it."
        )
    else:
        write_text(note, json.dumps(now, indent=2) + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing `folder`. A process that holds it already goes on; a killed one holds nothing.

    Raises:
        UsageError: If another process holds it.
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    # Processes that were launched together write together: the first one holds the lock for all.
    if name in _held or os.environ.get("RANK", "0") != "0":
        yield
        return
    # Not beside the folder: its parent need not be ours to write to.
    path = Path(HF_HOME) / "trsr" / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite locks a file by the means of the system, which end with the process, on Windows as elsewhere.
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)) as lock:
        try:
            lock.execute("PRAGMA journal_mode=OFF")
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise UsageError(
                    f"Another process is writing {folder}. Wait until it has ended, or choose another folder."
                ) from None
            # This file system has no locks: nothing is guarded there.
        _held.add(name)
        try:
            yield
        finally:
            _held.discard(name)


def one_writer(function: Callable[P, R]) -> Callable[P, R]:
    """Let one process at a time run a function that writes the folder `out`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with locked(signature.bind(*args, **kwargs).arguments["out"]):
            return function(*args, **kwargs)

    return alone
