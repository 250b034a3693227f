import array
import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from trsr.core.history import Item, blocks_by_count, clean, field_text, newest, sentence


def test_clean_makes_one_line_and_keeps_every_script():
    assert clean("a\nb\tc\u2028d\u0085e\r\n  f") == "a b c d e f"
    assert clean("zero\u200bwidth \u202eright\u202c \ufeffmark\u2066") == "zerowidth right mark"
    assert clean("日本語 العربية हिन्दी 👩‍👩‍👧 é") == "日本語 العربية हिन्दी 👩‍👩‍👧 é"
    assert clean("bell\x07 null\x00 lone\ud800") == "bell null lone\ufffd"
    assert clean("hidden\U000e0041\U000e007f tags") == "hidden tags"
    assert clean("hid\U000e0100den \U000e01ef\U000e0155bytes \U000e0120") == "hidden bytes"
    assert clean("☎\ufe0e ❤\ufe0f 葛\U000e0100城") == "☎\ufe0e ❤\ufe0f 葛城"  # of emoji they stay


def test_sentence_shows_fields_in_order_without_ids():
    fields = {"item_id": "B01", "title": "Emma", "price": 3.5, "genres": ["classics", "romance"], "brand": None}
    assert sentence(fields) == "title: Emma; price: 3.5; genres: classics, romance"


def test_a_value_cannot_pose_as_a_field():
    assert sentence({"title": "X; genre: romance", "ge:nre;": "y"}) == "title: X, genre: romance; ge nre,: y"


NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (NAN, ""),
        (np.nan, ""),
        (np.float32("nan"), ""),
        (pd.NaT, ""),
        (np.datetime64("NaT"), ""),
        (pd.NA, ""),
        ("", ""),
        (" \t", ""),
        ([], ""),
        ([None, NAN, pd.NA, pd.NaT, " "], ""),
        (["a", None, "b", NAN, "", "c"], "a, b, c"),
        (["a", ["b", ("c", None)], []], "a, b, c"),
        (np.array(["a", None, "b"], dtype=object), "a, b"),
        (np.array([[1, 2], [3, 4]]), "1, 2, 3, 4"),
        (pd.Series(["a", None]), "a"),
        (array.array("i", [2, 1]), "2, 1"),
        (np.array("a"), "a"),
        ({"b", "c", "a", ""}, "a, b, c"),
        (["x", frozenset((10, 9))], "x, 10, 9"),
        (set(), ""),
        (True, "True"),
        (np.bool_(False), "False"),
        (0, "0"),
        (np.int64(7), "7"),
        (3.5, "3.5"),
        (np.float64(3.5), "3.5"),
        (np.float32(3.1), "3.0999999046325684"),
        (np.str_("a"), "a"),
        (decimal.Decimal("9.50"), "9.50"),
        (decimal.Decimal("sNaN"), ""),
        (["a", decimal.Decimal("sNaN")], "a"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (pd.Timestamp("2020-01-02"), "2020-01-02 00:00:00"),
        ("nan", "nan"),
        ("a\nb", "a b"),
    ],
)
def test_a_field_of_any_type_is_one_line(value, text):
    assert field_text(value) == text
    assert sentence({"f": value, "g": 1}) == (f"f: {text}; g: 1" if text else "g: 1")


def test_fields_are_cut():
    assert field_text("one two, three", words=2) == "one two"
    assert field_text("one two, three", words=3) == "one two, three"
    assert field_text(["x", None, "y", "z"], values=2) == "x, y"
    assert field_text("a " * 50) == " ".join("a" * 50)
    # A whole sentence is not.
    assert sentence({"text": "a b c", "title": "T"}, words=2) == "a b c"
    assert sentence({"text": NAN, "title": "a b c"}, words=2) == "title: a b"
    assert Item.parse({"title": "a b c", "genres": ["x", "y"]}, 2, 1) == Item("title: a b; genres: x")


def test_item_takes_text_dicts_and_items():
    assert Item.parse("a\nb").text == "a b"
    assert Item.parse({"item_id": "1", "title": "t", "text": "whole sentence"}).text == "whole sentence"
    assert Item.parse(Item("x")) == Item("x")


@pytest.mark.parametrize(
    "empty", ["", " \n\u200b", {}, {"item_id": "7"}, {"title": None}, {"title": NAN, "genres": [None]}]
)
def test_an_item_without_text_is_refused(empty):
    with pytest.raises(ValueError, match="no text"):
        Item.parse(empty)


def test_an_item_of_another_type_is_refused():
    with pytest.raises(TypeError, match="string or a dict of fields, got int"):
        Item.parse(7)


def items(count):
    return [Item(f"item {n}") for n in range(count)]


def test_blocks_are_counted_from_the_first_item():
    assert [len(block) for block in blocks_by_count(items(12))] == [5, 5, 2]
    # A longer history leaves full blocks as they were.
    assert blocks_by_count(items(14))[:2] == blocks_by_count(items(12))[:2]


def test_of_a_long_history_the_newest_blocks_stay():
    blocks = blocks_by_count(items(33), size=5, max_blocks=5)
    assert [len(block) for block in blocks] == [5, 5, 5, 5, 3]
    assert blocks[-1][-1] == Item("item 32")


def test_no_items_no_blocks():
    assert blocks_by_count([]) == []


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        blocks_by_count(items(3), *sizes)


@pytest.mark.parametrize(
    ("count", "kept"), [(0, []), (1, [4]), (3, [2, 3, 4]), (4, [1, 2, 3, 4]), (5, [1, 2, 3, 4]), (9, [1, 2, 3, 4])]
)
def test_the_newest_items_of_a_shorter_history_are_all_of_it(count, kept):
    assert newest((1, 2, 3, 4), count) == kept
