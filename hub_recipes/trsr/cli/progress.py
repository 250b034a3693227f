"""Progress bars where nobody watches them redrawn: in a log, a line now and then."""

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
    """Write bars as lines to a stderr that is no terminal, whichever library draws them."""
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
    """A text stream without control characters: what a carriage return would overwrite is shown every so often.

    Args:
        stream: Where the lines go.
        every: Seconds between two states of bars; the last one is always shown.
        clock: Tells the seconds.
    """

    def __init__(self, stream: TextIO, every: float = EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._bar = self._told = ""
        self._shown = clock()
        self._ended = False
        self._held: list[
            str
        ] = []  # a line break, and what came after it: until it is known whether the cursor goes back

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        # A bar below another one is drawn by a line break, its state, and a step up again: nothing has ended there.
        if len(self._held) == 2 and text.startswith(_UP):
            state, self._held = self._held[1], []
            self._pass_on(state + text)
        elif self._held and (len(self._held) == 2 or not text.startswith("\r")):
            self._release()
            self.write(text)
        elif self._held or (text and not text.strip("\n")):
            self._held.append(text)
        else:
            self._pass_on(text)
        return len(text)

    def _release(self) -> None:
        held, self._held = self._held, []
        for text in held:
            self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        plain, *states = _ESCAPES.sub("", text).split("\r")
        if self._bar and plain.startswith("\n"):
            self.finish()
            plain = plain[1:]
        self._stream.write(plain)
        for state in states:
            self._bar, done, rest = state.rstrip(" ").partition("\n")
            if done:
                self.finish()
                self._stream.write(rest)
            elif self._clock() - self._shown >= self._every:
                self._show()

    def finish(self) -> None:
        """The bar is drawn no more: its last state is a line."""
        self._show()
        self._bar = ""

    def end(self) -> None:
        """Show no more bars: one that an error left open is drawn once more when it is forgotten."""
        self._release()
        self.finish()
        self._ended = True

    def _show(self) -> None:
        if self._bar.strip() and self._bar != self._told and not self._ended:
            self._stream.write(f"{self._bar}\n")
            self._told, self._shown = self._bar, self._clock()
