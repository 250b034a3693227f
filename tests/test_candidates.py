"""The positive may stand anywhere, and always stands there."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from trsr.dataset.candidates import candidate_table, candidates, presence
from trsr.dataset.contract import HISTORIES
from trsr.errors import DataError


def row(user: str = "u1", negatives: tuple[str, ...] = ("b", "c", "d")) -> dict:
    return {"user_id": user, "history": ["h"], "target": "a", "negatives": list(negatives)}


def test_the_target_and_the_negatives_are_all_there_once():
    ids, labels = candidates(row(), seed=0)
    assert sorted(ids) == ["a", "b", "c", "d"]
    assert [item_id for item_id, label in zip(ids, labels, strict=True) if label] == ["a"]


def test_the_order_is_the_same_everywhere():
    # Written down, so that another Python, numpy or machine cannot change released scores unnoticed.
    assert [candidates(row("u1"), seed)[0] for seed in (0, 1)] == [["a", "c", "d", "b"], ["a", "d", "b", "c"]]
    assert candidates(row(), 0) == candidates(row(negatives=("d", "b", "c")), 0)


def test_the_positive_stands_at_every_place_alike():
    places = Counter(candidates(row(f"u{number}"), seed=3)[1].index(True) for number in range(4000))
    # 1000 expected at each of 4 places, standard deviation 27.
    assert all(850 < places[place] < 1150 for place in range(4))


def test_another_seed_is_another_order():
    assert len({tuple(candidates(row(), seed)[0]) for seed in range(20)}) > 5


def test_a_table_does_not_depend_on_the_order_of_rows():
    rows = Dataset.from_list([row("u1"), row("u2"), row("u3")], features=HISTORIES)
    lists, labels = candidate_table(rows, seed=0)
    turned, turned_labels = candidate_table(rows.select([2, 1, 0]), seed=0)
    assert turned == lists[::-1]
    np.testing.assert_array_equal(turned_labels, labels[::-1])
    assert labels.dtype == bool
    assert labels.sum(1).tolist() == [1, 1, 1]
    assert presence(lists).all()


def test_lists_of_unequal_length_are_masked():
    lists, labels = candidate_table([row("u1", ("b",)), row("u2")], seed=0)
    assert [len(ids) for ids in lists] == [2, 4]
    assert presence(lists).tolist() == [[True, True, False, False], [True] * 4]
    assert not labels[0, 2:].any()


def test_faults_are_refused():
    with pytest.raises(DataError, match="'u1': the target 'a' is also a negative"):
        candidates(row(negatives=("b", "a")), 0)
    with pytest.raises(DataError, match="'u1' has no negatives"):
        candidates(row(negatives=()), 0)
    with pytest.raises(DataError, match="No rows"):
        candidate_table([], 0)
