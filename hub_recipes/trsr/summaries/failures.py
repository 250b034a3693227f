"""Notice that most answers of an engine are no summaries, and say what to do. Knows nothing of queues or stores."""

from collections import Counter
from collections.abc import Mapping
from math import comb
from typing import Any

# Answers that are looked at together. A run ends if 74 of a hundred fail, or 20 of 20: so many come up less than once in a
# million times where half of all answers fail.
WINDOW = 100
CHANCE = 1e-6

_REMEDIES = {
    "cut off": "raise --max-new-tokens (now {max_new_tokens}), or ask a model that writes shorter",
    "aborted": "look at the server's own log: it stops in the middle of answers",
    "only reasoning": "turn the model's reasoning off, for many servers with --extra-body "
    '\'{{"chat_template_kwargs": {{"enable_thinking": false}}}}\', or raise --max-new-tokens (now {max_new_tokens})',
    "loop": "set --prompts small (for models of less than a billion parameters), --repetition-penalty 1.1 (for a server in "
    "--extra-body) or --temperature 0.7, or ask a larger model",
    "empty": "look at what the model answers elsewhere: it may lack a chat template, or the server its content",
    "too long": "lower --max-new-tokens (now {max_new_tokens}), or ask another model",
    "refusal": "ask another model",
    "wrong form": "ask a model that was tuned to follow instructions",
    "echo": "ask a larger model or one that was tuned to follow instructions",
    "example": "ask a larger model, or leave out --prompts small",
    "prompt too long": "take smaller blocks (--block-size), shorter item texts, or a model with a longer context",
}


def remedy(reason: str, sampling: Mapping[str, Any]) -> str:
    """What to change where answers fail for a reason."""
    default = "look at the server's own log: it refuses what it is asked"
    return _REMEDIES.get(reason, default).format(max_new_tokens=sampling.get("max_new_tokens", "unknown"))


class FailureWatch:
    """First answers of an engine, counted by what became of them, in windows of a hundred for each kind of question.

    Args:
        sampling: Of the engine, as in its identity.
    """

    def __init__(self, sampling: Mapping[str, Any]) -> None:
        self._sampling = sampling
        self._windows: dict[str, Counter[str]] = {}
        self._examples: dict[str, str] = {}

    def add(self, kind: str, reason: str, text: str) -> str:
        """Count a question's first answer.

        Args:
            kind: Of the question: `block`, `merge` or `update`.
            reason: Why it is no summary; empty for a summary.
            text: The answer, or what the engine says of its failure.

        Returns:
            Why the run must end, with the remedy; empty if it may go on.
        """
        window = self._windows.setdefault(kind, Counter())
        window[reason] += 1
        if reason:
            self._examples[reason] = text
        return self._verdict(self._windows.pop(kind), f" to {kind} questions") if window.total() == WINDOW else ""

    def last(self) -> str:
        """The same of what no full window holds, at the end of a run: of each kind, and of all together."""
        left = {f" to {kind} questions": window for kind, window in self._windows.items()}
        left[""] = sum(self._windows.values(), Counter())
        self._windows = {}
        return next((said for of, window in left.items() if (said := self._verdict(window, of))), "")

    def _verdict(self, window: Counter[str], of: str) -> str:
        total = window.total()
        failed = total - window[""]
        if sum(comb(total, number) for number in range(failed, total + 1)) / 2**total >= CHANCE:
            return ""
        reasons = [(why, count) for why, count in window.most_common() if why]
        reason = reasons[0][0]
        counted = ", ".join(f"{why} {count}" for why, count in reasons)
        example = self._examples[reason][:80]
        shown = f" One answer ({reason}) begins: {example!r}" if example else ""
        return (
            f"{failed} of {total} answers{of} are no summaries ({counted}): {remedy(reason, self._sampling)}. --keep-going "
            f"lets the extractive summarizer write in their place. Nothing was written, and what was answered is kept.{shown}"
        )
