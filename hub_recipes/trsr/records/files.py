"""Write files and folders atomically, bind a work folder to its settings, and allow one writer at a time."""

import functools
import hashlib
import inspect
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from huggingface_hub.constants import HF_HOME

from trsr.errors import UsageError

MADE_FROM = "made_from.json"
P = ParamSpec("P")
R = TypeVar("R")
_locked_here: set[str] = set()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a draft path to write; it replaces `path` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(_draft_name(path, f"{os.getpid()}-{threading.get_ident()}"))
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _draft_name(path: Path, writer: str) -> str:
    """A killed writer leaves its draft behind."""
    return f".{path.name}.{writer}.part"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, in ASCII and indented by two."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def beside(folder: Path, end: str) -> Path:
    """The path of `folder` with `end` behind its name, also for "." and the like, which have no name of their own."""
    folder = Path(os.path.abspath(folder))  # not resolved: a link has its neighbours where it lies
    return folder.with_name(folder.name + end)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UsageError if it is not valid JSON."""
    try:
        # Of bytes it finds out whether they are UTF-8 or UTF-16, with a mark or without.
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is no JSON file, or not whole: {error}. Make it again, or take a copy of it."
        ) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty draft folder to fill; it replaces `folder` and its content if the block ends without an error.

    The caller must check whether `folder` may be replaced.
    """
    folder = folder.resolve()  # so that the draft lies beside the real folder, also for "." and links
    draft, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    with locked(folder):  # so an existing draft was left by a killed process
        _restore(folder)
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


def _restore(folder: Path) -> None:
    """Put the old folder back if a process was killed after moving it and before its draft took its place."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def bind(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Bind a work folder to settings: it must be new or empty, or bound to the same settings. They are written into it.

    Args:
        made_from: Settings and checksums by name; values must be valid in JSON.

    Raises:
        UsageError: If it is bound to other settings, or holds files but no settings.
    """
    note, settings = folder / MADE_FROM, _as_json(made_from)
    if note.is_file():
        before = read_json(note)
        if changed := sorted(name for name in before | settings if before.get(name) != settings.get(name)):
            differences = "; ".join(f"{name} was {before.get(name)}, is {settings.get(name)}" for name in changed)
            raise UsageError(
                f"{folder} was made from something else: {differences}. Choose another folder, or remove it."
            )
    elif folder.exists() and not all(fnmatch(path.name, _draft_name(note, "*")) for path in folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and does not say what it was made from. Choose another, or remove it."
        )
    else:
        write_json(note, settings)


def is_bound(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether `bind` has bound a work folder to these settings."""
    note = folder / MADE_FROM
    return note.is_file() and read_json(note) == _as_json(made_from)


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from a file: a tuple becomes a list, for one."""
    return json.loads(json.dumps(settings))


def read_lines(path: Path | None) -> Iterator[Any]:
    """The JSON values in a file of lines; without the line that a kill cut off. None where there is no file."""
    for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        yield value


@contextmanager
def append_lines(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """Yield a function that appends a JSON value to a file as a line, for `read_lines`; one that does nothing if `path` is None."""
    if path is None:
        yield lambda value: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # A kill cut the last line off: the next would be joined to it, and lost.
                file.write(b"\n")

        def append(value: Any) -> None:
            file.write(json.dumps(value).encode("ascii") + b"\n")
            file.flush()

        yield append


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing `folder`. Reentrant within a process; the lock ends with the process.

    Raises:
        UsageError: If another process holds it.
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    # Processes that were launched together write together: the first one holds the lock for all.
    if name in _locked_here or os.environ.get("RANK", "0") != "0":
        yield
        return
    # Not beside the folder: its parent need not be ours to write to.
    path = Path(HF_HOME) / "trsr" / "locks" / name
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite uses file locks of the operating system, which end with the process, on Windows too.
            connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            lock = stack.enter_context(closing(connection))
            lock.execute("PRAGMA journal_mode=OFF")
            lock.execute("BEGIN EXCLUSIVE")
        except (OSError, sqlite3.OperationalError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise UsageError(
                    f"Another process is writing {folder}. Wait until it has ended, or choose another folder."
                ) from None
            # This file system has no locks, or HF_HOME cannot be written: go on without one.
        _locked_here.add(name)
        try:
            yield
        finally:
            _locked_here.discard(name)


def check_no_file(folder: Path) -> None:
    """Raise UsageError if a folder that is to be written is a file, or lies in one."""
    if file := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise UsageError(f"{file} is a file, where a folder is to be written. Choose another --out.")


def one_writer(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that writes the folder `out`, so that one process at a time can run it on a folder. What a killed one left
    half replaced is put back first.

    The function raises UsageError if `out` is a file, or lies in one.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        out = signature.bind(*args, **kwargs).arguments["out"]
        check_no_file(out)
        with locked(out):
            _restore(out.resolve())
            return function(*args, **kwargs)

    return alone
