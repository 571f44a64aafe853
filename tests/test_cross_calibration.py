"""Cross-conformal p-values: by counting, and their false alarms over many data sets."""

import numpy as np
import pytest

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.scoring import cross_calibration


def test_folds_are_even_and_hold_whole_groups() -> None:
    random = np.random.RandomState(0)
    folds = cross_calibration.deal_folds(random, np.arange(23), 5)
    assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]
    groups = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1])
    folds = cross_calibration.deal_folds(random, groups, 3)
    assert all(len(set(folds[groups == group])) == 1 for group in range(12))
    assert sorted(np.bincount(folds)) == [14, 14, 14]


def test_folds_depend_on_the_draw_alone() -> None:
    deal = cross_calibration.deal_folds
    first, again, other = (deal(np.random.RandomState(s), np.arange(50), 4) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(("count", "folds"), [(10, 1), (3, 4)])
def test_too_few_members_or_samples_are_refused(count: int, folds: int) -> None:
    with pytest.raises(ConfigError, match="at least"):
        cross_calibration.deal_folds(np.random.RandomState(0), np.arange(count), folds)


def test_p_values_count_under_the_member_that_has_not_seen_the_sample() -> None:
    random = np.random.default_rng(0)
    known, folds = random.integers(0, 9, 40).astype(float), random.integers(0, 4, 40)
    scores = random.integers(0, 9, (4, 25)).astype(float)
    expected = [
        (1 + sum(known[i] >= scores[folds[i], new] for i in range(40))) / 41 for new in range(25)
    ]
    found = cross_calibration.cross_p_values(known, folds, scores)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_false_alarms_over_two_hundred_data_sets_of_a_hundred_samples(rate: float) -> None:
    """A scorer that learns the mean and the deviation of its training part."""
    random = np.random.default_rng(3)
    alarms = []
    for _ in range(200):
        samples, new = random.standard_t(4, (100, 3)), random.standard_t(4, (200, 3))
        folds = cross_calibration.deal_folds(np.random.RandomState(0), np.arange(100), 5)
        known, scores = np.empty(100), np.empty((5, 200))
        for member in range(5):
            train = samples[folds != member]
            mean, std = train.mean(0), train.std(0)
            out = folds == member
            known[out] = np.square((samples[out] - mean) / std).sum(1)
            scores[member] = np.square((new - mean) / std).sum(1)
        alarms.append((cross_calibration.cross_p_values(known, folds, scores) <= rate).mean())
    # The bound is 2 a and more; what is seen stays at a, within three standard errors.
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= rate + 3 * error
    assert np.mean(alarms) > 0.3 * rate


def test_the_bound_is_that_of_the_theorem() -> None:
    # n = 100 in K = 5: 2 * 0.8 / 21 and 0.95 / 6.
    assert cross_calibration.bound_excess(100, 5) == pytest.approx(1.6 / 21)
    # As many folds as samples: nothing but 2 a is left.
    assert cross_calibration.bound_excess(50, 50) == 0.0
