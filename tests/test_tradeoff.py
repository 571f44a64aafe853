"""Thresholds from labelled samples, against counting."""

import numpy as np
import pytest
from scipy.stats import binom

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.scoring import tradeoff
from deepsvdd_jax.scoring.tradeoff import Costs

NORMAL = [1.0, 2.0, 2.0, 3.0, 5.0]
DEFECT = [2.0, 4.0, 6.0, 7.0]


def test_counts_are_those_of_higher_scores() -> None:
    table = tradeoff.trade_off(NORMAL, DEFECT)
    assert (table.normals, table.defects) == (5, 4)
    assert (np.diff(table.thresholds) > 0).all()
    for threshold, alarms, found in zip(*table[:3], strict=True):
        assert alarms == sum(score > threshold for score in NORMAL)
        assert found == sum(score > threshold for score in DEFECT)
    # From everything to nothing.
    assert (table.false_alarms[0], table.found[0]) == (5, 4)
    assert (table.false_alarms[-1], table.found[-1]) == (0, 0)
    # Halfway, so that another rounding of a score changes nothing.
    assert list(table.thresholds[1:-1]) == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


def test_neighbouring_floats_are_told_apart() -> None:
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2.0))
    table = tradeoff.trade_off([low], [high])
    # As commands compare them: float32 scores with a Python number.
    for threshold, alarms, found in zip(*table[:3], strict=True):
        assert (np.array([low]) > float(threshold)).sum() == alarms
        assert (np.array([high]) > float(threshold)).sum() == found
    assert [tuple(row) for row in zip(table.false_alarms, table.found, strict=True)] == [
        (1, 1),
        (0, 1),
        (0, 0),
    ]


@pytest.mark.parametrize("defect_rate", [None, 0.0, 0.02, 1.0])
def test_the_cheapest_threshold_is_that_of_a_search(defect_rate: float | None) -> None:
    random = np.random.default_rng(0)
    normal = random.normal(size=60).astype(np.float32)
    defect = (random.normal(size=25) + 1.5).astype(np.float32)
    costs = Costs(20.0, 1.0, defect_rate)
    table = tradeoff.trade_off(normal, defect)
    share = 25 / 85 if defect_rate is None else defect_rate

    def cost(threshold: float) -> float:
        missed, alarms = (defect <= threshold).mean(), (normal > threshold).mean()
        return float(share * 20 * missed + (1 - share) * alarms)

    chosen = tradeoff.cheapest(table, costs)
    found = tradeoff.expected_cost(table, costs)
    np.testing.assert_allclose(found, [cost(t) for t in table.thresholds], atol=1e-12)
    assert cost(table.thresholds[chosen]) <= min(map(cost, np.linspace(-4, 6, 2000))) + 1e-12


def test_a_rate_of_false_alarms_is_kept_and_the_most_is_found() -> None:
    table = tradeoff.trade_off(NORMAL, DEFECT)
    # Of five normals a fifth is one: 3 defects are found above 3, of which one normal is.
    one = tradeoff.within_false_alarms(table, 0.2)
    assert (table.false_alarms[one], table.found[one]) == (1, 3)
    none = tradeoff.within_false_alarms(table, 0.19)
    assert (table.false_alarms[none], table.found[none]) == (0, 2)
    everything = tradeoff.within_false_alarms(table, 1.0)
    assert table.found[everything] == 4 and table.false_alarms[everything] == 4


def test_corners_find_more_for_more_false_alarms() -> None:
    table = tradeoff.trade_off(NORMAL, DEFECT)
    pairs = [(table.false_alarms[n], table.found[n]) for n in tradeoff.corners(table)]
    assert pairs == [(0, 2), (1, 3), (4, 4)]


def test_the_interval_of_a_share_has_the_tails_of_the_binomial() -> None:
    low, high = tradeoff.share_interval(3, 40)
    assert binom.sf(2, 40, low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(3, 40, high) == pytest.approx(0.025, abs=1e-6)
    assert tradeoff.share_interval(0, 10)[0] == 0.0
    assert tradeoff.share_interval(10, 10)[1] == 1.0


@pytest.mark.parametrize(
    ("normal", "defect", "message"),
    [
        ([], [1.0], "no normal"),
        ([1.0], [], "no defective"),
        ([np.nan], [1.0], "normal sample is not finite"),
        ([0.0], [np.inf], "defective sample is not finite"),
    ],
)
def test_useless_scores_are_refused(normal: list, defect: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=message):
        tradeoff.trade_off(normal, defect)


@pytest.mark.parametrize(
    "costs", [Costs(-1, 1), Costs(0, 0), Costs(1, float("nan")), Costs(1, 1, 1.5)]
)
def test_useless_costs_are_refused(costs: Costs) -> None:
    with pytest.raises(ConfigError):
        tradeoff.cheapest(tradeoff.trade_off(NORMAL, DEFECT), costs)


def test_a_rate_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="false_alarm_rate"):
        tradeoff.within_false_alarms(tradeoff.trade_off(NORMAL, DEFECT), -0.1)
