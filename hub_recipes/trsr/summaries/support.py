"""Count unsupported summaries among the first ones of a run: most of their words are neither in the items nor in the question.

The audit measures all summaries, with a control; this is a quick warning during the run.
"""

from trsr.summaries.audit.figures import UNSUPPORTED
from trsr.summaries.audit.words import Words

FIRST = 100


class SupportCount:
    """Compares the first hundred summaries with their questions."""

    def __init__(self) -> None:
        self._summaries = self._unsupported = 0

    def add(self, prompt: str, summary: str) -> str:
        """Count a summary. Returns a message after the hundredth one, else an empty string."""
        if self._summaries < FIRST:
            words = Words.of(summary).content
            self._unsupported += len(words - Words.of(prompt).content) > UNSUPPORTED * len(words)
            self._summaries += 1
            return self._message() if self._summaries == FIRST else ""
        return ""

    def last(self) -> str:
        """The message at the end of a run with fewer summaries; else an empty string."""
        return self._message() if 0 < self._summaries < FIRST else ""

    def _message(self) -> str:
        return (
            f"Of the first {self._summaries} summaries, {self._unsupported} have most of their words neither from the items "
            "nor from the question."
        )
