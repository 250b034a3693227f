"""Metrics worked out by hand, by brute force over every order of the ties, and by other libraries."""

import ast
import math
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from trsr.metrics import ranking

NAMES = [*(f"recall@{k}" for k in (1, 3, 5, 10)), *(f"{m}@{k}" for m in ("mrr", "ndcg") for k in (3, 5, 10)), "auc"]


def one(scores: list[float], labels: list[int]) -> dict[str, float]:
    return {name: values.item() for name, values in ranking.per_user([scores], [labels]).items()}


def first_of(users: int, width: int) -> np.ndarray:
    labels = np.zeros((users, width), dtype=bool)
    labels[:, 0] = True
    return labels


def test_a_positive_in_third_place():
    found = one([0.4, 0.9, -2, 0.5], [1, 0, 0, 0])
    assert list(found) == NAMES
    assert [found[f"recall@{k}"] for k in (1, 3, 5, 10)] == [0, 1, 1, 1]
    assert found["mrr@3"] == found["mrr@10"] == pytest.approx(1 / 3)
    assert found["ndcg@3"] == pytest.approx(1 / math.log2(4))
    assert found["auc"] == pytest.approx(1 / 3)


def test_a_positive_tied_for_places_two_and_three():
    found = one([5, 9, 5, 1], [1, 0, 0, 0])
    assert (found["recall@1"], found["recall@3"]) == (0, 1)
    assert found["mrr@3"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["ndcg@3"] == pytest.approx((1 / math.log2(3) + 1 / 2) / 2)
    assert found["auc"] == pytest.approx((1 + 0.5) / 3)


def test_two_positives_of_which_one_is_found():
    found = one([4, 3, 2, 1], [1, 0, 0, 1])
    assert (found["recall@1"], found["recall@3"], found["recall@5"]) == (0.5, 0.5, 1)
    assert found["mrr@3"] == 1
    assert found["ndcg@3"] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert found["ndcg@5"] == pytest.approx((1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))
    assert found["auc"] == 0.5


def test_a_constant_scorer_gets_exactly_chance():
    found = ranking.per_user(np.full((9, 21), 0.3), first_of(9, 21))
    for k in (1, 3, 5, 10):
        assert (found[f"recall@{k}"] == k / 21).all()
    for k in (3, 5, 10):
        assert found[f"mrr@{k}"] == pytest.approx(sum(1 / rank for rank in range(1, k + 1)) / 21, rel=1e-14)
        direct = sum(1 / math.log2(rank + 1) for rank in range(1, k + 1)) / 21
        assert found[f"ndcg@{k}"] == pytest.approx(direct, rel=1e-14)
    assert (found["auc"] == 0.5).all()


def test_cut_offs_of_ones_own():
    random = np.random.default_rng(9)
    scores, labels = random.integers(0, 4, (30, 8)), first_of(30, 8)
    found, usual = ranking.per_user(scores, labels, at=(3, 10**9)), ranking.per_user(scores, labels)
    assert list(found) == [*(f"{m}@{k}" for m in ("recall", "mrr", "ndcg") for k in (3, 10**9)), "auc"]
    for name in ("recall", "mrr", "ndcg"):
        np.testing.assert_array_equal(found[f"{name}@3"], usual[f"{name}@3"])
        # Past the last candidate nothing is added.
        np.testing.assert_array_equal(found[f"{name}@{10**9}"], usual[f"{name}@10"])
    for k in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="Cut-offs are whole numbers from 1"):
            ranking.per_user(scores, labels, at=[k])


def test_metrics_need_numpy_alone():
    tree = ast.parse(Path(ranking.__file__).read_text(encoding="utf-8"))
    froms = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    plain = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert froms | plain <= sys.stdlib_module_names | {"numpy"}


def test_where_the_positive_stands_does_not_matter():
    scores, labels = np.zeros((21, 21)), np.eye(21)
    assert all(np.ptp(values) == 0 for values in ranking.per_user(scores, labels).values())


@pytest.mark.parametrize("positives", [1, 2, 4])
def test_a_scorer_that_knows_the_target_gets_one(positives):
    labels = np.random.default_rng(0).permuted(np.arange(12) < positives, axis=-1)[None].repeat(5, axis=0)
    found = ranking.per_user(labels * 1.0, labels)
    for name, values in found.items():
        ceiling = min(1, int(name[7:]) / positives) if name.startswith("recall") else 1
        np.testing.assert_allclose(values, ceiling, rtol=1e-14, err_msg=name)


def by_brute_force(scores: list[int], labels: list[int]) -> dict[str, float]:
    """Means over every order of the candidates, sorted stably: over every order of the ties."""
    rows = []
    for order in permutations(range(len(scores))):
        ranked = [labels[place] for place in sorted(order, key=lambda place: -scores[place])]
        ranks = [rank for rank, label in enumerate(ranked, 1) if label]
        row = {f"recall@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 3, 5, 10)}
        for k in (3, 5, 10):
            row[f"mrr@{k}"] = 1 / ranks[0] if ranks[0] <= k else 0
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(ranks)) + 1))
            row[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k) / ideal
        rows.append(row)
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}


@st.composite
def tied_lists(draw):
    size = draw(st.integers(2, 6))
    scores = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    positives = draw(st.integers(1, size - 1))
    return scores, draw(st.permutations([1] * positives + [0] * (size - positives)))


@settings(max_examples=80, deadline=None)
@given(tied_lists())
def test_the_closed_form_is_the_mean_over_every_order_of_the_ties(case):
    scores, labels = case
    found = one(scores, labels)
    assert found.pop("auc") == pytest.approx(roc_auc_score(labels, scores))
    assert found == pytest.approx(by_brute_force(scores, labels))


def test_auc_of_many_candidates_is_the_one_of_scikit_learn():
    random = np.random.default_rng(1)
    scores, labels = random.integers(0, 30, (40, 200)), random.random((40, 200)) < 0.1
    expected = [roc_auc_score(label, score) for label, score in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(ranking.per_user(scores, labels)["auc"], expected)


def test_masked_cells_do_not_count():
    scores, labels = np.array([[1, 2, np.nan], [np.inf, 5, 3]]), np.array([[1, 0, 0], [0, 0, 1]])
    found = ranking.per_user(scores, labels, mask=[[1, 1, 0], [0, 1, 1]])
    expected = ranking.per_user([[1, 2], [3, 5]], [[1, 0], [1, 0]])
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_lists_of_unequal_length_are_padded_and_masked():
    scores, labels = [[1, 2], [5, 4, 3], [0, 9]], [[1, 0], [0, 1, 0], [0, 1]]
    found = ranking.per_user(*ranking.padded(scores, labels))
    for user, (own, chosen) in enumerate(zip(scores, labels, strict=True)):
        assert {name: values[user] for name, values in found.items()} == one(own, chosen)
    with pytest.raises(ValueError, match="row 1 has 3 scores and 2 labels"):
        ranking.padded([[1, 2], [1, 2, 3]], [[1, 0], [1, 0]])
    for broken in (([], []), ([[1, 2]], [])):
        with pytest.raises(ValueError, match="one of labels a user"):
            ranking.padded(*broken)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_never_ranks_silently(value):
    with pytest.raises(ValueError, match=r"row 1 \(1 such users\): scores must be finite"):
        ranking.per_user([[1, 0], [1, value]], [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("scores", "labels", "mask", "message"),
    [
        ([[1, 2]], [[1, 0, 0]], None, r"one shape \(users, candidates\), got \(1, 2\), \(1, 3\) and \(1, 2\)"),
        ([1, 2], [1, 0], None, "one shape"),
        (np.zeros((0, 3)), np.zeros((0, 3)), None, "one shape"),
        ([[1, 2]], [[2, 0]], None, "labels must hold 0 and 1"),
        ([[1, 2]], [[np.nan, 1]], None, "labels must hold 0 and 1"),
        ([[1, 2], [1, 2]], [[1, 0], [0, 0]], None, "row 1 .*no positive"),
        ([[1, 2], [1, 2]], [[1, 1], [0, 1]], None, "row 0 .*no negative"),
        ([[1, 2, 3]], [[1, 0, 0]], [[0, 1, 1]], "row 0 .*a positive stands where"),
    ],
)
def test_faults_are_refused(scores, labels, mask, message):
    with pytest.raises(ValueError, match=message):
        ranking.per_user(scores, labels, mask)
