"""A temperature is found again where it was planted, and never changes an order."""

import numpy as np
import pytest

from trsr.metrics.calibration import HIGHEST, balanced_error, fit_temperature, reliability


def planted(temperature, users=4000, seed=0):
    random = np.random.default_rng(seed)
    true = random.normal(0, 2, (users, 4))  # log-odds that hold
    labels = random.random(true.shape) < 1 / (1 + np.exp(-true))
    return true * temperature, labels


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    found = fit_temperature(*planted(temperature))
    assert found.value == pytest.approx(temperature, rel=0.06)
    assert found.log_loss_after <= found.log_loss_before
    assert found.n_users == 4000


def test_twenty_negatives_do_not_pull_it_down():
    odds, labels = planted(2.0, users=20_000)
    many = np.concatenate([odds[labels][:2000, None], odds[~labels][:40_000].reshape(2000, 20)], axis=1)
    truth = np.zeros(many.shape, dtype=bool)
    truth[:, 0] = True
    assert fit_temperature(many, truth).value == pytest.approx(2.0, rel=0.1)


def test_scores_without_a_signal_end_at_the_bound():
    random = np.random.default_rng(0)
    labels = np.eye(2, dtype=bool)[random.integers(2, size=500)]
    assert fit_temperature(random.normal(0, 5, (500, 2)), labels).value > HIGHEST / 4


@pytest.mark.parametrize(
    ("odds", "labels"),
    [([[1.0]], [[1]]), ([[1.0, 2.0]], [[0, 0]]), ([[1.0, np.nan]], [[1, 0]]), ([[1.0, 2.0]], [[1]])],
)
def test_bad_input_is_told(odds, labels):
    with pytest.raises(ValueError, match=r"positives and negatives|Expected finite"):
        fit_temperature(odds, labels)


def test_reliability_by_hand():
    # Two positives and four negatives: a positive weighs 1/4, a negative 1/8.
    odds = np.log(np.array([3.0, 1 / 3, 1 / 3, 1 / 3, 3.0, 1 / 3]))  # probabilities 3/4 and 1/4
    labels = [1, 1, 0, 0, 0, 0]
    low, high = reliability(odds, labels, bins=2)
    assert (low.probability, low.positives, low.n_candidates) == pytest.approx((1 / 4, 2 / 5, 4))
    assert (high.probability, high.positives, high.n_candidates) == pytest.approx((3 / 4, 2 / 3, 2))
    assert low.weight == pytest.approx(5 / 8)
    assert balanced_error([low, high]) == pytest.approx(5 / 8 * (2 / 5 - 1 / 4) + 3 / 8 * (3 / 4 - 2 / 3))
    assert [one.probability for one in reliability(odds, labels, temperature=0.5, bins=2)] == pytest.approx([0.1, 0.9])


def test_a_fitted_temperature_makes_probabilities_hold():
    random = np.random.default_rng(1)
    labels = random.random((20_000, 2)) < 0.5
    odds = 3 * random.normal(
        np.where(labels, 1, -1) / 2, 1
    )  # true log-odds are the normal values, not three times them
    found = fit_temperature(odds, labels)
    before, after = (balanced_error(reliability(odds, labels, value)) for value in (1, found.value))
    assert before > 0.1
    assert after < 0.02


def test_reliability_needs_both_labels():
    with pytest.raises(ValueError, match="with both labels"):
        reliability([1.0, 2.0], [1, 1])
