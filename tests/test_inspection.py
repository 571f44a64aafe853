"""What a saved model shows, beside the network and the preprocessing themselves."""

import functools

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from deepsvdd_jax import preprocessing
from deepsvdd_jax.cli.reporting import inspection
from deepsvdd_jax.configs import (
    NetworkConfig,
    ObjectiveConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE)).astype(np.uint8)


@functools.cache
def make_model(
    kind: str = "one-class", whiten: bool = False, network: NetworkConfig | None = None
) -> Model:
    network = network or NetworkConfig(stages=((4,),), rep_dim=3, kernel_size=3)
    steps = PreprocessingConfig(contrast="l1", zca=whiten)
    config = RunConfig(
        network=network,
        preprocessing=steps,
        training=PhaseConfig(objective=ObjectiveConfig(kind=kind)),
    )
    shape = SHAPE if network.stages else (16,)
    with_decoder = kind == "reconstruction"
    init = jax.jit(build_network(network, shape).init, static_argnums=1)
    params, statistics = init(jax.random.key(1), with_decoder)
    params, statistics = jax.tree.map(lambda leaf: np.asarray(leaf)[None], (params, statistics))
    images = IMAGES if network.stages else IMAGES.reshape(12, -1)
    fitted = preprocessing.fit(steps, images)
    whitening = fitted.whitening or preprocessing.Whitening(np.zeros(0), np.zeros((0, 0)))
    return Model(
        config=config,
        image_shape=shape,
        feature_names=(),
        train_means=np.ones(1),
        calibration_scores=np.zeros(0, np.float32),
        params=params,
        statistics=statistics,
        center=np.array([[1.0, -2.0, 0.5]], np.float32),
        squared_radius=np.array([0.7], np.float32),
        shift=fitted.scaling.shift,
        scale=fitted.scaling.scale,
        whitening_mean=whitening.mean,
        whitening_matrix=whitening.matrix,
        threshold=1.0,
        summary={},
    )


def embeddings_of(model: Model, images: np.ndarray) -> np.ndarray:
    network = build_network(model.config.network, model.image_shape)
    params, statistics = jax.tree.map(lambda leaf: leaf[0], (model.params, model.statistics))
    return np.asarray(network.encode(params, statistics, inspection.network_inputs(model, images)))


@pytest.mark.parametrize("whiten", [False, True])
def test_inputs_are_those_of_the_training(whiten: bool) -> None:
    model = make_model(whiten=whiten)
    expected = preprocessing.apply(
        preprocessing.fit(model.config.preprocessing, IMAGES), IMAGES[:5]
    )
    np.testing.assert_array_equal(inspection.network_inputs(model, IMAGES[:5]), expected)


def test_reconstructions_are_the_decoders() -> None:
    model = make_model("reconstruction")
    inputs = inspection.network_inputs(model, IMAGES[:3])
    network = build_network(model.config.network, SHAPE)
    params, statistics = jax.tree.map(lambda leaf: leaf[0], (model.params, model.statistics))
    expected = network.decode(params, statistics, embeddings_of(model, IMAGES[:3]))
    found = inspection.reconstructions(model, inputs)
    assert found is not None and found.shape == (3, *SHAPE)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-6)


def test_a_model_without_a_decoder_reconstructs_nothing() -> None:
    model = make_model()
    assert inspection.reconstructions(model, IMAGES[:1].astype(np.float32)) is None


def test_filters_are_the_first_kernel() -> None:
    model = make_model()
    found = inspection.first_filters(model)
    np.testing.assert_array_equal(found, model.params["encoder"]["stage0_0"]["kernel"][0])
    dense = make_model(network=NetworkConfig(stages=(), hidden=(5,), rep_dim=3))
    assert inspection.first_filters(dense) is None


def test_embedding_keeps_distances_to_the_center_within_the_plane() -> None:
    model = make_model()
    embedding, share = inspection.embed(model, IMAGES, np.zeros(12))
    embedded = embeddings_of(model, IMAGES).astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(embedded, rowvar=False))
    assert share == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-4)
    # What the smallest direction takes is missing in the plane, nothing else.
    away = embedded - model.center[0]
    expected = np.square(away).sum(1) - np.square(away @ directions[:, 0])
    assert embedding.center is not None
    found = np.square(embedding.points - embedding.center).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_an_autoencoder_has_no_center() -> None:
    model = make_model("reconstruction")
    assert inspection.embed(model, IMAGES, np.zeros(12))[0].center is None


def ensemble_of(one: Model) -> Model:
    """Returns a model of two members, the second of which is nothing but zeros."""

    def with_zeros(leaf: np.ndarray) -> np.ndarray:
        return np.concatenate([leaf, 0 * leaf])

    return one._replace(
        params=jax.tree.map(with_zeros, one.params),
        statistics=jax.tree.map(with_zeros, one.statistics),
        center=with_zeros(one.center),
        squared_radius=np.array([one.squared_radius[0], 9.0], np.float32),
        train_means=np.ones(2),
    )


def test_first_member_of_an_ensemble() -> None:
    one = make_model("reconstruction")
    found = inspection.first_member(ensemble_of(one))
    jax.tree.map(np.testing.assert_array_equal, found.params, one.params)
    jax.tree.map(np.testing.assert_array_equal, found.statistics, one.statistics)
    np.testing.assert_array_equal(found.center, one.center)
    assert found.squared_radius == one.squared_radius and found.train_means == one.train_means


def test_a_saved_ensemble_shows_its_first_member(tmp_path) -> None:
    model = make_model("reconstruction")
    models.save_model(tmp_path / "model", ensemble_of(model))
    loaded = models.load_model(tmp_path / "model")
    inputs = inspection.network_inputs(loaded, IMAGES)
    np.testing.assert_array_equal(
        inspection.reconstructions(loaded, inputs), inspection.reconstructions(model, inputs)
    )
    embedding, share = inspection.embed(loaded, IMAGES, np.zeros(12))
    expected, expected_share = inspection.embed(model, IMAGES, np.zeros(12))
    np.testing.assert_array_equal(embedding.points, expected.points)
    assert share == expected_share
