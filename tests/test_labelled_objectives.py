"""Deep SAD, HSC and the plain classifier: losses, gradients, orders, runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import configs, objectives, runs, training
from deepsvdd_jax.configs import (
    BCEConfig,
    ConfigError,
    DeepSADConfig,
    HSCConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)

LABELS = np.array([0, 1, -1, 0, 1, -1])
VALUES = np.array([0.0, 0.5, 1e-3, 3.0, 40.0, 25.0])


def test_deep_sad_losses_are_the_equation() -> None:
    eta = 0.7
    expected = [
        d if y == 0 else eta * (d + 1e-6) ** float(y) for d, y in zip(VALUES, LABELS, strict=True)
    ]
    found = objectives.deep_sad_losses(jnp.asarray(VALUES, jnp.float32), jnp.asarray(LABELS), eta)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _exact_hsc(squared_norm: float, label: int) -> float:
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    h = (Decimal(squared_norm) + 1).sqrt() - 1
    if label >= 0:
        return float(h)
    return float(-(1 - (-h).exp() + Decimal("1e-9")).ln())


@pytest.mark.parametrize("squared_norm", [1e-6, 1e-2, 1.8, 1.9, 10.0, 400.0])
@pytest.mark.parametrize("label", [0, 1, -1])
def test_hsc_losses_keep_their_digits_in_float32(squared_norm: float, label: int) -> None:
    single = float(np.float32(squared_norm))
    values = objectives.pseudo_huber(jnp.float32([squared_norm]))
    found = objectives.distance_losses(values, jnp.array([label]))
    np.testing.assert_allclose(found[0], _exact_hsc(single, label), rtol=3e-6, atol=1e-9)


def test_bce_and_focal_losses_are_the_equation() -> None:
    logits = np.array([-30.0, -1.0, 0.0, 0.3, 4.0, 30.0])
    anomalous = 1.0 / (1.0 + np.exp(-logits))
    own = np.where(LABELS < 0, anomalous, 1.0 / (1.0 + np.exp(logits)))
    for focus in (0.0, 2.0):
        expected = -((1.0 - own) ** focus) * np.log(own)
        found = objectives.bce_losses(jnp.float32(logits), jnp.asarray(LABELS), focus)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize(
    "losses",
    [
        lambda z, y: objectives.deep_sad_losses(jnp.sum(z**2, 1), y, 1.3),
        lambda z, y: objectives.distance_losses(objectives.pseudo_huber(jnp.sum(z**2, 1)), y),
        lambda z, y: objectives.bce_losses(jnp.sum(z, 1), y, 1.5),
    ],
    ids=["deep-sad", "hsc", "bce"],
)
def test_gradients_are_finite_differences(losses) -> None:  # type: ignore[no-untyped-def]
    labels = jnp.array([0, 1, -1, -1])
    point = np.random.default_rng(0).normal(size=(4, 3)) * np.array([[1], [1], [1], [0.2]])
    with jax.enable_x64(True):
        total = lambda z: jnp.sum(losses(z, labels))  # noqa: E731
        found = np.asarray(jax.grad(total)(jnp.asarray(point)))
        for place in np.ndindex(*point.shape):
            step = np.zeros_like(point)
            step[place] = 1e-6
            slope = (total(jnp.asarray(point + step)) - total(jnp.asarray(point - step))) / 2e-6
            np.testing.assert_allclose(found[place], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 1e6, 1e18])
def test_gradients_are_finite_everywhere(size: float) -> None:
    labels = jnp.array([0, 1, -1])
    for losses in (
        lambda d: objectives.deep_sad_losses(d, labels),
        lambda d: objectives.distance_losses(objectives.pseudo_huber(d), labels),
        lambda d: objectives.bce_losses(d, labels, 1.5),
    ):
        found = jax.grad(lambda d, losses=losses: jnp.sum(losses(d)))(
            jnp.full(3, size, jnp.float32)
        )
        assert np.isfinite(found).all()


def _config(objective: configs.BaseObjectiveConfig, epochs: int = 3) -> RunConfig:
    network = NetworkConfig("mlp", stages=(), hidden=(8,), rep_dim=4, batch_norm=False)
    phase = PhaseConfig(objective, OptimizerConfig("adam", 1e-2), epochs=epochs, batch_size=16)
    return RunConfig(network=network, training=phase)


def _train(objective: configs.BaseObjectiveConfig, labels: np.ndarray | None, epochs: int):  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    images = random.normal(size=(60, 5)).astype(np.float32)
    images[50:] += 2.0
    one = np.ones(1, np.float32)
    data = training.run_data(np.arange(60), 64, 0 * one, one, labels=labels)
    keys = jax.vmap(jax.random.key)(jnp.arange(1))
    outcome, _ = runs.train_runs(keys, _config(objective, epochs), images, images, data=[data])
    return outcome


def test_without_labels_deep_sad_is_one_class_to_the_bit() -> None:
    ours = _train(DeepSADConfig(), np.zeros(60, np.int32), 30)
    theirs = _train(ObjectiveConfig(), None, 30)
    np.testing.assert_array_equal(ours.test_distances, theirs.test_distances)
    same = jax.tree.map(np.array_equal, ours.state.params, theirs.state.params)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    "objective",
    [DeepSADConfig(), DeepSADConfig(balanced_batches=True), HSCConfig(), BCEConfig()],
    ids=["deep-sad", "deep-sad balanced", "hsc", "bce"],
)
def test_known_anomalies_get_higher_scores_than_without_labels(
    objective: configs.BaseObjectiveConfig,
) -> None:
    labels = np.zeros(60, np.int32)
    labels[50:] = -1
    scores = np.asarray(_train(objective, labels, 30).test_distances)[0]
    ratio = scores[50:].mean() / scores[:50].mean()
    before = np.asarray(_train(ObjectiveConfig(), None, 30).test_distances)[0]
    assert ratio > 2.0 * before[50:].mean() / before[:50].mean()


@pytest.mark.slow
def test_pairs_of_classes_ratios_and_seeds_share_a_program_and_are_the_runs_alone() -> None:
    random = np.random.default_rng(1)
    images = random.normal(size=(90, 5)).astype(np.float32) + np.repeat([0, 1, -2], 30)[:, None]
    # Normal class, known class, how many of it (0, 10 and 25 %), seed.
    cells = [(0, 1, 3, 0), (0, 2, 10, 1), (1, 0, 0, 0), (2, 1, 10, 3)]
    one = np.ones(1, np.float32)

    def data(normal: int, known: int, count: int) -> training.RunData:
        places = np.arange(30)
        indices = np.concatenate([30 * normal + places, 30 * known + places[:count]])
        labels = np.repeat([0, -1], [30, count])
        return training.run_data(indices, 40, 0 * one, one, labels=labels)

    def train(cells: list[tuple[int, int, int, int]]) -> runs.Outcome:
        keys = jax.vmap(jax.random.key)(jnp.array([seed for *_, seed in cells]))
        views = [data(*cell) for *cell, _ in cells]
        return runs.train_runs(keys, _config(DeepSADConfig(), 5), images, images, data=views)[0]

    together = train(cells)
    for number, cell in enumerate(cells):
        alone = train([cell])
        np.testing.assert_allclose(
            together.test_distances[number], alone.test_distances[0], rtol=1e-6
        )
    scores = np.asarray(together.test_distances)
    assert len({score.tobytes() for score in scores}) == len(cells)


def test_the_radius_is_of_the_unlabelled_images() -> None:
    labels = np.zeros(60, np.int32)
    labels[50:] = -1
    outcome = _train(DeepSADConfig(nu=0.1), labels, 30)
    distances = np.asarray(outcome.train_distances)[0][:50]
    # The (n - floor(nu n))-th smallest of the 50.
    expected = np.sort(distances)[50 - 5 - 1]
    np.testing.assert_allclose(outcome.state.squared_radius[0], expected, rtol=1e-6)


balanced_order = jax.jit(training.balanced_order)


def test_a_balanced_order_alternates_and_repeats_anomalies_evenly() -> None:
    anomalous = np.zeros(20, bool)
    anomalous[[3, 8, 14]] = True
    order, count = balanced_order(jax.random.key(0), jnp.asarray(anomalous), jnp.int32(15))
    order = np.asarray(order)[: int(count)]
    # 15 are no padding, 3 of them anomalous.
    assert count == 24
    assert sorted(order[0::2]) == [i for i in range(15) if not anomalous[i]]
    assert np.bincount(order[1::2], minlength=15)[[3, 8, 14]].tolist() == [4, 4, 4]
    for start in range(0, 12, 3):
        assert set(order[1::2][start : start + 3]) == {3, 8, 14}


def test_a_balanced_order_does_not_depend_on_the_padding() -> None:
    def order_of(size: int) -> np.ndarray:
        anomalous = jnp.arange(size) % 5 == 1
        order, count = balanced_order(jax.random.key(1), anomalous, jnp.int32(12))
        return np.asarray(order)[: int(count)]

    np.testing.assert_array_equal(order_of(20), order_of(12))
    np.testing.assert_array_equal(order_of(33), order_of(12))


def test_a_balanced_order_without_anomalies_takes_every_image_once() -> None:
    order, count = balanced_order(jax.random.key(0), jnp.zeros(9, bool), jnp.int32(7))
    assert count == 7 and sorted(np.asarray(order)[:7]) == list(range(7))


@pytest.mark.parametrize("objective", [DeepSADConfig(eta=2.0), HSCConfig(), BCEConfig(focus=1.0)])
def test_settings_survive_json(objective: configs.BaseObjectiveConfig) -> None:
    config = _config(objective)
    assert configs.from_json(RunConfig, configs.to_json(config)) == config


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="eta"):
        DeepSADConfig(eta=0.0)
    with pytest.raises(ConfigError, match="focus"):
        BCEConfig(focus=-1.0)
    with pytest.raises(ConfigError, match="give one"):
        PhaseConfig(HSCConfig(), whole_batches=True)
    assert dataclasses.replace(PhaseConfig(HSCConfig(balanced_batches=False)), whole_batches=True)
