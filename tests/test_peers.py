"""Peers see the training interactions, the texts and the history; here small enough to work out by hand."""

import math

import numpy as np
import pytest
from datasets import Dataset

from trsr.dataset.candidates import Candidates
from trsr.dataset.contract import HISTORIES
from trsr.errors import DataError
from trsr.metrics import ranking
from trsr.recommender import baselines

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
    found = by_item(baselines.popularity(train, rows), rows)
    assert found == [{"a": 3, "b": 2, "d": 0, "e": 0}, {"c": 1, "a": 3, "b": 2, "d": 0}]


def test_tfidf_is_the_cosine_with_the_mean_of_the_history():
    rows = asked(("u1", ["salt"], "both", ["lamp", "much"]), ("u2", ["salt", "lamp"], "both", ["lamp", "much"]))
    one, two = by_item(baselines.tfidf(TEXTS, rows), rows)
    weight = 1 + math.log(3)  # sublinear: three times salt
    length = math.hypot(weight, 1)
    assert one == pytest.approx({"both": math.sqrt(0.5), "lamp": 0, "much": weight / length})
    assert two == pytest.approx({"both": 1, "lamp": math.sqrt(0.5), "much": (weight + 1) / length * math.sqrt(0.5)})


def test_tfidf_looks_at_the_last_items_only():
    long = asked(("u1", ["lamp", "lamp", "salt"], "both", ["lamp"]))
    short = asked(("u1", ["salt"], "both", ["lamp"]))
    np.testing.assert_allclose(baselines.tfidf(TEXTS, long, recent=1), baselines.tfidf(TEXTS, short))
    assert not np.allclose(baselines.tfidf(TEXTS, long), baselines.tfidf(TEXTS, short))


def test_tfidf_without_anything_to_go_by_ties_all():
    texts = TEXTS | {"odd": "?"}  # no word of the vocabulary
    rows = asked(("u1", [], "both", ["lamp"]), ("u2", ["odd"], "both", ["lamp"]), ("u3", ["lamp"], "odd", ["salt"]))
    assert not baselines.tfidf(texts, rows).any()


def test_peers_score_the_candidates_in_their_order():
    rows = [(f"u{number}", ["salt"], "much", ["lamp", "both"]) for number in range(8)]
    train = histories(("t", ["much"], "much", ["lamp"]))
    for seed in (0, 1):
        candidates = asked(*rows, seed=seed)
        for scores in (baselines.popularity(train, candidates), baselines.tfidf(TEXTS, candidates)):
            assert scores.dtype == np.float64
            assert ranking.per_user(scores, candidates.labels)["recall@1"].tolist() == [1] * 8


def test_chance_is_chance():
    rows = asked(("u1", [], "a", [f"n{number}" for number in range(20)]))
    assert ranking.per_user(baselines.chance(rows), rows.labels)["recall@3"].tolist() == [3 / 21]


def test_shorter_lists_must_be_masked():
    rows = asked(("u1", [], "a", ["b"]), ("u2", [], "a", ["b", "c"]))
    scores = baselines.chance(rows)
    assert ranking.per_user(scores, rows.labels, rows.mask)["recall@1"].tolist() == [1 / 2, 1 / 3]
    with pytest.raises(ValueError, match="User in row 0"):
        ranking.per_user(scores, rows.labels)


def test_faults_are_refused():
    rows = asked(("u1", ["salt"], "both", ["nowhere"]))
    with pytest.raises(DataError, match="'nowhere'"):
        baselines.tfidf(TEXTS, rows)
    with pytest.raises(ValueError, match="recent is 0"):
        baselines.tfidf(TEXTS, rows, recent=0)


def test_item_knn_is_the_shrunk_cosine_summed_over_the_last_items():
    # Counts: a 3, b 2, c 2; together: a-b 2, a-c 1, b-c 1. Twice in one sequence counts once.
    sequences = [["a", "b", "a"], ["a", "b", "c"], ["a"], ["c"]]
    rows = asked(("u1", ["b", "a"], "c", ["d"]), ("u2", ["new", "b"], "a", ["c", "d"]), ("u3", [], "a", ["b"]))
    found = by_item(baselines.item_knn(sequences, rows, shrink=1), rows)
    ab, ac, bc = 2 / (math.sqrt(6) + 1), 1 / (math.sqrt(6) + 1), 1 / (2 + 1)
    assert found[0] == pytest.approx({"c": bc + ac, "d": 0})
    assert found[1] == pytest.approx({"a": ab, "c": bc, "d": 0})
    assert found[2] == {"a": 0, "b": 0}
    last = by_item(baselines.item_knn(sequences, rows, shrink=1, recent=1), rows)
    assert last[0] == pytest.approx({"c": ac, "d": 0})


def test_an_item_is_no_neighbour_of_itself():
    rows = asked(("u1", ["a"], "a", ["b"]))
    assert by_item(baselines.item_knn([["a", "b"]], rows, shrink=0), rows) == [{"a": 0, "b": 1}]


def test_bm25_by_hand():
    # 4 texts, 8 words, so a mean length of 2; salt and lamp stand in 3 texts each.
    rows = asked(("u1", ["salt"], "both", ["lamp", "much"]), ("u2", ["much"], "salt", ["lamp"]))
    one, two = by_item(baselines.bm25(TEXTS, rows, k1=1, b=0.5), rows)
    rarity = math.log(1 + 1.5 / 3.5)
    # tf (k1 + 1) / (tf + k1 (1 - b + b length / mean)): lengths 1, 2 and 4.
    once, twice, thrice = 2 / (1 + 0.75), 2 / (1 + 1), 3 * 2 / (3 + 1.5)
    assert one == pytest.approx({"both": rarity * twice, "lamp": 0, "much": rarity * thrice})
    # The history's text says salt three times and lamp once.
    assert two == pytest.approx({"salt": 3 * rarity * once, "lamp": rarity * once})


def test_nearest_averages_the_nearest_of_the_last_items():
    vectors = {"x": np.array([2.0, 0]), "y": np.array([0, 3.0]), "d": np.array([1.0, 1]), "none": np.zeros(2)}
    rows = asked(("u1", ["x", "y", "x"], "d", ["y", "none"]), ("u2", [], "d", ["x"]))
    one, two = by_item(baselines.nearest(vectors, rows, count=2), rows)
    assert one == pytest.approx({"d": math.sqrt(0.5), "y": 0.5, "none": 0})
    assert two == {"d": 0, "x": 0}
    assert by_item(baselines.nearest(vectors, rows, recent=1), rows)[0] == pytest.approx(
        {"d": math.sqrt(0.5), "y": 0, "none": 0}
    )


def test_a_leaked_target_gets_everything():
    """The control: whoever has seen the targets ranks them first."""
    rows = asked(*((f"u{n}", ["a", "b"], "c", [f"n{k}" for k in range(20)]) for n in range(5)))
    leaked = [[*row["history"], row["target"]] for row in rows.rows]
    for scores in (baselines.item_knn(leaked, rows), baselines.popularity(rows.rows, rows)):
        assert ranking.per_user(scores, rows.labels)["recall@1"].tolist() == [1] * 5
