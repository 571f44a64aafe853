"""The public step under every transformation, and one step by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deepsvdd_jax as svdd
from deepsvdd_jax import training
from deepsvdd_jax.configs import (
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)

SHAPE = (6, 6, 1)
PHASE = PhaseConfig(optimizer=OptimizerConfig("adam", 1e-2), batch_size=8)
CONFIG = RunConfig(network=NetworkConfig(stages=((3,),), rep_dim=4, kernel_size=3), training=PHASE)
NETWORK = svdd.build_network(CONFIG.network, SHAPE)
STEP = functools.partial(svdd.train_step, network=NETWORK, phase=PHASE)


@pytest.fixture(scope="module")
def states() -> list[svdd.TrainState]:
    images = jnp.asarray(np.random.RandomState(0).rand(16, *SHAPE), jnp.float32)
    return [svdd.init_run(jax.random.key(seed), CONFIG, images) for seed in range(2)]


@pytest.fixture(scope="module")
def batches() -> list[svdd.Batch]:
    random = np.random.RandomState(1)
    mask = jnp.arange(8) < 6
    return [svdd.Batch(jnp.asarray(random.rand(8, *SHAPE), jnp.float32), mask) for _ in range(2)]


def assert_close(first: Any, second: Any) -> None:
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6),
        first,
        second,
    )


def stacked(items: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)


def loop(states: list[svdd.TrainState], batches: list[svdd.Batch]) -> Any:
    with jax.disable_jit():
        return stacked([STEP(state, batch) for state, batch in zip(states, batches, strict=True)])


def test_jit_vmap_and_pmap_equal_a_plain_loop(
    states: list[svdd.TrainState], batches: list[svdd.Batch]
) -> None:
    plain = loop(states, batches)
    compiled = jax.jit(STEP)
    assert_close(stacked([compiled(s, b) for s, b in zip(states, batches, strict=True)]), plain)
    both = stacked(states), stacked(batches)
    assert_close(jax.jit(jax.vmap(STEP))(*both), plain)
    assert jax.local_device_count() >= 2
    assert_close(jax.pmap(STEP)(*both), plain)


def test_hyperparameters_are_vmapped(
    states: list[svdd.TrainState], batches: list[svdd.Batch]
) -> None:
    rates = training.Hyperparameters(jnp.full(2, 0.1), jnp.full(2, 1e-6), jnp.asarray([1e-2, 1e-3]))
    state, batch = states[0], batches[0]
    step = jax.vmap(lambda settings: STEP(state, batch, hyperparameters=settings)[0])
    new = step(rates)
    moved = jax.tree.map(
        lambda after, before: np.abs(np.asarray(after) - np.asarray(before)[None]).max(
            tuple(range(1, after.ndim))
        ),
        new.params,
        state.params,
    )
    for change in jax.tree.leaves(moved):
        # Adam's first step is the learning rate, whatever the gradient.
        np.testing.assert_allclose(change, [1e-2, 1e-3], rtol=2e-2)


def test_padding_is_as_if_it_were_not_there(
    states: list[svdd.TrainState], batches: list[svdd.Batch]
) -> None:
    batch = batches[0]
    short = svdd.Batch(batch.images[:6], jnp.ones(6, bool))
    wild = svdd.Batch(batch.images.at[6:].set(jnp.nan), batch.mask)
    expected, info = STEP(states[0], short)
    for padded in (batch, wild):
        new, told = STEP(states[0], padded)
        assert_close(new, expected)
        assert_close((told.loss, told.data_loss), (info.loss, info.data_loss))


def test_a_batch_of_padding_changes_nothing(
    states: list[svdd.TrainState], batches: list[svdd.Batch]
) -> None:
    nothing = svdd.Batch(batches[0].images, jnp.zeros(8, bool))
    new, _ = STEP(states[0], nothing)
    jax.tree.map(np.testing.assert_array_equal, new, states[0])


def test_one_adam_step_by_hand() -> None:
    """A dense layer without bias on two features, one-class loss with coupled weight decay."""
    phase = PhaseConfig(optimizer=OptimizerConfig("adam", 1e-2), weight_decay=0.3)
    config = NetworkConfig(stages=(), rep_dim=2, batch_norm=False)
    network = svdd.build_network(config, (3,))
    kernel = np.random.RandomState(0).randn(3, 2)
    images = np.random.RandomState(1).randn(5, 3)
    center = np.array([0.4, -0.7])
    params = {
        "encoder": {"representation": {"dense": {"kernel": jnp.asarray(kernel, jnp.float32)}}}
    }
    state = training.start_phase(
        phase, params, {"encoder": {}}, jnp.asarray(center, jnp.float32), jnp.zeros(())
    )
    batch = svdd.Batch(jnp.asarray(images, jnp.float32), jnp.ones(5, bool))
    new, info = svdd.train_step(state, batch, network, phase)

    residual = images @ kernel - center
    loss = (residual**2).sum(1).mean() + 0.15 * (kernel**2).sum()
    gradient = 2 / 5 * images.T @ residual + 0.3 * kernel
    first, second = 0.1 * gradient, 0.001 * gradient**2
    step = (first / 0.1) / (np.sqrt(second / 0.001) + 1e-8)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(
        new.params["encoder"]["representation"]["dense"]["kernel"],
        kernel - 1e-2 * step,
        rtol=1e-5,
        atol=1e-6,
    )


def test_running_statistics_and_soft_boundary_radius(
    states: list[svdd.TrainState], batches: list[svdd.Batch]
) -> None:
    new, _ = STEP(states[0], batches[0])
    _, seen = NETWORK.encode_batch(states[0].params, batches[0].images, batches[0].mask, None)
    expected = jax.tree.map(
        lambda old, batch: 0.9 * old + 0.1 * batch, states[0].statistics["encoder"], seen
    )
    assert_close(new.statistics["encoder"], expected)
    phase = PhaseConfig(objective=ObjectiveConfig(kind="soft-boundary", nu=0.4, warm_up_epochs=1))
    cold, info = svdd.train_step(states[0], batches[0], NETWORK, phase)
    assert float(cold.squared_radius) == 0.0
    started = states[0]._replace(epoch=jnp.int32(1))
    warm, info = svdd.train_step(started, batches[0], NETWORK, phase)
    roots = np.sqrt(np.asarray(info.distances)[:6])
    np.testing.assert_allclose(warm.squared_radius, np.quantile(roots, 0.6) ** 2, rtol=1e-5)


@pytest.mark.parametrize("epoch, factor", [(0, 1.0), (4, 1.0), (5, 0.1), (9, 0.01), (20, 0.005)])
def test_learning_rate_drops_and_decays(epoch: int, factor: float) -> None:
    config = OptimizerConfig("adam", 1.0, milestones=(5, 8), decay_after_epoch=10)
    assert float(training.learning_rate_factor(config, jnp.int32(epoch))) == pytest.approx(factor)


@pytest.mark.parametrize("size", [10, 17, 64])
def test_epoch_order_depends_on_the_count_alone(size: int) -> None:
    key = jax.random.key(3)
    order = np.asarray(training.epoch_order(key, size, jnp.int32(10)))
    assert sorted(order[:10]) == list(range(10))
    np.testing.assert_array_equal(order[:10], training.epoch_order(key, 10, jnp.int32(10)))
    other = np.asarray(training.epoch_order(jax.random.key(4), size, jnp.int32(10)))[:10]
    assert (other != order[:10]).any()


def test_whole_batches_keep_their_images_together() -> None:
    order, count = training.batch_order(jax.random.key(0), 23, jnp.int32(23), 5)
    assert int(count) == 20
    batches = np.asarray(order)[:20].reshape(4, 5)
    assert sorted(batches[:, 0]) == [0, 5, 10, 15]
    np.testing.assert_array_equal(batches - batches[:, :1], np.tile(np.arange(5), (4, 1)))


# What each solver does in two steps with gradients g1 and g2, from its definition.
def reference(name: str, g1: float, g2: float) -> tuple[float, float]:
    e = 1e-6
    if name == "sgd":
        return g1, g2
    if name == "momentum":
        return g1, 0.9 * g1 + g2
    if name == "nesterov":
        return g1 + 0.9 * g1, g2 + 0.9 * (0.9 * g1 + g2)
    if name == "adagrad":
        return g1 / np.sqrt(g1**2 + e), g2 / np.sqrt(g1**2 + g2**2 + e)
    if name == "rmsprop":
        first = 0.1 * g1**2
        return g1 / np.sqrt(first + e), g2 / np.sqrt(0.9 * first + 0.1 * g2**2 + e)
    if name == "adadelta":
        a1 = 0.05 * g1**2
        u1 = g1 * np.sqrt(e) / np.sqrt(a1 + e)
        a2, d1 = 0.95 * a1 + 0.05 * g2**2, 0.05 * u1**2
        return u1, g2 * np.sqrt(d1 + e) / np.sqrt(a2 + e)
    m2 = 0.09 * g1 + 0.1 * g2
    if name == "adamax":
        return g1 / (abs(g1) + 1e-8), m2 / 0.19 / (max(0.999 * abs(g1), abs(g2)) + 1e-8)
    v1, v2 = 0.001 * g1**2, 0.000999 * g1**2 + 0.001 * g2**2
    n1, n2 = v1 / 0.001, v2 / 0.001999
    largest = max(n1, n2) if name == "amsgrad" else n2
    return g1 / (np.sqrt(n1) + 1e-8), m2 / 0.19 / (np.sqrt(largest) + 1e-8)


@pytest.mark.parametrize("name", svdd.configs.OPTIMIZERS)
def test_every_solver_is_what_its_definition_says(name: str) -> None:
    solver = training.descent(OptimizerConfig(name))
    gradients = (np.float32(0.8), np.float32(-0.3))
    state, found = solver.init(jnp.zeros(())), []
    for gradient in gradients:
        move, state = solver.update(jnp.asarray(gradient), state, jnp.zeros(()))
        found.append(float(move))
    np.testing.assert_allclose(found, reference(name, *map(float, gradients)), rtol=2e-4)
