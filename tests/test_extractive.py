import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import METHODS, summarize


def book(author, genre, about="A keeper hunts."):
    return Item(f"title: T; author: {author}; genre: {genre}; about: {about}")


FIRST = (book("Ann", "mystery"), book("Ann", "mystery, travel"), book("Bo", "mystery"))
SECOND = (book("Cy", "travel"), book("Cy", "cooking"))


def test_a_block_counts_values_and_recurring_words():
    [summary] = ExtractiveSummarizer().block([FIRST])
    assert summary == "author: Ann x2, Bo x1; genre: mystery x3, travel x1; words: keeper x3, hunts x3"


def test_a_field_called_words_is_not_taken_for_the_words_of_texts():
    items = [Item("words: beta; about: reef and tide and so much more than that"), Item("words: beta; genre: sea")]
    [summary] = ExtractiveSummarizer().block([items])
    assert summary == "word: beta x2; genre: sea x1"


def test_update_adds_to_the_counts_it_reads_and_equals_go_to_the_newest():
    summarizer = ExtractiveSummarizer()
    [first] = summarizer.block([FIRST])
    [updated] = summarizer.update([(first, SECOND)])
    assert updated == (
        "author: Cy x2, Ann x2, Bo x1; genre: mystery x3, travel x2, cooking x1; words: keeper x5, hunts x5"
    )


def test_merge_adds_block_summaries():
    summarizer = ExtractiveSummarizer()
    assert summarizer.merge([summarizer.block([FIRST, SECOND])]) == summarizer.update(
        [(summarizer.block([FIRST])[0], SECOND)]
    )


def test_only_the_most_frequent_values_stay():
    items = tuple(book(f"A{n}", "g") for n in range(9)) + (book("A0", "g"),)
    [summary] = ExtractiveSummarizer(values=2).block([items])
    assert summary.startswith("author: A0 x2, A8 x1; genre: g x10;")


def test_running_text_is_summarised_by_its_words():
    [summary] = ExtractiveSummarizer().block(
        [(Item("Pirates find a haunted island"), Item("The haunted castle of kings"))]
    )
    assert "haunted x2" in summary


@pytest.mark.parametrize(
    "about", ["这是一部关于大海与孤独的长篇小说讲述一位老渔夫的故事", "นวนิยายเรื่องยาวเกี่ยวกับทะเลและความเหงา", "x/" * 180]
)
def test_a_long_text_without_spaces_is_no_value(about):
    """Neither at once nor after many blocks, in a field of any name or in none."""
    items = [Item(f"title: 小说 {n}; 类型: 历史小说; 作者: 加西亚·马尔克斯; 简介: {about * 15}") for n in range(10)]
    for method in METHODS:
        [result] = summarize([blocks_by_count(items, 2)], ExtractiveSummarizer(), method)
        assert result.summary.startswith("类型: 历史小说 x10; 作者: 加西亚·马尔克斯 x10")
        assert len(result.summary) < 160  # parts of Thai words, whose vowels are no letters, are all that may follow
        [result] = summarize([blocks_by_count([Item(about * 15)], 1)], ExtractiveSummarizer(), method)
        assert len(result.summary) < 160


def test_a_summary_by_someone_else_is_read_as_words():
    [summary] = ExtractiveSummarizer().update([("The user loves haunted castles.", FIRST)])
    assert "genre: mystery x3" in summary


def test_a_value_that_ends_like_a_count_stays_whole_through_update_and_merge():
    summarizer = ExtractiveSummarizer()
    block = (Item("brand: HP Spectre x360; title: A"), Item("brand: HP Spectre x360, Turbo x9 Pro; title: B"))
    [first] = summarizer.block([block])
    assert first == "brand: HP Spectre x360 x2, Turbo x9 Pro x1"
    [second] = summarizer.update([(first, (Item("brand: Nikon x2"),))])
    assert second == "brand: HP Spectre x360 x2, Nikon x2 x1, Turbo x9 Pro x1"
    assert summarizer.merge([[first, second]]) == ["brand: HP Spectre x360 x4, Turbo x9 Pro x2, Nikon x2 x1"]


def test_nothing_is_read_back_as_nothing():
    summarizer = ExtractiveSummarizer()
    [nothing] = summarizer.block([(Item("title: A"),)])
    assert nothing == "no clear preference"
    assert summarizer.merge([[nothing, nothing]]) == [nothing]


WORDS = st.lists(
    st.sampled_from(["genre", ":", ": ", ";", ",", " ", "x3", " x360", "mystery", "A", "words", "İ", "\n"])
)


@given(st.lists(WORDS.map("".join), min_size=1, max_size=5))
@example([": Turbo x9"])
@example(["a: x; : y"])
def test_a_summary_is_read_back_as_it_was_written(texts):
    summarizer = ExtractiveSummarizer()
    [summary] = summarizer.block([tuple(Item.parse(f"z{text}") for text in texts)])
    assert summarizer.merge([[summary]]) == [summary]


@pytest.mark.parametrize("unit", ["word salad ", "a", " x1", "A x3 ", "a: ", ": ", "; ", ", ", "x ", "\n"])
def test_long_texts_are_summarised_in_linear_time(unit):
    # Of 200,000 characters: with a step for every pair of them, this would take minutes.
    text = unit * (200_000 // len(unit))
    summarizer = ExtractiveSummarizer()
    [summary] = summarizer.block([(Item.parse(f"genre: sea; about: {text}"),)])
    assert summary.startswith("genre: sea x1")
    [again] = summarizer.update([(text, (Item("genre: sea"),))])
    assert "genre: sea x1" in again


@given(st.lists(st.text(), min_size=1, max_size=12))
def test_any_text_gives_one_line(texts):
    items = [Item.parse(f"x {text}") for text in texts]
    for method in METHODS:
        [trail] = summarize([blocks_by_count(items, 3)], ExtractiveSummarizer(), method)
        assert trail.summary
        assert "\n" not in trail.summary
