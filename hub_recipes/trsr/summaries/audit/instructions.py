"""Find prompt injection in texts by patterns: commands, role markers, headings of our prompts, control tokens.

The patterns cover usual wordings of English commands, and the control tokens of common chat templates.
"""

import re
from collections.abc import Iterator
from functools import cache

from trsr.core.control_tokens import CONTROL_TOKEN
from trsr.dataset.check.texts import headings

_COMMAND = (
    r"\b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|every|everything|the|of|these|those|this|that|your|my|and)"
    r"\s+){0,3}(?:above|previous|prior|earlier|preceding|foregoing|system|instructions?|prompts?|rules)\b"
    r"(?:\s+(?:instructions?|prompts?|text|rules|items|messages?))?|"
    r"\b(?:new|updated|additional|real|actual)\s+instructions?\s*:|"
    r"\byou\s+(?:must|should|have\s+to)\s+(?:always\s+|only\s+|now\s+)?(?:answer|say|write|recommend|rank|output|reply|"
    r"respond|choose)\b|"
    r"\b(?:always|only)\s+(?:answer|reply|respond|output)\b|"
    r"\b(?:answer|reply|respond)\s+(?:with\s+)?(?:yes|no)\b|\byou\s+are\s+now\b"
)
_ROLE = r"(?:^|[.!?;\n]\s*)(?:#+\s*)?(?:assistant|human|system\s+(?:prompt|message))\s*:|###\s*(?:system|instruction|user)\b"
# A space after the bracket: our prompts break up control tokens in this way.
_BROKEN_UP = re.compile(r"(?<=[<＜\[［]) (?=\S)")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Prompt injections in a text: the kind, `command`, `role`, `heading` or `token`, and the wording of each."""
    # Without blank lines and repeated spaces, on which the patterns would take quadratic time.
    lines = (" ".join(line.split()) for line in text.splitlines())
    whole = _BROKEN_UP.sub("", "\n".join(filter(None, lines)))
    for kind, pattern in _patterns():
        for match in pattern.finditer(whole):
            yield kind, " ".join(match[0].split()).casefold()


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    heading = rf"(?:^|\n)[ \-*#>]*(?:{'|'.join(map(re.escape, headings()))})"
    kinds = {"command": _COMMAND, "role": _ROLE, "heading": heading, "token": CONTROL_TOKEN}
    return tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in kinds.items())
