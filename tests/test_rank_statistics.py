"""Ranks and paired tests against figures worked out by hand and Demšar's table."""

import math

import numpy as np
import pytest

from benchmarks import rank_statistics


def test_ranks_start_at_the_best_and_equal_ones_share_their_mean() -> None:
    aurocs = np.array([[0.9, 0.8, 0.7], [0.5, 0.9, 0.5]])
    np.testing.assert_array_equal(rank_statistics.ranks(aurocs), [[1, 2, 3], [2.5, 1, 2.5]])


def test_a_pair_is_told_by_wins_losses_and_an_exact_signed_rank_test() -> None:
    first = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    second = first - np.array([0.05, 0.04, 0.03, 0.02, 0.01])
    found = rank_statistics.paired(first, second)
    # Of 32 equally likely patterns of signs, all plus and all minus are as extreme.
    assert found.p_value == pytest.approx(2 / 32)
    assert (found.wins, found.losses) == (5, 0) and found.difference == pytest.approx(0.03)
    back = rank_statistics.paired(second, first)
    assert (back.wins, back.losses) == (0, 5) and back.difference == pytest.approx(-0.03)
    same = rank_statistics.paired(first, first.copy())
    assert (same.wins, same.losses) == (0, 0) and math.isnan(same.p_value)


@pytest.mark.parametrize(("detectors", "quantile"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_demsars(detectors: int, quantile: float) -> None:
    expected = quantile * math.sqrt(detectors * (detectors + 1) / (6 * 14))
    found = rank_statistics.critical_difference(detectors, 14)
    assert found == pytest.approx(expected, rel=5e-4)


def test_friedman_of_perfect_agreement() -> None:
    # Three detectors, four sets, always in the same order: chi-squared is n (k - 1) = 8.
    aurocs = np.array([[0.9, 0.8, 0.7]] * 4) - np.arange(4)[:, None] / 100
    assert rank_statistics.friedman_p_value(aurocs) == pytest.approx(math.exp(-4.0))
    assert math.isnan(rank_statistics.friedman_p_value(aurocs[:, :2]))
    assert math.isnan(rank_statistics.friedman_p_value(np.full((4, 3), 0.5)))


def test_stretches_that_are_not_told_apart() -> None:
    means = np.array([3.0, 1.0, 1.5, 4.4])
    assert rank_statistics.groups_alike(means, 0.4) == []
    assert rank_statistics.groups_alike(means, 1.5) == [(1.0, 1.5), (1.5, 3.0), (3.0, 4.4)]
    # What lies within a longer stretch is not drawn again.
    assert rank_statistics.groups_alike(means, 2.0) == [(1.0, 3.0), (3.0, 4.4)]
    assert rank_statistics.groups_alike(means, 9.0) == [(1.0, 4.4)]


def test_the_figure_has_every_detector_at_its_rank() -> None:
    pytest.importorskip("matplotlib")
    aurocs = np.array([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.9, 0.8, 0.6]])
    figure = rank_statistics.rank_figure(("one", "two", "three"), aurocs)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["one  1.00", "two  2.33", "three  2.67"]
