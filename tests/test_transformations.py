"""The classifier of geometric transformations: its images, its formula, what it learns."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import objectives, recipes, runs, training
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import (
    ConfigError,
    NetworkConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
    TransformationsConfig,
)
from deepsvdd_jax.objectives import Batch, Forward, default_hyperparameters
from deepsvdd_jax.objectives.transformations import surprise, transformed
from deepsvdd_jax.training import TrainState

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

CONFIG = TransformationsConfig()
IMAGES = np.random.RandomState(0).randn(6, 4, 4, 2).astype(np.float32)


def by_hand(images: np.ndarray) -> np.ndarray:
    """Returns the eight transformations, `[8, n, side, side, channels]`, pixel by pixel."""
    side = images.shape[1]
    found = []
    for exchanged in (False, True):
        for turns in range(4):
            made = np.empty_like(images)
            for row in range(side):
                for column in range(side):
                    # A quarter turn to the left moves the last column to the first row.
                    y, x = row, column
                    for _ in range(turns):
                        y, x = x, side - 1 - y
                    if exchanged:
                        y, x = (y + side // 2) % side, (x + side // 2) % side
                    made[:, row, column] = images[:, y, x]
            found.append(made)
    return np.array(found)


def state() -> TrainState:
    nothing = jnp.zeros(())
    return TrainState(
        params={},
        statistics={},
        opt_state=None,
        center=nothing,
        squared_radius=nothing,
        step=nothing,
        epoch=nothing,
        active=nothing,
        failure=nothing,
    )


def logits_of(images: jax.Array) -> jax.Array:
    """A network of one weight a pixel and entry; it has two entries more than it needs."""
    weights = np.random.RandomState(1).randn(32, 10).astype(np.float32)
    return images.reshape(len(images), -1) @ weights


def minus_log(logits: np.ndarray, number: int) -> np.ndarray:
    logits = logits[:, :8].astype(np.float64)
    return np.log(np.exp(logits).sum(axis=1)) - logits[:, number]


def test_images_are_turned_and_their_quarters_exchanged() -> None:
    np.testing.assert_array_equal(transformed(jnp.asarray(IMAGES)), by_hand(IMAGES))
    # All eight are different, so that there is something to tell.
    assert len({one.tobytes() for one in by_hand(IMAGES)[:, 0]}) == CONFIG.logits


def test_the_score_is_the_mean_over_all_transformations() -> None:
    expected = np.mean(
        [
            minus_log(np.asarray(logits_of(jnp.asarray(images))), number)
            for number, images in enumerate(by_hand(IMAGES))
        ],
        axis=0,
    )

    def evaluate(params: object, statistics: object, images: jax.Array) -> Forward:
        return Forward(logits_of(images), None, {})

    score = objectives.objective(CONFIG).score
    for call in (score, jax.jit(score, static_argnums=1)):
        np.testing.assert_allclose(
            call(state(), evaluate, jnp.asarray(IMAGES)), expected, rtol=2e-6
        )


def test_a_step_sees_every_image_under_one_drawn_transformation() -> None:
    seen = []

    def apply(params: object, batch: Batch, key: jax.Array | None) -> Forward:
        seen.append(np.asarray(batch.images))
        return Forward(logits_of(batch.images), None, {})

    many = np.tile(IMAGES, (200, 1, 1, 1))
    batch = Batch(jnp.asarray(many), jnp.ones(len(many), bool), None)
    settings = default_hyperparameters(PhaseConfig(objective=CONFIG))
    losses = objectives.objective(CONFIG).losses
    found = losses({}, state(), apply, batch, settings, jax.random.key(3))
    equal = (by_hand(many) == seen[0][None]).all(axis=(2, 3, 4))
    assert (equal.sum(axis=0) == 1).all()
    numbers = equal.argmax(axis=0)
    expected = [
        minus_log(np.asarray(logits_of(seen[0][row : row + 1])), number)[0]
        for row, number in enumerate(numbers)
    ]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
    # Of 1,200 draws each of the eight comes about 150 times (standard deviation 11.5).
    assert abs(np.bincount(numbers, minlength=8) - 150).max() < 50
    again = losses({}, state(), apply, batch, settings, jax.random.key(4))
    assert not np.array_equal(again.values, found.values)


def test_gradients_are_differences() -> None:
    with jax.enable_x64(True):
        logits = np.random.RandomState(2).randn(5, 9)
        numbers = jnp.array([0, 3, 7, 1, 1])
        gradient = jax.grad(lambda z: jnp.sum(surprise(z, numbers, 8)))(jnp.asarray(logits))
        for place in ((0, 0), (1, 3), (2, 5), (4, 8)):
            up, down = logits.copy(), logits.copy()
            up[place] += 1e-6
            down[place] -= 1e-6
            difference = (
                np.sum(surprise(jnp.asarray(up), numbers, 8))
                - np.sum(surprise(jnp.asarray(down), numbers, 8))
            ) / 2e-6
            np.testing.assert_allclose(gradient[place], difference, atol=1e-8)


NETWORK = NetworkConfig(stages=((4,),), rep_dim=8, kernel_size=3, bias=True, affine=True)
RUN = RunConfig(
    network=NETWORK,
    training=PhaseConfig(
        objective=CONFIG, optimizer=OptimizerConfig("adam", 1e-2), epochs=15, batch_size=20
    ),
)


def upright(count: int, seed: int) -> np.ndarray:
    """Returns noisy images `[n, 8, 8, 1]` that are bright at the top left."""
    images = 0.3 * np.random.RandomState(seed).randn(count, 8, 8, 1)
    images[:, :3, :4] += 1.0
    return images.astype(np.float32)


def train(seeds: list[int]) -> np.ndarray:
    """Returns the scores `[runs, 40]` of twenty such images and twenty bright in the middle."""
    other = 0.3 * np.random.RandomState(8).randn(20, 8, 8, 1).astype(np.float32)
    other[:, 2:6, 2:6] += 1.0
    tests = np.concatenate([upright(20, 7), other])
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    outcome, _ = runs.train_runs(keys, RUN, upright(100, 0), tests)
    return np.asarray(outcome.test_distances)


@pytest.mark.slow
def test_images_without_an_upright_position_are_told_apart() -> None:
    scores = train([0, 5])
    normal, other = scores[:, :20], scores[:, 20:]
    assert (np.median(other, axis=1) > normal.max(axis=1)).all()


@pytest.mark.slow
def test_runs_together_are_those_alone() -> None:
    together = train([0, 5])
    for row, seed in enumerate((0, 5)):
        # Two runs are on two devices, one alone is on one: their last bits differ.
        np.testing.assert_allclose(together[row], train([seed])[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rep_dim": 7}, "takes 8 entries of an embedding; rep_dim is 7"),
        ({"fully_convolutional": True, "padding": "same"}, "makes a map"),
    ],
)
def test_a_network_without_room_for_the_logits_is_refused(
    changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(RUN, network=dataclasses.replace(NETWORK, **changes))


def test_images_that_are_not_square_and_tables_are_refused() -> None:
    with pytest.raises(ConfigError, match="transformations turns square images.* 8 x 6; give a sq"):
        training.check_images(RUN.training, (8, 6, 1))
    with pytest.raises(ConfigError, match="objective transformations is for images"):
        training.check_images(RUN.training, (5,))


def test_the_recipe_for_photographs_is_this_objective() -> None:
    run = recipes.preset("cifar10", "cifar10", (32, 32, 3))
    assert run.training.objective == CONFIG and run.training.synthetic_anomalies is None
    assert run.training.stochastic


def test_flags_of_a_center_are_refused(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with calling(sweep) as call:
        flags = ("--objective=transformations", "--center_init=constant", f"--out={tmp_path / 'o'}")
        assert call(*flags) == 2
    assert "nor has a classifier" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_without_a_key_an_image_is_turned_by_its_place() -> None:
    def apply(params: object, batch: Batch, key: jax.Array | None) -> Forward:
        np.testing.assert_array_equal(batch.images, by_hand(IMAGES)[np.arange(6), np.arange(6)])
        return Forward(logits_of(batch.images), None, {})

    batch = Batch(jnp.asarray(IMAGES), jnp.ones(6, bool), None)
    settings = default_hyperparameters(PhaseConfig(objective=CONFIG))
    objectives.objective(CONFIG).losses({}, state(), apply, batch, settings, None)
