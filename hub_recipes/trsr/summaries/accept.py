"""Judge a model's answer: is it a summary, and if not, why. Knows nothing of engines or of what follows from it."""

import functools
import re

from trsr.core.answer import Answer
from trsr.core.history import clean
from trsr.core.prompts import SummaryPrompts

LONGEST = 2000  # characters; two or three sentences have a quarter of it

_REFUSAL = re.compile(
    r"(?:sorry|i apologi[sz]e|(?:i['’]m|i am) (?:really |very |so )?(?:sorry|unable|not able)|"
    r"(?:unfortunately,? )?i (?:cannot|can['’]?t|can not|won['’]t|will not|do not|don['’]t) |as an ai\b|"
    r"as a (?:large )?language model\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"\s*(?:```|~~~|\{|\[\s*[\"{])")
_CONTROL = re.compile(r"<\||\|>|</?s>|</?think|</?tool|_of_turn>|<</?SYS|\[/?INST")
_HEADING = re.compile(r"#.*|\*\*[^*]*\*\*:?|[^.!?;]*:")


def reject_reason(answer: Answer, prompts: SummaryPrompts) -> str:
    """Why an answer is no summary, in a word or two; empty for a summary.

    `cut off` (it met the limit of tokens), `empty`, `too long`, `refusal`, or `wrong form`: code or JSON, a heading with
    nothing below it, control tokens or reasoning, the instruction repeated.
    """
    text = clean(answer.text)
    if answer.failure:
        return answer.failure
    if answer.finish_reason == "length":
        return "cut off"
    if answer.finish_reason == "content_filter":
        return "refusal"
    if not any(char.isalnum() for char in text):
        return "empty"
    if len(text) > LONGEST:
        return "too long"
    if _REFUSAL.match(text):
        return "refusal"
    forms = (_FENCED.match(answer.text), _HEADING.fullmatch(answer.text.strip()), _CONTROL.search(text))
    return "wrong form" if any(forms) or _repeats(text, prompts) else ""


def _repeats(text: str, prompts: SummaryPrompts) -> bool:
    """Whether a whole sentence of an instruction stands in the text."""
    said = text.lower()
    return any(sentence in said for sentence in _sentences(prompts))


@functools.cache
def _sentences(prompts: SummaryPrompts) -> list[str]:
    wording = " ".join((prompts.block, prompts.merge, prompts.update, prompts.cue)).lower()
    return [sentence for sentence in re.split(r"(?<=\.)\s+", wording) if len(sentence) > 20]
