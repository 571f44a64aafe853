"""Scores against distances worked out from the embeddings of the network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deepsvdd_jax import scoring
from deepsvdd_jax.configs import NetworkConfig, ObjectiveConfig, PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.training import RunData, TrainState

# What is compiled runs for a moment: most of the compiler's own work would be wasted.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CONFIG = NetworkConfig("small", stages=((3,),), rep_dim=4, kernel_size=3)
SHAPE = (4, 4, 1)
SQUARED_RADIUS = 0.7
# One example more than two batches.
COUNT = 2 * scoring.BATCH_SIZE + 1


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(CONFIG, SHAPE)


@pytest.fixture(scope="module")
def state(network: Network) -> TrainState:
    """A state whose running statistics, center and radius are none of the initial ones."""
    params, statistics = compiled(network.init, static_argnums=1)(jax.random.key(0), True)
    rng = np.random.default_rng(0)
    statistics = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.uniform(-0.4, 0.4, leaf.shape), jnp.float32),
        statistics,
    )
    zero = jnp.zeros((), jnp.int32)
    center = jnp.asarray([0.3, -0.2, 0.5, 1.0])
    radius = jnp.asarray(SQUARED_RADIUS)
    return TrainState(
        params=params,
        statistics=statistics,
        opt_state=(),
        center=center,
        squared_radius=radius,
        step=zero,
        epoch=zero,
        active=jnp.asarray(True),
        failure=zero,
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(COUNT, *SHAPE)).astype(np.float32)


def expected_distances(network: Network, state: TrainState, images: np.ndarray) -> np.ndarray:
    """All images at once, the sums in float64."""
    embeddings = np.asarray(compiled(network.encode)(state.params, state.statistics, images))
    return ((embeddings.astype(np.float64) - np.asarray(state.center, np.float64)) ** 2).sum(1)


def run_config(kind: str, **settings: Any) -> RunConfig:
    objective = ObjectiveConfig(kind=kind, **settings)  # type: ignore[arg-type]
    return RunConfig(network=CONFIG, training=PhaseConfig(objective=objective))


@pytest.mark.parametrize("count", [1, COUNT])
def test_one_class_scores_are_squared_distances(
    network: Network, state: TrainState, images: np.ndarray, count: int
) -> None:
    found = scoring.anomaly_scores(run_config("one-class"), state, jnp.asarray(images[:count]))
    expected = expected_distances(network, state, images[:count])
    assert found.shape == (count,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_soft_boundary_scores_are_less_the_squared_radius(
    network: Network, state: TrainState, images: np.ndarray
) -> None:
    found = np.asarray(
        scoring.anomaly_scores(run_config("soft-boundary"), state, jnp.asarray(images))
    )
    distances = expected_distances(network, state, images)
    np.testing.assert_allclose(found, distances - SQUARED_RADIUS, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("error", ["squared", "cross-entropy"])
def test_reconstruction_scores_are_summed_errors(
    network: Network, state: TrainState, images: np.ndarray, error: str
) -> None:
    config = run_config("reconstruction", reconstruction_error=error)
    found = scoring.anomaly_scores(config, state, jnp.asarray(images))
    embeddings = compiled(network.encode)(state.params, state.statistics, images)
    outputs = np.asarray(
        compiled(network.decode)(state.params, state.statistics, embeddings), np.float64
    )
    wanted = images.astype(np.float64)
    if error == "squared":
        errors = (outputs - wanted) ** 2
    else:
        errors = -wanted * np.log(outputs) - (1 - wanted) * np.log(1 - outputs)
    np.testing.assert_allclose(found, errors.reshape(COUNT, -1).sum(1), rtol=1e-4)


@pytest.mark.parametrize("kind", ["one-class", "soft-boundary", "reconstruction"])
def test_no_image_no_score(state: TrainState, kind: str) -> None:
    found = scoring.anomaly_scores(run_config(kind), state, jnp.zeros((0, *SHAPE)))
    assert found.shape == (0,)


def test_scores_are_of_each_image_alone(state: TrainState, images: np.ndarray) -> None:
    config = run_config("one-class")
    order = np.random.default_rng(2).permutation(COUNT)
    found = np.asarray(scoring.anomaly_scores(config, state, jnp.asarray(images)))
    shuffled = np.asarray(scoring.anomaly_scores(config, state, jnp.asarray(images[order])))
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-5, atol=1e-7)
    assert np.ptp(found) > 0.01


# --- pools --------------------------------------------------------------------------------------

pool_distances = compiled(scoring.pool_distances, static_argnums=(3, 4))


def run_data() -> RunData:
    ones = (1, 1, 1)
    return RunData(
        jnp.zeros(1, jnp.int32), jnp.ones((), jnp.int32), jnp.full(ones, 0.2), jnp.full(ones, 2.5)
    )


def test_pool_distances_of_all_after_scaling(
    network: Network, state: TrainState, images: np.ndarray
) -> None:
    objective = ObjectiveConfig()
    found = pool_distances(state, jnp.asarray(images), run_data(), network, objective)
    expected = expected_distances(network, state, (images - np.float32(0.2)) * np.float32(2.5))
    assert found.shape == (COUNT,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - expected_distances(network, state, images)).max() > 0.1


def test_pool_distances_of_indices_repeated_and_out_of_order(
    network: Network, state: TrainState, images: np.ndarray
) -> None:
    indices = np.random.default_rng(3).integers(0, COUNT, scoring.BATCH_SIZE + 3)
    # A soft boundary's radius is not taken off a distance.
    found = pool_distances(
        state,
        jnp.asarray(images),
        run_data(),
        network=network,
        objective=ObjectiveConfig(kind="soft-boundary"),
        indices=jnp.asarray(indices, jnp.int32),
    )
    scaled = (images[indices] - np.float32(0.2)) * np.float32(2.5)
    expected = expected_distances(network, state, scaled)
    assert found.shape == indices.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_pool_distances_of_no_index(network: Network, state: TrainState) -> None:
    pool, nothing = jnp.zeros((3, *SHAPE)), jnp.zeros((0,), jnp.int32)
    found = pool_distances(
        state, pool, run_data(), network=network, objective=ObjectiveConfig(), indices=nothing
    )
    assert found.shape == (0,)


def test_score_offset() -> None:
    radius = jnp.asarray(SQUARED_RADIUS)
    soft = scoring.score_offset(ObjectiveConfig(kind="soft-boundary"), radius)
    assert float(soft) == pytest.approx(SQUARED_RADIUS)
    for kind in ("one-class", "reconstruction"):
        objective = ObjectiveConfig(kind=kind)  # type: ignore[arg-type]
        assert float(scoring.score_offset(objective, radius)) == 0.0


# --- collapse -----------------------------------------------------------------------------------

collapse_ratio = compiled(scoring.collapse_ratio, static_argnums=1, static_argnames="count")


def test_noise_is_uniform_and_without_a_pattern(network: Network) -> None:
    noise = np.asarray(scoring.uniform_noise(64, network), np.float64).reshape(64, -1)
    assert noise.shape[1:] == (np.prod(SHAPE),) and len(np.unique(noise)) > 0.99 * noise.size
    assert noise.min() >= 0.0 and noise.max() < 1.0
    assert scipy.stats.kstest(noise.ravel(), "uniform").pvalue > 0.01
    # Neither images nor pixels are alike: correlations are those of chance.
    for table in (noise, noise.T):
        found = np.corrcoef(table)[np.triu_indices(len(table), 1)]
        assert np.std(found) * np.sqrt(table.shape[1]) == pytest.approx(1.0, abs=0.15)
        assert np.abs(np.mean(found)) < 3 / np.sqrt(found.size * table.shape[1])


def test_collapse_ratio_by_its_definition(network: Network, state: TrainState) -> None:
    noise = scoring.uniform_noise(30, network)
    embeddings = np.asarray(
        compiled(network.encode)(state.params, state.statistics, noise), np.float64
    )
    spread = np.sqrt(((embeddings - embeddings.mean(0)) ** 2).sum(1).mean())
    expected = spread / np.linalg.norm(np.asarray(state.center, np.float64))
    found = float(collapse_ratio(state, network, count=30))
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > 0.05


def test_collapse_ratio_of_a_collapsed_network_is_zero(network: Network, state: TrainState) -> None:
    collapsed = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    assert float(collapse_ratio(collapsed, network, count=30)) < 1e-6
