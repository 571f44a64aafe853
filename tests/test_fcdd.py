"""FCDD: its map, its losses with and without marked pixels, and what a value of it looks at."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import objectives, recipes, training
from deepsvdd_jax.configs import (
    ConfigError,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.objectives import Batch, Forward
from deepsvdd_jax.objectives.fcdd import highest_mean, regions_of_map


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


def test_a_value_is_marked_where_its_cell_has_a_marked_pixel() -> None:
    regions = np.zeros((2, 9, 13), bool)
    regions[0, 3, 4] = regions[0, 4, 11] = regions[1, 0, 7] = True
    # The last row and the last column belong to no cell of 4 x 4: a pool leaves them out.
    regions[1, 8, 12] = True
    expected = np.zeros((2, 2, 3), bool)
    expected[0, 0, 1] = expected[0, 1, 2] = expected[1, 0, 1] = True
    np.testing.assert_array_equal(regions_of_map(jnp.asarray(regions), 2 * 3), expected)
    np.testing.assert_array_equal(regions_of_map(jnp.asarray(regions), 9 * 13), regions)
    with pytest.raises(ValueError, match="a map of 7 values is no halving of 9 x 13"):
        regions_of_map(jnp.asarray(regions), 7)


def test_known_regions_are_learned_where_masks_are_asked_for() -> None:
    random = np.random.default_rng(3)
    z, labels = random.normal(size=(4, 3 * 5)), np.array([0, -1, -1, 1])
    regions = np.zeros((4, 6, 10), bool)
    regions[1, 2:4, 4:10] = True
    a = np.sqrt(z**2 + 1.0) - 1.0
    far = -np.log(1.0 - np.exp(-a.mean(axis=1)))
    whole = np.where(labels < 0, far, a.mean(axis=1))
    # Cells of 2 x 2: of the second image the row 1, columns 2 to 4.
    inside = np.zeros((3, 5), bool)
    inside[1, 2:] = True
    second = a[1].reshape(3, 5)
    masked = whole.copy()
    masked[1] = second[~inside].mean() - np.log(1.0 - np.exp(-second[inside].mean()))
    batch = Batch(jnp.zeros((4, 6, 10, 1)), jnp.ones(4, bool), jnp.asarray(labels))

    def losses(config: FCDDConfig, batch: Batch) -> Any:
        forward = Forward(jnp.float32(z), None, {})
        found = objectives.objective(config).losses({}, None, lambda *_: forward, batch, None, None)
        return found.values

    known = batch._replace(regions=jnp.asarray(regions))
    np.testing.assert_allclose(losses(FCDDConfig(map_masks=True), known), masked, rtol=1e-5)
    np.testing.assert_allclose(losses(FCDDConfig(map_masks=True), batch), whole, rtol=1e-5)
    np.testing.assert_allclose(losses(FCDDConfig(), known), whole, rtol=1e-5)


def test_a_share_of_the_map_enters_the_loss_where_it_is_asked_for() -> None:
    random = np.random.default_rng(4)
    z, labels = random.normal(size=(3, 4 * 5)), np.array([0, -1, -1])
    regions = np.zeros((3, 4, 5), bool)
    regions[2, 1:3, 2:] = True
    a = np.sqrt(z**2 + 1.0) - 1.0
    # A fifth of 20 values are 4.
    top = np.sort(a, axis=1)[:, -4:].mean(axis=1)
    expected = np.where(labels < 0, -np.log(1.0 - np.exp(-top)), top)
    inside = regions[2].reshape(-1)
    outside = np.sort(a[2][~inside])[-4:].mean()
    masked = expected.copy()
    masked[2] = outside - np.log(1.0 - np.exp(-a[2][inside].mean()))
    images, mask = jnp.zeros((3, 4, 5, 1)), jnp.ones(3, bool)
    batch = Batch(images, mask, jnp.asarray(labels), jnp.asarray(regions))
    forward = Forward(jnp.float32(z), None, {})
    for with_masks, wanted in ((False, expected), (True, masked)):
        config = FCDDConfig(map_loss_share=0.2, map_masks=with_masks)
        losses = objectives.objective(config).losses
        found = losses({}, None, lambda *_: forward, batch, None, None)
        np.testing.assert_allclose(found.values, wanted, rtol=1e-5)
    with pytest.raises(ConfigError, match="map_loss_share is 0.0; it must lie"):
        FCDDConfig(map_loss_share=0.0)


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


def test_masks_need_synthetic_anomalies_and_a_map_of_cells() -> None:
    masked = FCDDConfig(map_masks=True)
    with pytest.raises(ConfigError, match="map_masks learns from the masks of synthetic"):
        training.check_images(PhaseConfig(masked), (32, 32, 3))
    phase = PhaseConfig(masked, synthetic_anomalies="mix")
    training.check_images(phase, (32, 32, 3))
    valid = dataclasses.replace(recipes.NETWORKS["fcdd"], padding="valid")
    with pytest.raises(ConfigError, match="map_masks needs a network"):
        RunConfig(network=valid, training=phase)
