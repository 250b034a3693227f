"""Peers see the training interactions, the texts and the history; here small enough to work out by hand."""

import math

import numpy as np
import pytest
from datasets import Dataset

from trsr.dataset.candidates import Candidates
from trsr.dataset.contract import HISTORIES
from trsr.dataset.sequences import training_sequences
from trsr.errors import DataError
from trsr.metrics import ranking
from trsr.recommender import baselines
from trsr.recommender.compare import slices

CHANCE = baselines.baseline_scorer("chance", None, None, {})
# Both words stand in three of the four texts, so they weigh the same.
TEXTS = {"salt": "salt", "both": "Salt lamp", "lamp": "lamp", "much": "salt salt salt lamp"}


def histories(*rows: tuple[str, list[str], str, list[str]]) -> Dataset:
    return Dataset.from_list([dict(zip(HISTORIES, row, strict=True)) for row in rows], features=HISTORIES)


def asked(*rows: tuple[str, list[str], str, list[str]], seed: int = 0) -> Candidates:
    return Candidates.of(histories(*rows), seed)


def by_item(scores: np.ndarray, candidates: Candidates) -> list[dict[str, float]]:
    pairs = zip(candidates.item_ids, scores, strict=True)
    return [dict(zip(ids, values.tolist(), strict=False)) for ids, values in pairs]


def test_popularity_counts_histories_and_targets_but_not_negatives():
    train = histories(("u1", ["a", "b", "a"], "c", ["d"]), ("u2", ["a"], "b", ["d"]))
    rows = asked(("u3", ["c"], "a", ["b", "d", "e"]), ("u4", [], "c", ["a", "b", "d"]))
    found = by_item(rows.score(baselines.popularity_scorer(train)), rows)
    assert found == [{"a": 3, "b": 2, "d": 0, "e": 0}, {"c": 1, "a": 3, "b": 2, "d": 0}]


def test_tfidf_is_the_cosine_with_the_mean_of_the_history():
    rows = asked(("u1", ["salt"], "both", ["lamp", "much"]), ("u2", ["salt", "lamp"], "both", ["lamp", "much"]))
    one, two = by_item(rows.score(baselines.tfidf_scorer(TEXTS)), rows)
    weight = 1 + math.log(3)  # sublinear: three times salt
    length = math.hypot(weight, 1)
    assert one == pytest.approx({"both": math.sqrt(0.5), "lamp": 0, "much": weight / length})
    assert two == pytest.approx({"both": 1, "lamp": math.sqrt(0.5), "much": (weight + 1) / length * math.sqrt(0.5)})


def test_a_catalogue_is_scored_as_its_items_are_one_by_one():
    users = [["salt", "lamp"], ["both", "much", "salt"], ["lamp"], []]
    scorers = [baselines.tfidf_scorer(TEXTS), baselines.bm25_scorer(TEXTS), baselines.item_knn_scorer(users)]
    scorers.append(baselines.popularity_scorer(histories(("t", ["salt", "much"], "salt", ["lamp"]))))
    ids = list(TEXTS)
    for scorer in scorers:
        for history in users:
            one_by_one = [scorer({"history": history}, [item_id])[0] for item_id in ids]
            np.testing.assert_array_equal(scorer({"history": history}, ids), one_by_one)
            np.testing.assert_array_equal(scorer({"history": history}, ids[::-1]), one_by_one[::-1])


@pytest.mark.parametrize("scorer", [baselines.tfidf_scorer, baselines.bm25_scorer])
def test_texts_without_a_word_of_two_letters_tie(scorer):
    texts = {"a": "書", "b": "1", "c": ""}
    rows = asked(("u1", ["a"], "b", ["c"]))
    assert by_item(rows.score(scorer(texts)), rows) == [{"b": 0, "c": 0}]


def test_tfidf_looks_at_the_last_items_only():
    long = asked(("u1", ["lamp", "lamp", "salt"], "both", ["lamp"]))
    short = asked(("u1", ["salt"], "both", ["lamp"]))
    scorer = baselines.tfidf_scorer(TEXTS)
    np.testing.assert_allclose(long.score(baselines.tfidf_scorer(TEXTS, recent=1)), short.score(scorer))
    assert not np.allclose(long.score(scorer), short.score(scorer))


def test_tfidf_without_anything_to_go_by_ties_all():
    texts = TEXTS | {"odd": "?"}  # no word of the vocabulary
    rows = asked(("u1", [], "both", ["lamp"]), ("u2", ["odd"], "both", ["lamp"]), ("u3", ["lamp"], "odd", ["salt"]))
    assert not rows.score(baselines.tfidf_scorer(texts)).any()


def test_peers_score_the_candidates_in_their_order():
    rows = [(f"u{number}", ["salt"], "much", ["lamp", "both"]) for number in range(8)]
    train = histories(("t", ["much"], "much", ["lamp"]))
    for seed in (0, 1):
        candidates = asked(*rows, seed=seed)
        for scorer in (baselines.popularity_scorer(train), baselines.tfidf_scorer(TEXTS)):
            scores = candidates.score(scorer)
            assert scores.dtype == np.float64
            assert ranking.per_user(scores, candidates.labels)["recall@1"].tolist() == [1] * 8


def test_chance_is_chance():
    rows = asked(("u1", [], "a", [f"n{number}" for number in range(20)]))
    assert ranking.per_user(rows.score(CHANCE), rows.labels)["recall@3"].tolist() == [3 / 21]


def test_shorter_lists_must_be_masked():
    rows = asked(("u1", [], "a", ["b"]), ("u2", [], "a", ["b", "c"]))
    scores = rows.score(CHANCE)
    assert ranking.per_user(scores, rows.labels, rows.mask)["recall@1"].tolist() == [1 / 2, 1 / 3]
    with pytest.raises(ValueError, match="User in row 0"):
        ranking.per_user(scores, rows.labels)


def test_faults_are_refused():
    vectors = {name: np.ones(2) for name in TEXTS}
    scorers = (baselines.tfidf_scorer(TEXTS), baselines.bm25_scorer(TEXTS), baselines.nearest_scorer(vectors))
    for rows in (asked(("u1", ["salt"], "both", ["nowhere"])), asked(("u1", ["nowhere"], "both", ["lamp"]))):
        for scorer in scorers:
            with pytest.raises(DataError, match="Item 'nowhere' is not in the items config"):
                rows.score(scorer)
    with pytest.raises(ValueError, match="recent is 0"):
        baselines.tfidf_scorer(TEXTS, recent=0)


def test_item_knn_is_the_shrunk_cosine_summed_over_the_last_items():
    # Counts: a 3, b 2, c 2; together: a-b 2, a-c 1, b-c 1. Twice in one sequence counts once.
    sequences = [["a", "b", "a"], ["a", "b", "c"], ["a"], ["c"]]
    rows = asked(("u1", ["b", "a"], "c", ["d"]), ("u2", ["new", "b"], "a", ["c", "d"]), ("u3", [], "a", ["b"]))
    found = by_item(rows.score(baselines.item_knn_scorer(sequences, shrink=1)), rows)
    ab, ac, bc = 2 / (math.sqrt(6) + 1), 1 / (math.sqrt(6) + 1), 1 / (2 + 1)
    assert found[0] == pytest.approx({"c": bc + ac, "d": 0})
    assert found[1] == pytest.approx({"a": ab, "c": bc, "d": 0})
    assert found[2] == {"a": 0, "b": 0}
    last = by_item(rows.score(baselines.item_knn_scorer(sequences, shrink=1, recent=1)), rows)
    assert last[0] == pytest.approx({"c": ac, "d": 0})


def test_an_item_is_no_neighbour_of_itself():
    rows = asked(("u1", ["a"], "a", ["b"]))
    assert by_item(rows.score(baselines.item_knn_scorer([["a", "b"]], shrink=0)), rows) == [{"a": 0, "b": 1}]


def test_bm25_by_hand():
    # 4 texts, 8 words, so a mean length of 2; salt and lamp stand in 3 texts each.
    rows = asked(("u1", ["salt"], "both", ["lamp", "much"]), ("u2", ["much"], "salt", ["lamp"]))
    one, two = by_item(rows.score(baselines.bm25_scorer(TEXTS, k1=1, b=0.5)), rows)
    rarity = math.log(1 + 1.5 / 3.5)
    # tf (k1 + 1) / (tf + k1 (1 - b + b length / mean)): lengths 1, 2 and 4.
    once, twice, thrice = 2 / (1 + 0.75), 2 / (1 + 1), 3 * 2 / (3 + 1.5)
    assert one == pytest.approx({"both": rarity * twice, "lamp": 0, "much": rarity * thrice})
    # The history's text says salt three times and lamp once.
    assert two == pytest.approx({"salt": 3 * rarity * once, "lamp": rarity * once})


def test_nearest_averages_the_nearest_of_the_last_items():
    vectors = {"x": np.array([2.0, 0]), "y": np.array([0, 3.0]), "d": np.array([1.0, 1]), "none": np.zeros(2)}
    rows = asked(("u1", ["x", "y", "x"], "d", ["y", "none"]), ("u2", [], "d", ["x"]))
    one, two = by_item(rows.score(baselines.nearest_scorer(vectors, count=2)), rows)
    assert one == pytest.approx({"d": math.sqrt(0.5), "y": 0.5, "none": 0})
    assert two == {"d": 0, "x": 0}
    assert by_item(rows.score(baselines.nearest_scorer(vectors, recent=1)), rows)[0] == pytest.approx(
        {"d": math.sqrt(0.5), "y": 0, "none": 0}
    )


def test_a_leaked_target_gets_everything():
    """The control: whoever has seen the targets ranks them first."""
    rows = asked(*((f"u{n}", ["a", "b"], "c", [f"n{k}" for k in range(20)]) for n in range(5)))
    leaked = [[*row["history"], row["target"]] for row in rows.rows]
    for scorer in (baselines.item_knn_scorer(leaked), baselines.popularity_scorer(rows.rows)):
        scores = rows.score(scorer)
        assert ranking.per_user(scores, rows.labels)["recall@1"].tolist() == [1] * 5


def knn(rows, train, **row):
    """The score of item b for a user who met a, by the item-kNN of an evaluation."""
    scorer = baselines.baseline_scorer("item-knn", rows, train, {})
    return float(scorer({"history": ["a"]}, ["b"])[0])


def similarity(both, one, other):
    return both / (math.sqrt(one * other) + 10)


def test_item_knn_counts_a_user_once_with_all_rows_and_a_training_user_by_training_alone():
    train = histories(("u", ["a"], "x", []), ("u", ["y"], "b", []), ("v", ["a", "b"], "z", []))
    rows = histories(("v", ["a", "b", "z"], "c", []), ("w", ["a"], "c", []), ("w", ["a", "b"], "d", []))
    # a and b: u in two rows, v in training alone, w in two evaluated rows.
    assert knn(rows, train) == pytest.approx(similarity(3, 3, 3))
    assert knn(rows.select([]), train) == pytest.approx(similarity(2, 2, 2))
    # What is another row's target tells nothing.
    rows = histories(("w", ["a"], "b", []), ("w", ["a", "b"], "d", []))
    assert knn(rows, train) == pytest.approx(similarity(2, 3, 2))


def test_item_knn_counts_the_first_users_however_many_rows_they_have(monkeypatch):
    train = histories(("u", ["a"], "x", []), ("u", ["y"], "b", []), ("v", ["a"], "b", []), ("w", ["a"], "b", []))
    monkeypatch.setattr(baselines, "NEIGHBOURS", 2)
    rows = histories(("w", ["a", "b"], "c", []))  # beyond the bound, and still a training user
    assert knn(rows, train) == pytest.approx(similarity(2, 2, 2))


def test_popularity_counts_an_interaction_once_however_many_rows_hold_it():
    train = histories(("u", ["a"], "b", []), ("u", ["a", "b"], "c", []), ("v", ["a"], "c", []))
    scorer = baselines.popularity_scorer(train)
    assert scorer({}, list("abcd")).tolist() == [2, 1, 2, 0]
    numbers = {name: number for number, name in enumerate("abcd")}
    assert training_sequences({"train": train}, numbers).counts(4).tolist() == [2, 1, 2, 0]
    # The slices of a comparison count in the same way; no training user needs a history.
    asked_rows = [{"target": "b"}, {"target": "a"}, {"target": "a"}]
    assert slices.by_popularity(asked_rows, train) == ["1 time", "2 times", "2 times"]
    assert baselines.popularity_scorer(histories(("u", [], "a", [])))({}, ["a"]).tolist() == [1]
