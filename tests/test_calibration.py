"""Thresholds and p-values against counting, closed forms and simulation."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.objectives import exact_squared_radius
from deepsvdd_jax.scoring import calibration

SCORES = np.random.RandomState(0).gamma(2.0, size=200)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5])
def test_contamination_leaves_its_share_of_the_training_above(share: float) -> None:
    threshold = calibration.contamination_threshold(SCORES, share)
    assert np.count_nonzero(threshold < SCORES) == round(share * 200)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, math.nan])
def test_contamination_out_of_range_is_named(share: float) -> None:
    with pytest.raises(ConfigError, match=r"contamination is .*; it must lie in \(0, 0.5\]"):
        calibration.contamination_threshold(SCORES, share)


@pytest.mark.parametrize("nu", [0.05, 0.1, 0.29, 0.5, 1.0])
def test_radius_minimises_the_soft_boundary_objective(nu: float) -> None:
    # The objective is piecewise linear with kinks at the scores: one of them is a minimiser.
    distances = SCORES[:70]
    losses = [
        radius + np.maximum(0, distances - radius).sum() / (nu * 70)
        for radius in np.sort(distances)
    ]
    found = calibration.radius_threshold(distances, nu)
    loss = found + np.maximum(0, distances - found).sum() / (nu * 70)
    assert loss == pytest.approx(min(losses), rel=1e-12)
    assert np.sum(distances > found) <= nu * 70 + 1e-9


def test_p_values_by_counting_with_ties_against_the_score() -> None:
    found = calibration.conformal_p_values([2.0, 1.0, 2.0, 5.0], [0.0, 1.0, 2.0, 2.1, 5.0, 6.0])
    np.testing.assert_allclose(found, np.array([5, 5, 4, 2, 2, 1]) / 5)
    np.testing.assert_array_equal(calibration.conformal_p_values([], [3.0]), [1.0])


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [99, 100, 199])
def test_alarms_are_the_p_values_up_to_the_rate(rate: float, count: int) -> None:
    scores = np.round(SCORES[:count], 2)  # with ties
    tested = np.concatenate([scores, scores + 0.005, [-1.0, 99.0]])
    alarms = tested > calibration.conformal_threshold(scores, rate)
    p_values = calibration.conformal_p_values(scores, tested)
    np.testing.assert_array_equal(alarms, p_values <= rate + 1e-12)


def test_rank_of_the_threshold() -> None:
    scores = np.arange(1.0, 100.0)
    # ceil(100 * 0.95) = 95; 100 * 0.93 is 93 and not the 94 that rounding up 93.00000000000001 is.
    assert calibration.conformal_threshold(scores, 0.05) == 95.0
    assert calibration.conformal_threshold(scores, 0.07) == 93.0
    assert calibration.conformal_threshold(scores, 0.01) == 99.0


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.3, 3), (1e-3, 999)])
def test_too_few_calibration_scores_are_told_how_many_are_needed(rate: float, needed: int) -> None:
    calibration.conformal_threshold(np.arange(float(needed)), rate)
    message = f"false-alarm rate {rate:g} needs at least {needed} calibration scores; there are"
    with pytest.raises(ConfigError, match=message):
        calibration.conformal_threshold(np.arange(needed - 1.0), rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_alarm_rate_out_of_range_is_named(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"alarm_rate is .*; it must lie in \(0, 1\)"):
        calibration.conformal_threshold(SCORES, rate)


def test_interval_of_one_test_point_and_of_a_uniform_rate_in_closed_form() -> None:
    # One of 99 calibration scores above: a single normal raises an alarm with probability 1/100.
    assert calibration.alarm_interval(99, 1, 0.01, level=0.95) == (0, 0)
    assert calibration.alarm_interval(99, 1, 0.01, level=0.9999) == (0, 1)
    # With a single calibration score the number of alarms is uniform on 0 .. n_test.
    assert calibration.alarm_interval(1, 99, 0.5, level=0.89) == (5, 94)


def test_interval_holds_in_simulation() -> None:
    random = np.random.RandomState(1)
    n_calibration, n_test, rate = 60, 150, 0.1
    alarms = []
    for _ in range(4000):
        threshold = calibration.conformal_threshold(random.rand(n_calibration), rate)
        alarms.append(np.sum(random.rand(n_test) > threshold))
    low, high = calibration.alarm_interval(n_calibration, n_test, rate, level=0.9)
    tails = np.mean(np.array(alarms) < low), np.mean(np.array(alarms) > high)
    # Standard deviation of a share of 0.05 in 4000 draws: 0.0034.
    assert all(0.02 < tail < 0.05 + 4 * 0.0034 for tail in tails)
    # Mean of the beta-binomial: n_test (n + 1 - k) / (n + 1), with k = ceil(61 * 0.9) = 55.
    assert np.mean(alarms) == pytest.approx(150 * 6 / 61, abs=4 * np.std(alarms) / 4000**0.5)


@pytest.mark.parametrize("count", [10, 70, 99, 1000, 6742])
def test_the_radius_on_the_host_is_that_of_a_program(count: int) -> None:
    """One is traced in float32, the other in float64: products as 0.07 * 100 round otherwise."""
    distances = np.random.default_rng(count).permutation(count).astype(np.float32)
    for nu in (0.001, 0.01, 0.05, 0.07, 0.1, 0.3, 0.5, 0.7, 1.0):
        traced = exact_squared_radius(jnp.asarray(distances), jnp.float32(nu))
        assert calibration.radius_threshold(distances, nu) == float(traced)
        # By hand: the (n - floor(nu n))-th smallest, in whole thousandths.
        above = round(1000 * nu) * count // 1000
        assert float(traced) == max(count - above - 1, 0)
