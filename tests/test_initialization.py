"""Weights that replace drawn ones."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from deepsvdd_jax import configs, networks
from deepsvdd_jax.configs import ConfigError, NetworkConfig, RunConfig
from deepsvdd_jax.io import models
from deepsvdd_jax.runs import initialization

NETWORK = NetworkConfig(stages=((4,),), rep_dim=3, kernel_size=3)


def test_dictionary_has_the_kernels_shape_norm_and_depends_on_the_seed() -> None:
    images = np.random.RandomState(0).rand(30, 8, 8, 1)
    kernel = initialization.dictionary_kernel(images, 3, 4, seed=0)
    assert kernel.shape == (3, 3, 1, 4) and kernel.dtype == np.float32
    # Glorot with gain sqrt(2): variance 4 / (fan_in + fan_out), nine taps.
    expected = np.sqrt(9 * 4.0 / (1 + 0.01**2) / (9 * (1 + 4)))
    np.testing.assert_allclose(np.sqrt(np.square(kernel).sum((0, 1, 2))), expected, rtol=1e-5)
    again, other = (initialization.dictionary_kernel(images, 3, 4, seed=s) for s in (0, 1))
    np.testing.assert_array_equal(kernel, again)
    assert not np.allclose(kernel, other)


def test_a_process_learns_a_dictionary_once_and_keeps_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned = []

    def note(images: np.ndarray, size: int, atoms: int, seed: int) -> np.ndarray:
        learned.append(seed)
        return np.full((size, size, 1, atoms), seed, np.float32)

    monkeypatch.setattr(initialization, "dictionary_kernel", note)
    monkeypatch.setattr(initialization, "MOST_DICTIONARIES", 2)
    config = RunConfig(network=NETWORK, first_layer="dictionary")
    images = np.random.RandomState(5).rand(30, 8, 8, 1)
    for seed in (0, 0, 1, 0, 2, 1, 0):
        weights = initialization.initial_weights(config, images, seed)
        assert (jax.tree.leaves(weights)[0] == seed).all()
    # The third takes the place of the first, which is learned anew.
    assert learned == [0, 1, 2, 0]


def test_weights_of_a_saved_models_first_member_are_used_and_another_network_refused(
    tmp_path: Path,
) -> None:
    network = networks.build_network(NETWORK, (8, 8, 1))
    params, statistics = network.init(jax.random.key(0), False)
    others, _ = network.init(jax.random.key(1), False)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), params, others)
    model = models.Model(
        config=RunConfig(network=NETWORK),
        image_shape=(8, 8, 1),
        feature_names=(),
        params=stacked,
        statistics=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), statistics),
        center=np.asarray([[0.25, -1.0, 3.0], [0, 0, 0]], np.float32),
        squared_radius=np.asarray([0.5, 7.0], np.float32),
        train_means=np.ones(2),
        shift=np.zeros((1, 1, 1), np.float32),
        scale=np.ones((1, 1, 1), np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        calibration_scores=np.zeros(0, np.float32),
        threshold=0.0,
        summary={},
    )
    models.save_model(tmp_path / "model", model)
    config = RunConfig(network=NETWORK, initial_model=str(tmp_path / "model"))
    weights = initialization.initial_weights(config, np.zeros((1, 8, 8, 1)), 0)
    jax.tree.map(np.testing.assert_array_equal, weights["encoder"], params["encoder"])
    np.testing.assert_array_equal(weights["center"], [0.25, -1.0, 3.0])
    assert weights["squared_radius"] == np.float32(0.5)
    autoencoder = configs.PhaseConfig(objective=configs.ObjectiveConfig(kind="reconstruction"))
    for more in ({"pretraining": autoencoder}, {"training": autoencoder}):
        # Another encoder comes first, or there is no sphere.
        other = dataclasses.replace(config, **more)
        found = initialization.initial_weights(other, np.zeros((1, 8, 8, 1)), 0)
        assert set(found) == {"encoder", "statistics"}
    wider = dataclasses.replace(config, network=dataclasses.replace(NETWORK, rep_dim=5))
    with pytest.raises(ConfigError, match="rep_dim=3; this run has 5"):
        initialization.initial_weights(wider, np.zeros((1, 8, 8, 1)), 0)


def test_nothing_is_replaced_by_default() -> None:
    assert initialization.initial_weights(RunConfig(), np.zeros((1, 8, 8, 1)), 0) == {}


def test_dictionary_needs_convolutions() -> None:
    with pytest.raises(ConfigError, match="needs convolutions"):
        configs.RunConfig(network=NetworkConfig(stages=(), hidden=(4,)), first_layer="dictionary")
