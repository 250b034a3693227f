"""Intervals and tests against closed forms, other libraries and their own definitions."""

import json
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from trsr.metrics import ranking, significance


def first_of(users: int, width: int) -> np.ndarray:
    labels = np.zeros((users, width), dtype=bool)
    labels[:, 0] = True
    return labels


def test_evaluate_joins_all_and_is_plain_json():
    random = np.random.default_rng(2)
    scores, labels = random.normal(size=(50, 21)), first_of(50, 21)
    probabilities = 1 / (1 + np.exp(-scores))
    found = significance.evaluate(scores, labels, probabilities, seed=3)
    assert json.loads(json.dumps(found)) == found
    assert (found["n_users"], found["n_candidates"]) == (50, 21)
    assert list(found)[2:] == [*ranking.per_user(scores, labels), "ece"]
    assert found["recall@3"]["value"] == pytest.approx(ranking.per_user(scores, labels)["recall@3"].mean())
    assert "ece" not in significance.evaluate(scores, labels)


@pytest.mark.parametrize(
    ("probabilities", "error"),
    [
        ([0.1, 0.3, 0.2, 0.9], (0.1 + 0.3 + 0.8 + 0.1) / 4),  # each in a bin of its own
        ([0.0, 0.0, 1.0, 1.0], 0),
        ([0.99, 0.99, 0.99, 1.0], (2 * 0.99 - 0.01) / 4),  # 1 falls in the last bin
        ([0.5] * 4, 0),
        ([1.0, 1.0, 0.0, 0.0], 1),
    ],
)
def test_calibration_error_by_hand(probabilities, error):
    found = significance.evaluate([[0, 1, 2, 3]], [[0, 0, 1, 1]], [probabilities])
    assert found["ece"]["value"] == pytest.approx(error)


@pytest.mark.parametrize("probability", [1.5, -0.1])
def test_calibration_of_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match="from 0 to 1"):
        significance.evaluate([[0, 1]], [[0, 1]], [[0.5, probability]])


def test_what_all_users_share_has_an_interval_of_no_width():
    found = significance.evaluate(np.full((997, 21), 0.3), first_of(997, 21))
    for k in (1, 3, 5, 10):
        assert found[f"recall@{k}"] == {"value": k / 21, "low": k / 21, "high": k / 21}
    assert found["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_evaluate_leaves_masked_probabilities_out():
    scores, labels, mask = np.ones((2, 3)), [[1, 0, 0], [0, 1, 0]], [[1, 1, 0], [1, 1, 1]]
    found = significance.evaluate(scores, labels, [[1, 0, np.nan], [0, 1, 0]], mask=mask)
    assert found["n_candidates"] == 2.5
    assert found["ece"] == {"value": 0, "low": 0, "high": 0}
    with pytest.raises(ValueError, match="probabilities must be finite"):
        significance.evaluate(scores, labels, [[1, np.nan, 0], [0, 1, 0]], mask=mask)


def test_the_interval_holds_the_mean_and_follows_the_seed():
    values = {"hit": np.random.default_rng(4).random(400) < 0.3}
    found = significance.summary(values, seed=0)
    hit = found["hit"]
    assert hit["low"] < hit["value"] < hit["high"]
    # The normal interval of a share.
    width = 2 * 1.96 * math.sqrt(hit["value"] * (1 - hit["value"]) / 400)
    assert hit["high"] - hit["low"] == pytest.approx(width, rel=0.1)
    assert significance.summary(values, seed=0) == found
    assert significance.summary(values, seed=1) != found


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    random = np.random.default_rng(5)
    a, b = random.random(30), random.random(30)
    whole = significance.summary({"a": a}, seed=0)["a"], significance.paired_test(a, b, seed=0)
    monkeypatch.setattr(significance, "_CELLS", 7 * 30)
    parts = significance.summary({"a": a}, seed=0)["a"], significance.paired_test(a, b, seed=0)
    for one_of, other in zip(whole, parts, strict=True):
        assert one_of == pytest.approx(other)


def test_a_user_is_drawn_with_all_rows():
    random = np.random.default_rng(5)
    a, b = random.normal(size=40), random.normal(size=40)
    names = [f"u{number}" for number in range(40)]
    values = {"m": a}
    one = significance.summary(values, seed=1)
    assert significance.summary(values, seed=1, users=names) == one
    test = significance.paired_test(a, b, seed=1)
    assert significance.paired_test(a, b, seed=1, users=names) == test
    # Each row five times over says no more of the users than it does once.
    again = significance.summary({"m": np.repeat(a, 5)}, seed=1, users=np.repeat(names, 5).tolist())
    assert again["m"] == pytest.approx(one["m"])
    same = significance.paired_test(np.repeat(a, 5), np.repeat(b, 5), seed=1, users=np.repeat(names, 5).tolist())
    assert same == pytest.approx(test)
    naive = significance.summary({"m": np.repeat(a, 5)}, seed=1)["m"]
    assert naive["high"] - naive["low"] < 0.6 * (one["m"]["high"] - one["m"]["low"])


def test_users_with_more_rows_weigh_more():
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = significance.evaluate(scores, first_of(4, 2), np.full((4, 2), 0.5), users=["a", "b", "a", "c"], seed=0)
    assert found["n_users"] == 3
    assert found["recall@1"] == {"value": 0.75, "low": 0.0, "high": 1.0}
    assert found["ece"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_identical_systems_do_not_differ():
    values = np.random.default_rng(6).random(100)
    assert significance.paired_test(values, values, seed=0) == {"difference": 0, "low": 0, "high": 0, "p_value": 1}


def test_a_clear_difference_is_found_either_way_round():
    random = np.random.default_rng(7)
    weak = random.random(200)
    strong = weak + 0.2 + 0.1 * random.normal(size=200)
    found, turned = significance.paired_test(strong, weak, seed=0), significance.paired_test(weak, strong, seed=0)
    assert found["low"] > 0
    assert found["p_value"] == turned["p_value"] == 1 / 10001
    assert found["difference"] == -turned["difference"]
    assert (found["low"], found["high"]) == pytest.approx((-turned["high"], -turned["low"]))


def test_the_p_value_is_the_one_of_every_sign_flip():
    a, b = np.array([3, 1, 4, 1, 5, 9, 2, 6.0]), np.array([2, 0, 5, 0, 3, 5, 3, 5.0])
    exact = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf).pvalue
    assert significance.paired_test(a, b, seed=0)["p_value"] == pytest.approx(exact, abs=0.015)  # 3 standard errors


def test_p_values_of_equal_systems_are_spread_evenly():
    random = np.random.default_rng(8)
    found = [significance.paired_test(*random.random((2, 60)), seed, resamples=400)["p_value"] for seed in range(200)]
    assert 0.02 <= np.mean(np.array(found) < 0.1) <= 0.19


def test_unpaired_values_are_refused():
    for a, b in (([1, 2], [1]), ([], []), ([[1]], [[1]])):
        with pytest.raises(ValueError, match="one value a user"):
            significance.paired_test(a, b, seed=0)
    with pytest.raises(ValueError, match="finite"):
        significance.paired_test([1, np.nan], [1, 2], seed=0)


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, then max(0.06, 0.03 * 2), then max(0.06, 0.04); back in the order given.
    assert significance.holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert significance.holm([0.5, 0.9]) == [1, 1]
    assert significance.holm([]) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        significance.holm([0.1, math.nan])
