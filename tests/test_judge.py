import pytest

from trsr.core.answer import Answer
from trsr.core.prompts import SummaryPrompts
from trsr.summaries.accept import reject_reason

PROMPTS = SummaryPrompts()
GOOD = [
    "The user likes sea stories and cosy mysteries; lately, travel.",
    "Enjoys I'm Sorry I Haven't a Clue and other radio comedy.",
    "genre: mystery x6, travel x2; author: Mara Quill x3",
    "## Preferences\nThe user reads poetry (mostly [sic] short poems) and <3 cats.",
    "[SF] and <b>fantasy</b>, above all.",
    "这位用户喜欢推理小说。",
    "Gosta de romances históricos: sobretudo os do século XIX.",
]
BAD = [
    ("", "empty"),
    (" \n\u200b ", "empty"),
    ("...", "empty"),
    ("word " * 500, "too long"),
    ("I'm sorry, but I can't help with that request.", "refusal"),
    ("I’m unable to summarise these items.", "refusal"),
    ("As an AI language model, I have no preferences.", "refusal"),
    ("Unfortunately, I cannot summarise this.", "refusal"),
    ("```\nThe user likes tea.\n```", "wrong form"),
    ('{"summary": "likes tea"}', "wrong form"),
    ("## Summary", "wrong form"),
    ("**Summary:**", "wrong form"),
    ("Here is the summary:", "wrong form"),
    ("<think>They like tea.</think>Tea.", "wrong form"),
    ("The user likes tea.<|im_end|>\n<|im_start|>user", "wrong form"),
    (PROMPTS.block_text(()) + " The user likes tea.", "wrong form"),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_summary(text):
    assert reject_reason(Answer(text), PROMPTS) == ""


@pytest.mark.parametrize(("text", "why"), BAD)
def test_no_summary(text, why):
    assert reject_reason(Answer(text), PROMPTS) == why


def test_what_the_engine_says_counts():
    assert reject_reason(Answer("The user likes", "length"), PROMPTS) == "cut off"
    assert reject_reason(Answer("The user", "content_filter"), PROMPTS) == "refusal"
    assert reject_reason(Answer("", failure="rejected (400)"), PROMPTS) == "rejected (400)"


def test_an_answer_of_nothing_but_space_takes_linear_time():
    # With a step for every pair of 200,000 characters, this would take minutes.
    answer = Answer(f"{' ' * 200_000}Likes the sea{chr(10) * 200_000}.", "stop")
    assert reject_reason(answer, SummaryPrompts()) == ""
    assert reject_reason(Answer(f"{' ' * 200_000}# A heading\n\n", "stop"), SummaryPrompts()) == "wrong form"
    assert reject_reason(Answer("# A heading\nLikes the sea.", "stop"), SummaryPrompts()) == ""
