"""FCDD: its map, its losses with and without marked pixels, and what a value of it looks at."""

import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import objectives, recipes
from deepsvdd_jax.configs import (
    ConfigError,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.objectives.fcdd import highest_mean


def test_the_map_is_the_pseudo_huber_norm_of_the_last_convolution() -> None:
    values = np.array([[0.0, -1e-4, 0.5, 3.0, -100.0]])
    expected = np.sqrt(values**2 + 1.0) - 1.0
    found = objectives.anomaly_map(jnp.float32(values))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_losses_of_marked_pixels_are_the_equation() -> None:
    random = np.random.default_rng(0)
    maps, regions = random.uniform(0, 2, (3, 4, 5)), random.random((3, 4, 5)) < 0.3
    regions[1] = False
    expected = [
        a[~r].mean() + (-np.log(1.0 - np.exp(-a[r].mean())) if r.any() else 0.0)
        for a, r in zip(maps, regions, strict=True)
    ]
    found = objectives.masked_map_losses(jnp.float32(maps), jnp.asarray(regions))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_score_is_the_mean_of_the_highest_values() -> None:
    maps = np.random.default_rng(1).random((2, 50))
    for share, count in ((1.0, 50), (0.1, 5), (0.001, 1)):
        expected = np.sort(maps, axis=1)[:, ::-1][:, :count].mean(axis=1)
        np.testing.assert_allclose(highest_mean(jnp.float32(maps), share), expected, rtol=1e-6)


def test_the_receptive_field_by_hand() -> None:
    # 5 x 5, pool, 5 x 5, pool, 5 x 5: 5, 6, 14, 16, 32 pixels.
    assert recipes.NETWORKS["fcdd"].receptive_field == 32


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a fully convolutional network"):
        RunConfig(training=PhaseConfig(FCDDConfig()))
    with pytest.raises(ConfigError, match="needs stages and no hidden layers"):
        NetworkConfig(hidden=(8,), fully_convolutional=True)
    with pytest.raises(ConfigError, match="has no decoder"):
        RunConfig(
            network=recipes.NETWORKS["fcdd"],
            training=PhaseConfig(FCDDConfig()),
            pretraining=PhaseConfig(ObjectiveConfig(kind="reconstruction")),
        )
    with pytest.raises(ConfigError, match="map_share"):
        FCDDConfig(map_share=0.0)
