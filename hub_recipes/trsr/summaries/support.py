"""Count the first summaries that say most of what they say out of nothing. Knows nothing of engines.

The audit measures all summaries, with a control; this is for a word while a run goes on.
"""

from trsr.summaries.audit.figures import UNSUPPORTED
from trsr.summaries.audit.words import Words

FIRST = 100


class SupportCount:
    """The first hundred summaries, held against what was asked."""

    def __init__(self) -> None:
        self._summaries = self._unsupported = 0

    def add(self, prompt: str, summary: str) -> str:
        """Count a summary; returns what there is to say, which is once, after the hundredth."""
        if self._summaries < FIRST:
            said = Words.of(summary).content
            self._unsupported += len(said - Words.of(prompt).content) > UNSUPPORTED * len(said)
            self._summaries += 1
            return self._told() if self._summaries == FIRST else ""
        return ""

    def last(self) -> str:
        """The same at the end of a run with fewer."""
        return self._told() if 0 < self._summaries < FIRST else ""

    def _told(self) -> str:
        return (
            f"Of the first {self._summaries} summaries, {self._unsupported} have most of their words neither from the items "
            "nor from the question."
        )
