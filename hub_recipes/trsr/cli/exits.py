"""Map errors to exit codes and one-line messages."""

import contextlib
import errno
import os
import select
import sys
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import TextIO

from trsr.errors import EngineError, HubError, TrsrError


class Exit(IntEnum):
    """Exit codes of `trsr`."""

    SUCCESS = 0
    PROBLEMS_FOUND = 1  # the command ran, and what it checked has problems
    USER_ERROR = 2  # in the command, a file or a service: the message says what to do
    SUMMARIES_MISSING = 3  # requests were written for another engine, and summaries are missing until it has answered
    DISK_FULL = 4
    BUG = 70  # with a traceback
    INTERRUPTED = 130  # Ctrl-C
    BROKEN_PIPE = 141  # the reader of the output closed it, as `| head` does


_DISK_FULL_CODES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DISK_FULL_PHRASES = ("No space left on device", "database or disk is full", "File too large", "Disk quota exceeded")


@contextlib.contextmanager
def exit_codes_for_errors() -> Iterator[None]:
    """Exit with the code and the message of an error. With TRSR_TRACEBACK set, errors are raised instead."""
    if os.environ.get("TRSR_TRACEBACK"):
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        _end(Exit.INTERRUPTED, "stopped. The same command goes on from what is kept.")
    except Exception as error:
        if detail := _disk_full_reason(error):
            _end(
                Exit.DISK_FULL,
                f"error: no room left on the disk ({detail}). Make some, and run the same command again.",
            )
        if isinstance(error, (TrsrError, OSError)):  # an OSError is a file that cannot be read or written
            _end(Exit.USER_ERROR, f"error: {error}")
        traceback.print_exc()
        sys.exit(Exit.BUG)


@contextlib.contextmanager
def exit_quietly_on_broken_pipe() -> Iterator[None]:
    """Exit without a message when the reader of the output has closed the pipe, as `| head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout):
            raise  # of another pipe
        # At once: Python would complain about unread output, and threads that still read files ahead have been seen to abort an
        # interpreter that shuts down meanwhile.
        os._exit(Exit.BROKEN_PIPE)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe without a reader; True where the system cannot tell."""
    if not hasattr(select, "poll"):
        return True
    pipe = select.poll()
    pipe.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def _end(code: Exit, line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)


def _disk_full_reason(error: BaseException | None) -> str:
    """The part of an error, or of its causes, that says that the disk is full; empty if none does."""
    remote = False
    while error is not None:
        remote = remote or isinstance(error, (EngineError, HubError))  # the words may be a server's, of its own disk
        # Rust, C++ and SQLite say so only in their message.
        said = not remote and any(phrase in str(error) for phrase in _DISK_FULL_PHRASES)
        if (isinstance(error, OSError) and error.errno in _DISK_FULL_CODES) or said:
            return str(getattr(error, "filename", None) or error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return ""
