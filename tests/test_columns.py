"""Columns of zeros change no result, and tables of several widths share one compiled program."""

import dataclasses
from typing import Literal

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import DeepSVDD, detectors, recipes, runs
from deepsvdd_jax.configs import (
    DetectorConfig,
    NetworkConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.detectors import columns
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import transitions

NETWORK = NetworkConfig("mlp", stages=(), hidden=(6,), rep_dim=4, batch_norm=False, bias=True)
RUN = RunConfig(
    preprocessing=PreprocessingConfig(min_max=False, standardize=True),
    network=NETWORK,
    training=PhaseConfig(optimizer=OptimizerConfig("adam", 1e-2), epochs=5, batch_size=16),
)
TABLE = np.random.RandomState(0).randn(70, 5)
NEW = np.random.RandomState(1).randn(40, 5) * 3


def test_widths_are_few() -> None:
    found = {columns.padded_width(count) for count in range(1, 600)}
    assert found == {32, 64, 128, 256, 512, 768}
    assert all(columns.padded_width(count) >= count for count in range(1, 2000))


def test_what_cannot_be_widened() -> None:
    assert columns.program_width(RUN, (5,)) == 32
    image = recipes.preset("auto", "array", (8, 8, 1))
    assert columns.program_width(image, (8, 8, 1)) is None
    pretrained = dataclasses.replace(RUN, pretraining=recipes.default_autoencoder(RUN.training))
    assert columns.program_width(pretrained, (5,)) is None
    begun = dataclasses.replace(RUN, initial_model="folder")
    assert columns.program_width(begun, (5,)) is None


@pytest.mark.parametrize("initializer", ["glorot", "torch"])
@pytest.mark.parametrize("hidden", [(6,), ()])
def test_a_wide_network_starts_from_the_same_draws(
    initializer: Literal["glorot", "torch"], hidden: tuple[int, ...]
) -> None:
    network = dataclasses.replace(NETWORK, initializer=initializer, hidden=hidden)
    narrow, _ = build_network(network, (5,)).init(jax.random.key(3), False)
    wide, _ = build_network(network, (32,)).init(jax.random.key(3), False)
    scaled = transitions.scale_leaves(wide, columns.start_factors(network, 5, 32))
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], scaled)
    cut = columns.cut(network, stacked, 5)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one[0], other, rtol=1e-6), cut, narrow
    )
    widened = columns.widen(network, cut, 32)
    jax.tree.map(np.testing.assert_array_equal, widened, stacked)


@pytest.mark.slow
def test_a_detector_is_the_same_run_without_the_columns() -> None:
    model, history = detectors.fit_detector(DetectorConfig(run=RUN, seeds=(3, 8)), TABLE)
    scaled = (TABLE - TABLE.mean(axis=0)) / TABLE.std(axis=0)
    keys = jax.vmap(jax.random.key)(jnp.array([3, 8]))
    outcome, progress = runs.train_runs(keys, RUN, scaled.astype(np.float32))
    assert jax.tree.map(np.shape, model.params) == jax.tree.map(np.shape, outcome.state.params)
    for found, expected in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(outcome.state.params), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    loss = np.asarray(progress.history["training"].loss)
    np.testing.assert_allclose(history["training"]["loss"], loss, rtol=1e-4)
    # Scores by the saved weights, in float64.
    values = (NEW - TABLE.mean(axis=0)) / TABLE.std(axis=0)
    for member, distances in enumerate(detectors.member_distances(model, NEW)):
        layers = jax.tree.map(
            lambda leaf, at=member: np.asarray(leaf[at], np.float64), model.params
        )
        first = layers["encoder"]["hidden0"]["linear"]["dense"]
        second = layers["encoder"]["representation"]["dense"]
        activity = values @ first["kernel"] + first["bias"]
        embeddings = np.where(activity > 0, activity, 0.01 * activity) @ second["kernel"]
        embeddings += second["bias"]
        expected = np.square(embeddings - model.center[member]).sum(axis=1)
        np.testing.assert_allclose(distances, expected, rtol=1e-4)


def test_tables_of_other_sizes_compile_nothing(compilations: list[float]) -> None:
    config = DetectorConfig(run=RUN, seeds=(0,))
    detectors.score_images(detectors.fit_detector(config, TABLE)[0], NEW)
    compilations.clear()
    for rows, width in ((200, 9), (71, 2), (900, 31)):
        table = np.random.RandomState(rows).randn(rows, width)
        model, _ = detectors.fit_detector(config, table)
        assert detectors.score_images(model, table[:30]).shape == (30,)
    assert not compilations


@pytest.mark.parametrize("preprocessing", ["none", "min_max", "standardize"])
def test_every_column_is_scored_however_the_table_is_scaled(preprocessing: str) -> None:
    """Network and scaling written anew; a scaling may have one value for all columns."""
    network = NetworkConfig("linear", (), (), rep_dim=3, batch_norm=False)
    detector = DeepSVDD(network=network, preprocessing=preprocessing, epochs=1, n_seeds=1)
    table = np.random.RandomState(4).randn(60, 5) * [1.0, 3.0, 1.0, 0.5, 2.0]
    model = detector.fit(table).model_
    kernel = model.params["encoder"]["representation"]["dense"]["kernel"][0].astype(np.float64)
    embedded = ((table - model.shift) * model.scale) @ kernel
    expected = ((embedded - model.center[0]) ** 2).sum(axis=1)
    np.testing.assert_allclose(-detector.score_samples(table), expected, rtol=1e-4, atol=1e-6)
    for column in range(5):
        changed = table[:1].copy()
        changed[0, column] += 1.0
        assert detector.score_samples(changed) != detector.score_samples(table[:1])
