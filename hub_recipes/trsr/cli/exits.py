"""How a verb ends: with one line and a code that scripts can tell apart."""

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

    DONE = 0
    FOUND = 1  # done, and what was looked at is not as it should be
    MISTAKE = 2  # the command, a file or a service: the message says what to do
    OPEN = 3  # questions were written for another engine to answer
    FULL = 4  # no room on the disk
    BUG = 70  # with a traceback
    STOPPED = 130  # Ctrl-C
    UNREAD = 141  # whoever read the output went away, as `| head` does


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM_SAID = ("No space left on device", "database or disk is full", "File too large", "Disk quota exceeded")


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """End the process as its errors ask for. With TRSR_TRACEBACK set they are raised as they are."""
    if os.environ.get("TRSR_TRACEBACK"):
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        _end(Exit.STOPPED, "stopped. The same command goes on from what is kept.")
    except Exception as error:
        if detail := _no_room(error):
            _end(Exit.FULL, f"error: no room left on the disk ({detail}). Make some, and run the same command again.")
        if isinstance(error, (TrsrError, OSError)):  # an OSError is a file that cannot be read or written
            _end(Exit.MISTAKE, f"error: {error}")
        traceback.print_exc()
        sys.exit(Exit.BUG)


@contextlib.contextmanager
def quiet_without_reader() -> Iterator[None]:
    """End without a word when whoever reads what is printed has gone, as `| head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _unread(sys.stdout):
            raise  # the pipe was another
        # At once: Python would complain about what is left unread, and threads that still read files ahead have been seen to
        # abort an interpreter that ends beside them.
        os._exit(Exit.UNREAD)


def _unread(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more; where the system cannot tell, it is taken for one."""
    if not hasattr(select, "poll"):
        return True
    pipe = select.poll()
    pipe.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def _end(code: Exit, line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)


def _no_room(error: BaseException | None) -> str:
    """What says that the disk is full, of an error or of those it came from; empty if nothing does."""
    remote = False
    while error is not None:
        remote = remote or isinstance(error, (EngineError, HubError))  # the words may be a server's, of its own disk
        # Rust, C++ and SQLite tell it in words alone.
        said = not remote and any(phrase in str(error) for phrase in _NO_ROOM_SAID)
        if (isinstance(error, OSError) and error.errno in _NO_ROOM) or said:
            return str(getattr(error, "filename", None) or error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return ""
