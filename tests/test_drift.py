"""The drift alarm: p-values by counting, capital by the definition, false alarms and delays."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from deepsvdd_jax.scoring import drift


def test_the_p_value_counts_higher_scores_and_a_share_of_equal_ones() -> None:
    ordered = [1.0, 2.0, 2.0, 2.0, 5.0]
    # One score is higher; three are equal, and the new one itself is the fourth.
    assert drift.smoothed_p_value(ordered, 2.0, 0.25) == (1 + 0.25 * 4) / 6
    assert drift.smoothed_p_value(ordered, 9.0, 0.5) == (0 + 0.5 * 1) / 6
    assert drift.smoothed_p_value(ordered, 0.0, 0.5) == (5 + 0.5 * 1) / 6


@pytest.mark.parametrize("number", range(len(drift.BETS)))
def test_every_bet_is_a_density(number: int) -> None:
    expected = stats.beta(*drift.BETS[number]).pdf
    for p in (0.003, 0.2, 0.5, 0.97):
        assert drift.bet_densities(p)[number] == pytest.approx(expected(p), rel=1e-9)
    inner, _ = integrate.quad(lambda p: drift.bet_densities(p)[number], 0.0, 1.0, limit=500)
    # Below and above what a p-value is cut to, a density with an exponent below 0 has a little.
    assert inner == pytest.approx(1.0, abs=0.07)
    assert inner <= 1.0 + 1e-6


def test_the_capital_is_the_mixture_over_changes_and_bets() -> None:
    random = np.random.default_rng(0)
    calibration, stream = random.normal(size=20), random.normal(size=15) + 1.0
    found = drift.watch(calibration, stream, seed=3)

    seen, p_values = list(calibration), []
    for number, score in enumerate(stream):
        above = sum(other > score for other in seen)
        p_values.append((above + drift.tie_breaker(3, number)) / (len(seen) + 1))
        seen.append(score)
    densities = [stats.beta(*bet).pdf for bet in drift.BETS]
    for end in range(1, len(stream) + 1):
        # A bet that starts with the k-th score, for every k and every density, by its definition.
        bets = sum(
            math.prod(float(density(p)) for p in p_values[first - 1 : end])
            / (first * (first + 1))
            / len(densities)
            for first in range(1, end + 1)
            for density in densities
        )
        waiting = 1.0 - sum(1.0 / (k * (k + 1)) for k in range(1, end + 1))
        assert found[end - 1] == pytest.approx(bets + waiting, rel=1e-9)


@pytest.mark.slow
def test_false_alarms_over_two_hundred_streams_stay_within_the_bound() -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for seed in range(200):
        scores = random.gamma(2.0, size=400)
        alarms += bool((drift.watch(scores[:100], scores[100:], seed) >= 100.0).any())
    # More than 6 of 200 at 1 % or less have a probability below 0.5 %.
    assert alarms <= 6


def test_equal_scores_raise_no_alarm() -> None:
    assert drift.watch(np.zeros(50), np.zeros(400)).max() < 100.0


@pytest.mark.parametrize(
    ("changed", "longest"),
    [(lambda x: x + 2.0, 60), (lambda x: x - 2.0, 60), (lambda x: 4.0 * x, 120)],
    ids=["higher", "lower", "wider"],
)
def test_a_change_late_in_a_stream_is_found(changed, longest: int) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(1)
    for seed in range(5):
        before, after = random.normal(size=700), changed(random.normal(size=longest))
        found = drift.watch(before[:200], np.concatenate([before[200:], after]), seed)
        assert (found[:500] < 100.0).all()
        assert (found[500:] >= 100.0).any()


def test_a_stream_that_was_left_goes_on_where_it_was() -> None:
    random = np.random.default_rng(2)
    calibration, stream = random.normal(size=30), random.normal(size=20)
    state = drift.start(calibration)
    for number, score in enumerate(stream):
        state = drift.update(state, score, drift.tie_breaker(0, number))
    assert drift.capital(state) == drift.watch(calibration, stream)[-1]
    assert state.count == 20
    assert state.highest == max(1.0, drift.watch(calibration, stream).max())


def test_the_alarm_stays_and_the_capital_stays_finite() -> None:
    state = drift.start(np.arange(100.0))
    for number in range(2000):
        state = drift.update(state, 1e6 + number, drift.tie_breaker(0, number))
    assert math.isfinite(drift.capital(state)) and drift.has_drifted(state)
    assert not drift.has_drifted(drift.start([1.0, 2.0]))


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_useless_calibration_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="calibration score"):
        drift.start(scores)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        drift.update(drift.start([1.0]), math.nan, 0.5)
