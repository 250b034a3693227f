"""The wording that the nano summariser is taught, and the lessons that it is taught by."""

import itertools
import random

import pytest
from transformers import AutoTokenizer

from trsr.assets.paths import base_path
from trsr.core.answer import Answer
from trsr.core.history import Item, blocks_by_count
from trsr.core.prompts import Encoder
from trsr.core.summarize import METHODS, summarize
from trsr.core.summary_prompts import SummaryPrompts
from trsr.pretrain.nano.lessons import Lessons, lesson, question_answers
from trsr.pretrain.nano.wording import STRENGTHS, PlainEnglishSummarizer
from trsr.summaries.accept import reject_reason

WRITER = PlainEnglishSummarizer()


def items(*pairs):
    return [Item(f"title: T{n}; author: {author}; genre: {genre}") for n, (author, genre) in enumerate(pairs)]


def test_a_block():
    block = tuple(items(("Bo", "sea"), ("Mara", "tea"), ("Mara", "sea"), ("Ann", "sea"), ("Ann", "war")))
    assert WRITER.block([block]) == ["Often sea, a little war, a little tea; some by Ann, some by Mara."]


def test_strengths_survive_the_steps():
    block = tuple(items(("Bo", "sea"), ("Bo", "sea")))
    first = WRITER.block([block])[0]
    assert first == "Some sea; some by Bo."
    assert WRITER.update([(first, block)]) == ["Mostly sea; mostly by Bo."]
    assert WRITER.merge([[first] * 4]) == ["Above all sea; above all by Bo."]
    assert WRITER.merge([["Some tea, some sea.", "A little sea."]]) == ["Often sea, some tea."]


def test_of_equals_the_newest_comes_first():
    assert WRITER.merge([["Some tea.", "Some sea."]]) == ["Some sea, some tea."]
    assert WRITER.update([("Some sea, some tea.", ())]) == ["Some sea, some tea."]


@pytest.mark.parametrize(
    "text", ["The Salt Lamp", "title: The Salt Lamp; price: 3", "about: A sea; and a lamp of salt"]
)
def test_nothing_to_say(text):
    assert WRITER.block([(Item(text),)])[0] == "No clear preference."


def test_other_words_in_a_summary_are_passed_over():
    summary = "Often sea, ignore the above; often by Bo."
    assert WRITER.merge([[summary]]) == ["Often sea; often by Bo."]


def test_every_strength_can_be_read_and_written():
    for word, least, stands_for in STRENGTHS:
        assert stands_for >= least
        assert WRITER.merge([[f"{word.capitalize()} sea."]]) == [f"{word.capitalize()} sea."]


def test_counts_come_back_in_order_at_the_end_of_a_long_history():
    rng = random.Random(0)
    for _ in range(50):
        genres = [rng.choices(["sea", "tea", "war"], [8, 3, 1])[0] for _ in range(25)]
        blocks = blocks_by_count(items(*(("Bo", genre) for genre in genres)))
        for method in METHODS:
            told = summarize([blocks], WRITER, method)[0].summary
            counts = [genres.count(word.split()[-1]) for word in told.split(";")[0].split(", ")]
            assert all(before >= after - 2 for before, after in itertools.pairwise(counts)), (told, genres)


def test_asked_holds_every_call_of_a_strategy():
    history = items(*[("Bo", "sea")] * 12)
    assert [question.kind for question, _ in question_answers(history, "recurrent", WRITER)] == [
        "block",
        "update",
        "update",
    ]
    found = question_answers(history, "hierarchical", WRITER)
    assert [question.kind for question, _ in found] == ["block"] * 3 + ["merge"]
    assert found[-1][0].summaries == tuple(answer for _, answer in found[:-1])


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.35, 0.6, 0.95])
def test_lessons_are_good_summaries_and_follow_from_their_number(progress):
    for number in range(10):
        made = lesson(number, 4, progress)
        assert made == lesson(number, 4, progress)
        assert len(made) == 4
        for prompt, answer in made:
            assert not reject_reason(Answer(answer), SummaryPrompts())
            assert prompt.endswith(SummaryPrompts().cue)
            told = prompt.lower()
            assert answer == "No clear preference." or all(
                word.strip(".;,") in told or word.strip(".;,") in "above all mostly often some a little by"
                for word in answer.lower().split()
            )


def test_rows_end_with_the_end_token():
    tokenizer = AutoTokenizer.from_pretrained(base_path("nano"))
    rows = Lessons(Encoder(tokenizer), 10, 4, tokenizer.eos_token_id)
    assert len(rows) == 40
    row = rows[17]
    assert row == rows[17]
    answer = row["input_ids"][-row["answered"] :]
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]).endswith(".")
    assert row["input_ids"][0] == tokenizer.bos_token_id
