"""Peers see the training interactions, the texts and the history; here small enough to work out by hand."""

import math

import numpy as np
import pytest
from datasets import Dataset

from trsr import metrics, peers
from trsr.candidates import candidate_table, presence
from trsr.data import HISTORIES, DataError

# Both words stand in three of the four texts, so they weigh the same.
TEXTS = {"salt": "salt", "both": "Salt lamp", "lamp": "lamp", "much": "salt salt salt lamp"}


def histories(*rows: tuple[str, list[str], str, list[str]]) -> Dataset:
    return Dataset.from_list([dict(zip(HISTORIES, row, strict=True)) for row in rows], features=HISTORIES)


def by_item(scores: np.ndarray, rows: Dataset, seed: int = 0) -> list[dict[str, float]]:
    lists, _ = candidate_table(rows, seed)
    return [dict(zip(ids, values.tolist(), strict=False)) for ids, values in zip(lists, scores, strict=True)]


def test_popularity_counts_histories_and_targets_but_not_negatives():
    train = histories(("u1", ["a", "b", "a"], "c", ["d"]), ("u2", ["a"], "b", ["d"]))
    rows = histories(("u3", ["c"], "a", ["b", "d", "e"]), ("u4", [], "c", ["a", "b", "d"]))
    found = by_item(peers.popularity(train, rows, seed=0), rows)
    assert found == [{"a": 3, "b": 2, "d": 0, "e": 0}, {"c": 1, "a": 3, "b": 2, "d": 0}]


def test_tfidf_is_the_cosine_with_the_mean_of_the_history():
    rows = histories(("u1", ["salt"], "both", ["lamp", "much"]), ("u2", ["salt", "lamp"], "both", ["lamp", "much"]))
    one, two = by_item(peers.tfidf(TEXTS, rows, seed=0), rows)
    weight = 1 + math.log(3)  # sublinear: three times salt
    length = math.hypot(weight, 1)
    assert one == pytest.approx({"both": math.sqrt(0.5), "lamp": 0, "much": weight / length})
    assert two == pytest.approx({"both": 1, "lamp": math.sqrt(0.5), "much": (weight + 1) / length * math.sqrt(0.5)})


def test_tfidf_looks_at_the_last_items_only():
    long = histories(("u1", ["lamp", "lamp", "salt"], "both", ["lamp"]))
    short = histories(("u1", ["salt"], "both", ["lamp"]))
    np.testing.assert_allclose(peers.tfidf(TEXTS, long, 0, recent=1), peers.tfidf(TEXTS, short, 0))
    assert not np.allclose(peers.tfidf(TEXTS, long, 0), peers.tfidf(TEXTS, short, 0))


def test_tfidf_without_anything_to_go_by_ties_all():
    texts = TEXTS | {"odd": "?"}  # no word of the vocabulary
    rows = histories(("u1", [], "both", ["lamp"]), ("u2", ["odd"], "both", ["lamp"]), ("u3", ["lamp"], "odd", ["salt"]))
    assert not peers.tfidf(texts, rows, seed=0).any()


def test_peers_score_the_candidates_in_their_order():
    rows = histories(*((f"u{number}", ["salt"], "much", ["lamp", "both"]) for number in range(8)))
    train = histories(("t", ["much"], "much", ["lamp"]))
    for seed in (0, 1):
        _, labels = candidate_table(rows, seed)
        for scores in (peers.popularity(train, rows, seed), peers.tfidf(TEXTS, rows, seed)):
            assert scores.dtype == np.float64
            assert metrics.per_user(scores, labels)["recall@1"].tolist() == [1] * 8


def test_chance_is_chance():
    rows = histories(("u1", [], "a", [f"n{number}" for number in range(20)]))
    _, labels = candidate_table(rows, seed=0)
    assert metrics.per_user(peers.chance(rows, 0), labels)["recall@3"].tolist() == [3 / 21]


def test_shorter_lists_must_be_masked():
    rows = histories(("u1", [], "a", ["b"]), ("u2", [], "a", ["b", "c"]))
    lists, labels = candidate_table(rows, seed=0)
    scores = peers.chance(rows, 0)
    assert metrics.per_user(scores, labels, presence(lists))["recall@1"].tolist() == [1 / 2, 1 / 3]
    with pytest.raises(ValueError, match="User in row 0"):
        metrics.per_user(scores, labels)


def test_faults_are_refused():
    rows = histories(("u1", ["salt"], "both", ["nowhere"]))
    with pytest.raises(DataError, match="'nowhere'"):
        peers.tfidf(TEXTS, rows, seed=0)
    with pytest.raises(ValueError, match="recent is 0"):
        peers.tfidf(TEXTS, rows, seed=0, recent=0)
