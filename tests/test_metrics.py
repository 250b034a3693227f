"""Metrics worked out by hand, by brute force over every order of the ties, and by other libraries."""

import json
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test
from sklearn.metrics import roc_auc_score

from trsr import metrics

NAMES = [*(f"recall@{k}" for k in (1, 3, 5, 10)), *(f"{m}@{k}" for m in ("mrr", "ndcg") for k in (3, 5, 10)), "auc"]


def one(scores: list[float], labels: list[int]) -> dict[str, float]:
    return {name: values.item() for name, values in metrics.per_user([scores], [labels]).items()}


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
    found = metrics.evaluate(np.full((997, 21), 0.3), first_of(997, 21))
    for k in (1, 3, 5, 10):
        assert found[f"recall@{k}"] == {"value": k / 21, "low": k / 21, "high": k / 21}
    for k in (3, 5, 10):
        assert found[f"mrr@{k}"]["value"] == pytest.approx(sum(1 / rank for rank in range(1, k + 1)) / 21, rel=1e-14)
        direct = sum(1 / math.log2(rank + 1) for rank in range(1, k + 1)) / 21
        assert found[f"ndcg@{k}"]["value"] == pytest.approx(direct, rel=1e-14)
    assert found["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_where_the_positive_stands_does_not_matter():
    scores, labels = np.zeros((21, 21)), np.eye(21)
    assert all(np.ptp(values) == 0 for values in metrics.per_user(scores, labels).values())


@pytest.mark.parametrize("positives", [1, 2, 4])
def test_a_scorer_that_knows_the_target_gets_one(positives):
    labels = np.random.default_rng(0).permuted(np.arange(12) < positives, axis=-1)[None].repeat(5, axis=0)
    found = metrics.per_user(labels * 1.0, labels)
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
    np.testing.assert_allclose(metrics.per_user(scores, labels)["auc"], expected)


def test_masked_cells_do_not_count():
    scores, labels = np.array([[1, 2, np.nan], [np.inf, 5, 3]]), np.array([[1, 0, 0], [0, 0, 1]])
    found = metrics.per_user(scores, labels, mask=[[1, 1, 0], [0, 1, 1]])
    expected = metrics.per_user([[1, 2], [3, 5]], [[1, 0], [1, 0]])
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_never_ranks_silently(value):
    with pytest.raises(ValueError, match=r"row 1 \(1 such users\): scores must be finite"):
        metrics.per_user([[1, 0], [1, value]], [[1, 0], [1, 0]])


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
        metrics.per_user(scores, labels, mask)


def test_calibration_error_by_hand():
    # Bins of 1/2: (0.1 + 0.3 + 0.2 - 1) / 4 = 0.1 below the middle, (0.9 - 1) / 4 = 0.025 above it.
    assert metrics.expected_calibration_error([0.1, 0.3, 0.2, 0.9], [0, 0, 1, 1], bins=2) == pytest.approx(0.125)
    assert metrics.expected_calibration_error([0.0, 1.0], [0, 1]) == 0  # 1.0 falls in the last bin
    assert metrics.expected_calibration_error([1.0, 0.0], [0, 1]) == 1
    assert metrics.expected_calibration_error([[0.25] * 4], [[1, 0, 0, 0]]) == 0


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([1.5, 0], [1, 0], "from 0 to 1"),
        ([np.nan, 0], [1, 0], "from 0 to 1"),
        ([0.5], [1, 0], "a label 0 or 1 a probability"),
        ([0.5], [2], "a label 0 or 1 a probability"),
        ([], [], "a label 0 or 1 a probability"),
    ],
)
def test_calibration_of_nonsense_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.expected_calibration_error(probabilities, labels)


def test_evaluate_joins_all_and_is_plain_json():
    random = np.random.default_rng(2)
    scores, labels = random.normal(size=(50, 21)), first_of(50, 21)
    probabilities = 1 / (1 + np.exp(-scores))
    found = metrics.evaluate(scores, labels, probabilities, seed=3)
    assert json.loads(json.dumps(found)) == found
    assert (found["n_users"], found["n_candidates"]) == (50, 21)
    assert list(found)[2:] == [*NAMES, "ece"]
    assert found["ece"]["value"] == pytest.approx(metrics.expected_calibration_error(probabilities, labels))
    assert found["recall@3"]["value"] == pytest.approx(metrics.per_user(scores, labels)["recall@3"].mean())
    assert "ece" not in metrics.evaluate(scores, labels)


def test_evaluate_leaves_masked_probabilities_out():
    scores, labels, mask = np.ones((2, 3)), [[1, 0, 0], [0, 1, 0]], [[1, 1, 0], [1, 1, 1]]
    found = metrics.evaluate(scores, labels, [[1, 0, np.nan], [0, 1, 0]], mask=mask)
    assert found["n_candidates"] == 2.5
    assert found["ece"] == {"value": 0, "low": 0, "high": 0}
    with pytest.raises(ValueError, match="probabilities must be finite"):
        metrics.evaluate(scores, labels, [[1, np.nan, 0], [0, 1, 0]], mask=mask)


def test_the_interval_holds_the_mean_and_follows_the_seed():
    values = {"hit": np.random.default_rng(4).random(400) < 0.3}
    found = metrics.summary(values, seed=0)
    hit = found["hit"]
    assert hit["low"] < hit["value"] < hit["high"]
    # The normal interval of a share.
    width = 2 * 1.96 * math.sqrt(hit["value"] * (1 - hit["value"]) / 400)
    assert hit["high"] - hit["low"] == pytest.approx(width, rel=0.1)
    assert metrics.summary(values, seed=0) == found
    assert metrics.summary(values, seed=1) != found


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    random = np.random.default_rng(5)
    a, b = random.random(30), random.random(30)
    whole = metrics.summary({"a": a}, seed=0)["a"], metrics.paired_test(a, b, seed=0)
    monkeypatch.setattr(metrics, "_CELLS", 7 * 30)
    parts = metrics.summary({"a": a}, seed=0)["a"], metrics.paired_test(a, b, seed=0)
    for one_of, other in zip(whole, parts, strict=True):
        assert one_of == pytest.approx(other)


def test_identical_systems_do_not_differ():
    values = np.random.default_rng(6).random(100)
    assert metrics.paired_test(values, values, seed=0) == {"difference": 0, "low": 0, "high": 0, "p_value": 1}


def test_a_clear_difference_is_found_either_way_round():
    random = np.random.default_rng(7)
    weak = random.random(200)
    strong = weak + 0.2 + 0.1 * random.normal(size=200)
    found, turned = metrics.paired_test(strong, weak, seed=0), metrics.paired_test(weak, strong, seed=0)
    assert found["low"] > 0
    assert found["p_value"] == turned["p_value"] == 1 / 10001
    assert found["difference"] == -turned["difference"]
    assert (found["low"], found["high"]) == pytest.approx((-turned["high"], -turned["low"]))


def test_the_p_value_is_the_one_of_every_sign_flip():
    a, b = np.array([3, 1, 4, 1, 5, 9, 2, 6.0]), np.array([2, 0, 5, 0, 3, 5, 3, 5.0])
    exact = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf).pvalue
    assert metrics.paired_test(a, b, seed=0)["p_value"] == pytest.approx(exact, abs=0.015)  # 3 standard errors


def test_p_values_of_equal_systems_are_spread_evenly():
    random = np.random.default_rng(8)
    found = [metrics.paired_test(*random.random((2, 60)), seed, resamples=400)["p_value"] for seed in range(200)]
    assert 0.02 <= np.mean(np.array(found) < 0.1) <= 0.19


def test_unpaired_values_are_refused():
    for a, b in (([1, 2], [1]), ([], []), ([[1]], [[1]])):
        with pytest.raises(ValueError, match="one value a user"):
            metrics.paired_test(a, b, seed=0)
    with pytest.raises(ValueError, match="finite"):
        metrics.paired_test([1, np.nan], [1, 2], seed=0)


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, then max(0.06, 0.03 * 2), then max(0.06, 0.04); back in the order given.
    assert metrics.holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert metrics.holm([0.5, 0.9]) == [1, 1]
    assert metrics.holm([]) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.holm([0.1, math.nan])
