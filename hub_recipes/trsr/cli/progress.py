"""Progress bars for logs: where stderr is no terminal, print the state of a bar as a line now and then."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

EVERY = 30.0  # seconds between two lines of unfinished bars
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_UP = "\x1b[A"


@contextlib.contextmanager
def readable_progress() -> Iterator[None]:
    """Write progress bars of any library as lines, if stderr is no terminal."""
    if sys.stderr.isatty():
        yield
        return
    lines = Lines(sys.stderr)
    with contextlib.redirect_stderr(lines):  # type: ignore[type-var]
        try:
            yield
        finally:
            lines.end()


class Lines:
    """A text stream that removes control characters: states of a bar, which \\r would overwrite, are written now and then.

    Args:
        stream: Receives the lines.
        every: Seconds between two states of a bar; the last state is always written.
        clock: Returns seconds.
    """

    def __init__(self, stream: TextIO, every: float = EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._bar = self._last_written = ""
        self._shown = clock()
        self._ended = False
        self._in_line = False  # whether text of others stands in a line that has not ended
        # A line break and the text after it, until it is clear whether the cursor moves up again.
        self._pending: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        # A bar below another is drawn as a line break, its state, and cursor up: the upper bar has not ended.
        if len(self._pending) == 2 and text.startswith(_UP):
            state, self._pending = self._pending[1], []
            self._pass_on(state + text)
        elif self._pending and (len(self._pending) == 2 or not text.startswith("\r")):
            self._release()
            self.write(text)
        elif self._pending or (text and not text.strip("\n")):
            self._pending.append(text)
        else:
            self._pass_on(text)
        return len(text)

    def _release(self) -> None:
        pending, self._pending = self._pending, []
        for text in pending:
            self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        plain, *states = _ESCAPES.sub("", text).split("\r")
        if self._bar and plain.startswith("\n") and not self._in_line:
            self.finish()
            plain = plain[1:]
        self._write(plain)
        for state in states:
            self._bar, line_break, following = state.rstrip(" ").partition("\n")
            if line_break:
                self.finish()
                self._write(following)
            elif self._clock() - self._shown >= self._every:
                self._show()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        if text:
            self._in_line = not text.endswith("\n")

    def finish(self) -> None:
        """Write the last state of the bar, which has ended, as a line."""
        self._show()
        self._bar = ""

    def end(self) -> None:
        """Write what is pending, and ignore bars from now on: after an error, a bar is drawn once more when it is deleted."""
        self._release()
        self.finish()
        self._ended = True

    def _show(self) -> None:
        if self._bar.strip() and self._bar != self._last_written and not self._ended:
            self._write("\n" * self._in_line + f"{self._bar}\n")
            self._last_written, self._shown = self._bar, self._clock()
