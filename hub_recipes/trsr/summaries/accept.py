"""Judge a model's answer: is it a summary, and if not, why. Knows nothing of engines or of what follows from it."""

import functools
import re
from collections.abc import Iterable, Sequence

from trsr.core.answer import Answer
from trsr.core.control_tokens import CONTROL_TOKEN, has_reasoning, without_reasoning
from trsr.core.history import Block, clean
from trsr.core.summary_prompts import SummaryPrompts

LONGEST = 2000  # characters; two or three sentences have a quarter of it

# Share of an answer's words in runs of four that stood in it before. Of 32 greedy answers of SmolLM2-135M-Instruct about
# books, the 16 that a reader calls loops have .33 or more, the others less than .30. Human prose of 60 to 100 words has
# less: one of 4,527 blurbs and film plots has .48, for its text stands in it twice, the others .21 at most. Gopher's filter
# takes .15 in runs of five words, of whole web pages (Rae et al. 2021, arXiv 2112.11446, table A1).
LOOP = 0.3
LOOP_RUN = 4  # words
LOOP_RUN_CHARACTERS = 8  # in scripts without spaces between words
# So many such words at least: a short summary may say a thing twice. Of 523 answers of the nano model, which often does,
# four have as many.
LOOP_LEAST = 2.5  # lengths of a run
# Share of an answer's runs of six words that stand in the items it was asked about. Of the same answers, the four that do
# no more than copy have .67 or more, the others that are no loops .32 or less.
ECHO = 0.5
ECHO_RUN = 6  # words
EXAMPLE_WORD = 3  # letters; shorter words stand in any text
# What servers call an answer that met the limit of tokens (OpenAI; Mistral; Anthropic), and one that they gave up.
CUT_OFF = frozenset({"length", "model_length", "max_tokens"})
ABORTED = frozenset({"abort", "error", "insufficient_system_resource"})  # vLLM and SGLang; Mistral; DeepSeek

# "I can't help", and not "I Can't Sleep": in a title the next word has a capital.
_CANNOT = (
    r"i (?:cannot|can['’]?t|can not|won['’]t|will not|do not|don['’]t) (?-i:[a-z])|"
    r"(?:i['’]m|i am) (?:really |very |so )?(?:unable|not able) (?-i:[a-z])"
)
# A whole opening of a refusal, for titles begin with its words: "Sorry We Missed You", "I Don't Feel at Home ...". A list of
# titles may be in lower case, a refusal begins with a capital.
_REFUSAL = re.compile(
    rf"(?=(?-i:[A-Z]))(?:(?:unfortunately,? )?(?:{_CANNOT})|i apologi[sz]e\b|"
    r"(?:(?:i['’]m|i am) (?:really |very |so )?)?sorry"
    rf"(?:\s?[.!;:…—–-]|,(?: (?-i:[a-z]|I\b)|\Z)| but\b| (?:that )?(?:{_CANNOT})|\Z)|"
    r"(?:i['’]m|i am) (?:really |very |so )?sorry (?:for|about|that|to) (?-i:[a-z]))|"
    r"as an? (?:ai|(?:ai )?(?:large )?language model|ai (?:model|assistant|system|chatbot))"
    r"(?: (?:by|without|trained|made|created|developed|designed) [^,.]{1,60})?(?:,| i\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"\s*(?:```|~~~|\{|\[\s*[\"{])")
_CONTROL = re.compile(CONTROL_TOKEN)
_HEADING = re.compile(r"#.*|\*\*[^*]*\*\*:?|[^.!?;]*:")
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"  # Thai, Japanese, Chinese
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def reject_reason(answer: Answer, prompts: SummaryPrompts, block: Block = (), summaries: Sequence[str] = ()) -> str:
    """Why an answer is no summary, in a word or two; empty for a summary.

    A failure of the engine; `only reasoning`; `loop`, whether it ends or not; `cut off` (it met the limit of tokens);
    `aborted` by the server; `empty`; `too long`; `refusal`; `echo`: of the instruction or of the items; `example`: the words of a worked example, not
    of the items; or `wrong form`: code or JSON, a heading with nothing below it, control tokens other than those that close
    the answer, or not the fixed form that was asked for.

    Args:
        block, summaries: The items and the earlier summaries that were asked about.
    """
    if answer.failure:
        return answer.failure
    if answer.finish_reason == "content_filter":
        return "refusal"
    uncleaned = prompts.answer_text(answer.text)
    text = clean(uncleaned)
    empty = not any(char.isalnum() for char in text)
    if empty and has_reasoning(answer.text):
        return "only reasoning"
    if repeated_share(text) >= LOOP:
        return "loop"
    if answer.finish_reason in ABORTED:
        return "aborted"
    if answer.finish_reason in CUT_OFF and not (prompts.form and "\n" in without_reasoning(answer.text).strip()):
        return "cut off"
    if empty:
        return "empty"
    if len(text) > LONGEST:
        return "too long"
    if _REFUSAL.match(text):
        return "refusal"
    if _FENCED.match(uncleaned) or _HEADING.fullmatch(uncleaned.strip()) or _CONTROL.search(text):
        return "wrong form"
    if not prompts.is_in_form(without_reasoning(answer.text)):
        return "wrong form"
    if _says_instruction(text, prompts) or _copied_share(text, block) > ECHO:
        return "echo"
    return "example" if _repeats_example(text, prompts, (*(item.text for item in block), *summaries)) else ""


def repeated_share(text: str) -> float:
    """Share of the words in runs that stood in the text before; of characters where a script has no spaces.

    0 where they are too few for a loop.
    """
    # Numbers are left out: a loop may count its rounds.
    words = [word for word in _WORD.findall(text.casefold()) if not word.isdigit()]
    unspaced = 2 * sum("\u0e00" <= word <= "\u9fff" for word in words) > len(words)
    length = LOOP_RUN_CHARACTERS if unspaced else LOOP_RUN
    seen: set[tuple[str, ...]] = set()
    repeated = end = 0
    for start, run in enumerate(_runs(words, length)):
        if run in seen:
            repeated += start + length - max(start, end)
            end = start + length
        seen.add(run)
    return repeated / len(words) if repeated >= LOOP_LEAST * length else 0.0


def _copied_share(text: str, block: Block) -> float:
    """Share of the text's runs of words that stand in one of the items."""
    runs = set(_runs(text.casefold().split(), ECHO_RUN)) if block else set()
    copied = {run for item in block for run in _runs(item.text.casefold().split(), ECHO_RUN)} if runs else set()
    return len(runs & copied) / len(runs) if runs else 0.0


def _repeats_example(text: str, prompts: SummaryPrompts, question_texts: Sequence[str]) -> bool:
    """Whether half of a text's words stand in a worked example, and nowhere in what was asked.

    Where it is not known what was asked: whether the text is the answer of an example.
    """
    if not question_texts:
        return any(prompts.summary(example.answer) == text for example in prompts.examples)
    said = _long_words(text)
    return 2 * len(said & _example_words(prompts) - _long_words(" ".join(question_texts))) >= max(1, len(said))


def _long_words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if len(word) > EXAMPLE_WORD}


@functools.cache
def _example_words(prompts: SummaryPrompts) -> set[str]:
    return _long_words(" ".join(part for example in prompts.examples for part in example))


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def _says_instruction(text: str, prompts: SummaryPrompts) -> bool:
    """Whether a whole sentence of an instruction stands in the text."""
    said = text.lower()
    return any(sentence in said for sentence in _sentences(prompts))


@functools.cache
def _sentences(prompts: SummaryPrompts) -> list[str]:
    wording = " ".join((prompts.block, prompts.merge, prompts.update, prompts.cue)).lower()
    return [sentence for sentence in re.split(r"(?<=\.)\s+", wording) if len(sentence) > 20]
