"""The score of several members, by hand, and that every place which needs it has the same."""

import numpy as np
import pytest

from deepsvdd_jax.cli.commands import ensembles
from deepsvdd_jax.scoring import ensemble


def test_members_count_alike_whatever_their_scale() -> None:
    distances = np.array([[1.0, 3.0], [200.0, 100.0]])
    found = ensemble.mean_in_units(distances, [2.0, 100.0])
    np.testing.assert_allclose(found, [(0.5 + 2.0) / 2, (1.5 + 1.0) / 2])
    np.testing.assert_allclose(ensemble.in_units(distances, [2.0, 100.0])[1], [2.0, 1.0])


def test_a_member_without_a_unit_keeps_its_distances() -> None:
    np.testing.assert_array_equal(ensemble.member_units([4.0, 0.0]), [4.0, 1.0])
    np.testing.assert_allclose(ensemble.mean_in_units([[8.0], [0.0]], [4.0, 0.0]), [1.0])


@pytest.mark.filterwarnings("error")
def test_a_distance_beyond_float32_is_infinite_without_a_warning() -> None:
    huge = np.array([[np.finfo(np.float32).max], [1.0]], np.float32)
    assert ensemble.mean_in_units(huge, [1e-30, 1.0]) > np.finfo(np.float32).max


def test_the_command_has_the_same_score() -> None:
    random = np.random.default_rng(0)
    members = ensembles.Members(
        distances=random.gamma(2.0, size=(3, 7)),
        train=None,
        train_means=np.array([0.5, 2.0, 10.0]),
        labels=np.zeros(7),
    )
    expected = sum(members.distances[k] / members.train_means[k] for k in range(3)) / 3
    np.testing.assert_allclose(ensembles.mean_over_training_mean(members), expected)
