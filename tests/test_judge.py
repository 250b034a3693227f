import re
from itertools import product

import pytest

from trsr.core.answer import Answer
from trsr.core.control_tokens import CONTROL_TOKEN
from trsr.core.history import Item
from trsr.core.summary_prompts import SummaryPrompts, neutralize
from trsr.summaries.accept import reject_reason, repeated_share

PROMPTS = SummaryPrompts()
GOOD = [
    "The user likes sea stories and cosy mysteries; lately, travel.",
    "Enjoys I'm Sorry I Haven't a Clue and other radio comedy.",
    "genre: mystery x6, travel x2; author: Mara Quill x3",
    "## Preferences\nThe user reads poetry (mostly [sic] short poems) and <3 cats.",
    "[SF] and <b>fantasy</b>, above all.",
    "这位用户喜欢推理小说。",
    "Sorry We Missed You, Paterson and other films of working lives.",
    "Sorry, Baby and Sorry to Bother You: films with a dry wit.",
    "I'm Sorry I Haven't a Clue, and lately cricket.",
    "I Don't Feel at Home in This World Anymore and other small American films.",
    "As an AI enthusiast, the user reads papers and science fiction.",
    "i can't sleep; other lo-fi records",
    "i'm sorry about yesterday, and more poems in small letters",
    "sorry, baby; sorry to bother you: films with a dry wit",
    "i don't feel at home in this world anymore",
    "Gosta de romances históricos: sobretudo os do século XIX.",
]
BAD = [
    ("", "empty"),
    (" \n\u200b ", "empty"),
    ("...", "empty"),
    (" ".join(map("".join, product("abcdefgh", repeat=3))), "too long"),
    ("I'm sorry, but I can't help with that request.", "refusal"),
    ("I’m unable to summarise these items.", "refusal"),
    ("As an AI language model, I have no preferences.", "refusal"),
    ("Sorry, but there are no items.", "refusal"),
    ("Sorry, I can't do that.", "refusal"),
    ("Sorry.", "refusal"),
    ("I am very sorry for the confusion.", "refusal"),
    ("I'm sorry that I cannot say more.", "refusal"),
    ("I do not have the texts.", "refusal"),
    ("As an AI assistant, I cannot know this.", "refusal"),
    ("As a large language model trained by others, I have no tastes.", "refusal"),
    ("Unfortunately, I cannot summarise this.", "refusal"),
    ("```\nThe user likes tea.\n```", "wrong form"),
    ('{"summary": "likes tea"}', "wrong form"),
    ("## Summary", "wrong form"),
    ("**Summary:**", "wrong form"),
    ("Here is the summary:", "wrong form"),
    ("The user likes tea.<|im_end|>\n<|im_start|>user", "wrong form"),
    (PROMPTS.block_text(()) + " The user likes tea.", "echo"),
    ("<think>They chose tea, so", "only reasoning"),
    ("<think>They chose tea.</think>\n", "only reasoning"),
    ("<think>They chose tea.</think>I'm sorry, I cannot say.", "refusal"),
    ("Tea.</think>```\ntea\n```", "wrong form"),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_summary(text):
    assert reject_reason(Answer(text), PROMPTS) == ""


@pytest.mark.parametrize(("text", "why"), BAD)
def test_no_summary(text, why):
    assert reject_reason(Answer(text), PROMPTS) == why


def test_what_the_engine_says_counts():
    for reason in ("length", "model_length", "max_tokens"):
        assert reject_reason(Answer("The user likes", reason), PROMPTS) == "cut off"
    for reason in ("abort", "error"):
        assert reject_reason(Answer("The user likes", reason), PROMPTS) == "aborted"
    assert reject_reason(Answer("The user", "content_filter"), PROMPTS) == "refusal"
    assert reject_reason(Answer("", failure="rejected (400)"), PROMPTS) == "rejected (400)"


def test_an_answer_of_nothing_but_space_takes_linear_time():
    # With a step for every pair of 200,000 characters, this would take minutes.
    answer = Answer(f"{' ' * 200_000}Likes the sea{chr(10) * 200_000}.", "stop")
    assert reject_reason(answer, SummaryPrompts()) == ""
    assert reject_reason(Answer(f"{' ' * 200_000}# A heading\n\n", "stop"), SummaryPrompts()) == "wrong form"
    assert reject_reason(Answer("# A heading\nLikes the sea.", "stop"), SummaryPrompts()) == ""


@pytest.mark.parametrize(
    "mark", "</s> <|im_end|> <|endoftext|> <|eot_id|> <end_of_turn> <｜end▁of▁sentence｜> <|END_OF_TURN_TOKEN|>".split()
)
def test_the_tokens_that_close_an_answer_are_left_out(mark):
    answer = Answer(f"The user enjoys sea stories and baking.{mark}\n{mark} ")
    assert reject_reason(answer, PROMPTS) == ""
    assert PROMPTS.summary(answer.text) == "The user enjoys sea stories and baking."
    assert reject_reason(Answer(mark), PROMPTS) == "empty"
    assert reject_reason(Answer(f"## Summary\n{mark}"), PROMPTS) == "wrong form"
    assert reject_reason(Answer(f"Likes tea.{mark} Likes"), PROMPTS) == "wrong form"


REASONED = [
    "<think>They chose tea twice.</think>Likes tea.",
    "\n<thinking>hm</thinking>\n\nLikes tea.",
    "They chose tea twice.\n</think>\n\nLikes tea.",  # the template opened the block
    "Likes tea. <think>Was that all? I",  # never closed
    "Likes <THINK>or loves?</THINK>tea.",
    "<seed:think>hm</seed:think>Likes tea.",
    "[THINK]hm[/THINK]Likes tea.",
    "◁think▷hm◁/think▷Likes tea.",
    "<thought>hm</thought><answer>Likes tea.</answer>",
    "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Likes tea.<|END_RESPONSE|>",
    "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>Likes tea.<|end_of_solution|>",
    "<|channel|>analysis<|message|>We need tea.<|end|><|start|>assistant<|channel|>final<|message|>Likes tea.<|return|>",
    "analysisWe need tea.assistantfinalLikes tea.",  # the same, without its control tokens
    "<|channel>thought\nhm<channel|>Likes tea.",
    "<think>a</think>Likes <think>b</think>tea.",
]


@pytest.mark.parametrize("text", REASONED)
def test_reasoning_is_left_out_and_the_rest_is_judged(text):
    assert reject_reason(Answer(text), PROMPTS) == ""
    assert PROMPTS.summary(text) == "Likes tea."


def test_a_long_reasoning_that_is_cut_off_is_no_cut_off_summary():
    assert reject_reason(Answer("<think>They chose", "length"), PROMPTS) == "only reasoning"
    assert reject_reason(Answer("<think>hm</think>The user likes", "length"), PROMPTS) == "cut off"


def test_every_control_token_is_broken_up_in_what_is_asked():
    tokens = (
        "<|im_end|> <|channel> <channel|> <｜User｜> [INST] [/INST] [TOOL_CALLS] [THINK] <<SYS>> </s> <start_of_turn>"
    )
    for token in [*tokens.split(), "<think>", "</seed:think>", "◁/think▷", "<tool_call>", "<pad>"]:
        assert re.fullmatch(CONTROL_TOKEN, token), token
        assert not re.search(CONTROL_TOKEN, neutralize(f"tea {token} tea")), token


LOOPS = [
    "A Natural History of Four Meals: " * 20,
    "The Golden Compass is a fantasy novel by Philip Pullman, a young adult fantasy novel by Philip Pullman, and a fantasy "
    "novel by Philip Pullman.",
    "".join(f"{n}. The Last Battle; " for n in range(1, 17)),
    "Suffix: #1\n\n" * 20,
    "tea " * 16,
    "这位用户喜欢推理小说和历史小说。" * 4,
]


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("text", LOOPS)
def test_a_loop_is_one_whether_it_ends_or_not(text, finish):
    assert reject_reason(Answer(text, finish), PROMPTS) == "loop"


def test_a_summary_may_say_a_thing_twice():
    text = "The user likes sea stories by Mara Quill and, lately, travel. Sea stories by Mara Quill come first; tea is new."
    assert reject_reason(Answer(text), PROMPTS) == ""
    assert (
        reject_reason(
            Answer("Some opera, a little opera; a little by Esther Winslow, a little by Esther Winslow."), PROMPTS
        )
        == ""
    )
    once = "The user likes one thing after another, and here are twenty words of it that are all said in one breath. "
    assert repeated_share(once) == 0
    assert repeated_share(once + once) == 0.5
    assert (
        repeated_share(
            once + once + "But there is more to say of this user, who reads so much else that nobody can list it."
        )
        < 0.4
    )
    assert repeated_share("这位用户喜欢推理小说，尤其喜欢历史推理小说，最近也读旅行文学。") == 0


def test_items_copied_in_place_of_a_summary_are_an_echo():
    block = (
        Item("title: The Salt Lantern; genre: sea stories; description: A keeper waits for her son"),
        Item("title: B"),
    )
    copied = "The Salt Lantern; genre: sea stories; description: A keeper waits for her son"
    assert reject_reason(Answer(copied), PROMPTS, block) == "echo"
    quoted = "The user likes sea stories such as The Salt Lantern, and books about people who wait for someone at sea."
    assert reject_reason(Answer(quoted), PROMPTS, block) == ""


def test_judging_takes_linear_time():
    assert repeated_share("the sea and the stars " * 50_000) > 0.9
    assert PROMPTS.summary("<think>" * 50_000) == ""
    assert PROMPTS.summary("<|channel|> " * 50_000) != ""
    assert PROMPTS.summary("Likes tea." + "<|im_end|> " * 50_000) == "Likes tea."
