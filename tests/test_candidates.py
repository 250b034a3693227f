"""The positive may stand anywhere, and always stands there."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from trsr.dataset.candidates import Candidates, candidates
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
    table, turned = Candidates.of(rows, seed=0), Candidates.of(rows.select([2, 1, 0]), seed=0)
    assert turned.item_ids == table.item_ids[::-1]
    np.testing.assert_array_equal(turned.labels, table.labels[::-1])
    assert table.labels.dtype == bool
    assert table.labels.sum(1).tolist() == [1, 1, 1]
    assert table.mask.all()


def test_lists_of_unequal_length_are_masked():
    table = Candidates.of(Dataset.from_list([row("u1", ("b",)), row("u2")], features=HISTORIES), seed=0)
    assert [len(ids) for ids in table.item_ids] == [2, 4]
    assert table.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert not table.labels[0, 2:].any()


def test_a_function_scores_the_candidates_in_their_order():
    table = Candidates.of(Dataset.from_list([row("u1", ("b",)), row("u2")], features=HISTORIES), seed=0)
    scores = table.score(lambda row, ids: [float(item_id == row["target"]) for item_id in ids])
    np.testing.assert_array_equal(scores == 1, table.labels)
    np.testing.assert_array_equal(np.isnan(scores), ~table.mask)


def test_faults_are_refused():
    with pytest.raises(DataError, match="'u1': the target 'a' is also a negative"):
        candidates(row(negatives=("b", "a")), 0)
    with pytest.raises(DataError, match="'u1' has no negatives"):
        candidates(row(negatives=()), 0)
    with pytest.raises(DataError, match="No rows"):
        Candidates.of(Dataset.from_list([row()], features=HISTORIES).select([]), 0)
