"""Temperature and bias are found again where they were planted; what the scores do not tell is not fitted."""

import math

import numpy as np
import pytest

from trsr.errors import CalibrationError
from trsr.metrics.calibration import HIGHEST, LOWEST, balanced_error, fit_calibration, reliability


def planted(temperature, users=4000, seed=0):
    random = np.random.default_rng(seed)
    true = random.normal(0, 2, (users, 4))  # log-odds that hold
    labels = random.random(true.shape) < 1 / (1 + np.exp(-true))
    return true * temperature, labels


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    found = fit_calibration(*planted(temperature))
    assert found.value == pytest.approx(temperature, rel=0.06)
    assert found.log_loss_after <= found.log_loss_before
    assert found.n_users == 4000


def test_twenty_negatives_do_not_pull_it_down():
    odds, labels = planted(2.0, users=20_000)
    many = np.concatenate([odds[labels][:2000, None], odds[~labels][:40_000].reshape(2000, 20)], axis=1)
    truth = np.zeros(many.shape, dtype=bool)
    truth[:, 0] = True
    assert fit_calibration(many, truth).value == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(("temperature", "shift"), [(0.5, math.log(4)), (1.0, -math.log(20)), (2.0, 0.0)])
def test_a_planted_shift_is_found(temperature, shift):
    """Trained with 4 negatives a positive, the log-odds of a candidate are those of one in five: log(4) too low."""
    odds, labels = planted(temperature)
    prior = np.log(labels.mean() / (1 - labels.mean()))  # positives and negatives weigh the same in the fit
    found = fit_calibration(odds - temperature * shift, labels)
    assert found.value == pytest.approx(temperature, rel=0.06)
    assert found.bias == pytest.approx(shift - prior, abs=0.06)


def test_a_shift_that_a_temperature_cannot_undo():
    """One positive among 4 negatives: log-odds that hold there are log(4) too low where both weigh the same."""
    random = np.random.default_rng(2)
    labels = np.eye(5, dtype=bool)[random.integers(5, size=4000)]
    odds = random.normal(np.where(labels, 0.5, -0.5), 1) - math.log(4)  # log-odds of normal values one apart
    fit, test = slice(0, 2000), slice(2000, None)
    found = fit_calibration(odds[fit], labels[fit])
    assert found.bias == pytest.approx(math.log(4), abs=0.1)

    def loss(temperature):
        return sum(
            np.logaddexp(0, sign * odds[fit][labels[fit] == (sign < 0)] / temperature).mean() for sign in (-1, 1)
        )

    alone = min(np.geomspace(LOWEST, HIGHEST, 500), key=loss)
    raw, scaled, both = (
        balanced_error(reliability(odds[test], labels[test], *rest))
        for rest in ((1.0,), (alone,), (found.value, 20, found.bias))
    )
    assert raw > 0.2
    assert scaled > 0.1
    assert both <= 0.03


def test_scores_without_a_signal_are_not_fitted():
    random = np.random.default_rng(0)
    for users in (6, 20, 500):
        labels = np.eye(21, dtype=bool)[random.integers(21, size=users)]
        with pytest.raises(CalibrationError, match=rf"on {users} users the log-odds do not tell chosen candidates"):
            fit_calibration(random.normal(0, 5, labels.shape), labels)


def test_scores_that_are_always_right_are_not_fitted():
    with pytest.raises(CalibrationError, match="too few users to say how sure they are"):
        fit_calibration([[2.0, 1.0], [1.0, 3.0]], [[1, 0], [0, 1]])


def test_rows_of_one_user_tell_less_than_as_many_users():
    odds, labels = planted(1.0, users=12, seed=3)
    assert fit_calibration(odds, labels).n_users == 12
    again = np.tile(odds[:1], (50, 1)), np.tile(labels[:1] | np.eye(4, dtype=bool)[0], (50, 1))
    with pytest.raises(CalibrationError, match=r"on 1 users|of 1 users"):
        fit_calibration(*again, users=["u"] * 50)


@pytest.mark.parametrize(
    ("odds", "labels"),
    [([[1.0]], [[1]]), ([[1.0, 2.0]], [[0, 0]]), ([[1.0, np.nan]], [[1, 0]]), ([[1.0, 2.0]], [[1]])],
)
def test_bad_input_is_told(odds, labels):
    with pytest.raises(ValueError, match=r"positives and negatives|Expected finite"):
        fit_calibration(odds, labels)


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
    found = fit_calibration(odds, labels)
    before, after = (balanced_error(reliability(odds, labels, value)) for value in (1, found.value))
    assert before > 0.1
    assert after < 0.02


def test_reliability_needs_both_labels():
    with pytest.raises(ValueError, match="with both labels"):
        reliability([1.0, 2.0], [1, 1])
