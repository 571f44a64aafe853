"""Streaming: the same runs as in memory, whatever the chunks."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import runs
from deepsvdd_jax.configs import (
    ConfigError,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import Engine, Outcome, Progress, Run, memory
from deepsvdd_jax.runs import streamed as streaming
from deepsvdd_jax.runs.streamed import choose_engine
from deepsvdd_jax.training import RunData, run_data

SHAPE = (4, 4, 1)
IMAGE_BYTES = 4 * 16
CONVOLUTIONAL = NetworkConfig(stages=((3,),), rep_dim=3, kernel_size=3)
# Compiles in a moment; it has no batch statistics.
DENSE = NetworkConfig("dense", (), (5,), rep_dim=3)
PHASE = PhaseConfig(optimizer=OptimizerConfig("adam", 1e-3), epochs=3, batch_size=8)
AUTOENCODER = dataclasses.replace(PHASE, objective=ObjectiveConfig(kind="reconstruction"), epochs=2)
# 27 images are three batches and three more, 10 are one and two more.
SIZES = (27, 10)
# A quarter of it holds two batches of both runs, so that the larger run takes two chunks.
BUDGET = 4 * 2 * 8 * IMAGE_BYTES * len(SIZES)


def config_of(
    network: NetworkConfig, pretraining: PhaseConfig | None = None, **objective: Any
) -> RunConfig:
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(**objective))
    return RunConfig(network=network, training=phase, pretraining=pretraining)


CONFIGS = {
    "autoencoder, then one-class": config_of(CONVOLUTIONAL, AUTOENCODER, center_batches=2),
    "soft boundary from batches": config_of(
        DENSE, kind="soft-boundary", radius_rule="quantile", warm_up_epochs=1, nu=0.2
    ),
    "soft boundary, solved with the center": config_of(
        DENSE,
        kind="soft-boundary",
        radius_rule="block-coordinate",
        center_rule="dual",
        warm_up_epochs=1,
        radius_every=5,
        nu=0.3,
    ),
    "one-class with dropout": config_of(dataclasses.replace(DENSE, dropout=0.5)),
    "soft boundary by gradient": config_of(
        DENSE, kind="soft-boundary", radius_rule="gradient", center_init="constant", nu=0.2
    ),
}


def make_images(config: RunConfig) -> np.ndarray:
    images = np.random.RandomState(0).rand(40, *SHAPE).astype(np.float32)
    return images.reshape(40, -1) if config.network.is_dense else images


def make_run(number: int, config: RunConfig) -> Run:
    indices = np.zeros(max(SIZES), np.int32)
    indices[: SIZES[number]] = np.random.RandomState(number).permutation(40)[: SIZES[number]]
    ones = (1,) if config.network.is_dense else (1, 1, 1)
    data = RunData(
        jnp.asarray(indices), jnp.int32(SIZES[number]), jnp.full(ones, 0.1), jnp.full(ones, 1.5)
    )
    return Run(jax.random.key(number), data, *runs.phase_settings(config), {})


def make_program(
    config: RunConfig,
    engine: Engine,
    images: np.ndarray | None = None,
    members: list[Run] | None = None,
) -> runs.Program:
    pool = make_images(config) if images is None else images
    if members is None:
        members = [make_run(number, config) for number in range(len(SIZES))]
    mesh = runs.make_mesh(jax.devices()[:1])
    network = build_network(config.network, pool.shape[1:])
    placed = engine(mesh, pool, make_images(config)[:21])
    return runs.Program(config, network, mesh, placed, runs.place(mesh, runs.stack_runs(members)))


def train(
    config: RunConfig,
    engine: Engine,
    epochs: int = 25,
    images: np.ndarray | None = None,
    members: list[Run] | None = None,
) -> tuple[Outcome, Progress]:
    program = make_program(config, engine, images, members)
    progress = program.init()
    while not runs.is_over(config, progress):
        progress = program.advance(progress, epochs)
    return program.finish(progress), progress


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6),
        actual,
        expected,
    )


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """What is compiled here runs for a moment: most of the compiler's own work would be wasted."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "soft boundary by gradient" else pytest.mark.slow)
        for name in CONFIGS
    ],
)
def test_streamed_equals_in_memory(name: str) -> None:
    config = CONFIGS[name]
    expected, expected_progress = train(config, runs.in_memory)
    streamed, progress = train(config, streaming.engine(BUDGET))
    assert_close(progress.history, expected_progress.history)
    assert_close(progress.untrained_distances, expected_progress.untrained_distances)
    assert_close(streamed.state, expected.state)
    assert_close(streamed.test_distances, expected.test_distances)
    assert_close(streamed.collapse_ratio, expected.collapse_ratio)
    assert_close(streamed.fraction_outside, expected.fraction_outside)
    for number, size in enumerate(SIZES):
        assert_close(
            np.asarray(streamed.train_distances)[number, :size],
            np.asarray(expected.train_distances)[number, :size],
        )


@pytest.mark.slow
def test_marked_pixels_are_those_of_the_same_images_in_every_chunk() -> None:
    network = dataclasses.replace(
        CONVOLUTIONAL, bias=True, affine=True, fully_convolutional=True, batch_norm=False
    )
    phase = dataclasses.replace(PHASE, objective=FCDDConfig(map_masks=True))
    config = RunConfig(network=network, training=phase)
    regions = np.random.RandomState(1).rand(7, 4, 4) < 0.3
    labels = np.repeat([0, -1], [20, 7])
    ones = np.ones((1, 1, 1))
    data = run_data(np.arange(27), 27, 0.1 * ones, 1.5 * ones, labels=labels, regions=regions)
    nothing_marked = data._replace(regions=jnp.zeros_like(data.regions))
    run = Run(jax.random.key(0), data, *runs.phase_settings(config), {})
    expected, streamed, unmarked = (
        train(config, engine, members=[one])[0].state
        for engine, one in (
            (runs.in_memory, run),
            (streaming.engine(BUDGET // 2), run),
            (runs.in_memory, run._replace(data=nothing_marked)),
        )
    )
    assert_close(streamed, expected)
    with pytest.raises(AssertionError):
        assert_close(unmarked.params, expected.params)


def test_dropout_is_drawn_in_training() -> None:
    programs = [
        make_program(config_of(dataclasses.replace(DENSE, dropout=rate)), runs.in_memory)
        for rate in (0.5, 0.0)
    ]
    dropped, undisturbed = (program.advance(program.init(), 1) for program in programs)
    # From the first step on: the same weights, the same images, other losses.
    assert_close(dropped.untrained_distances, undisturbed.untrained_distances)
    losses = (progress.history["training"].loss[:, 0] for progress in (dropped, undisturbed))
    assert np.all(np.abs(np.subtract(*losses)) > 1e-3)


def test_epochs_one_at_a_time_from_a_memory_map_of_bytes(tmp_path: Path) -> None:
    config = CONFIGS["soft boundary by gradient"]
    grey = (255 * make_images(config)).astype(np.uint8)
    np.save(tmp_path / "pool.npy", grey)
    on_disk = np.load(tmp_path / "pool.npy", mmap_mode="r")
    expected, _ = train(config, runs.in_memory, images=grey.astype(np.float32))
    streamed, _ = train(config, streaming.engine(BUDGET), epochs=1, images=on_disk)
    assert_close(streamed.state, expected.state)


def test_a_stopped_run_keeps_its_state_and_its_neighbour_goes_on() -> None:
    config = CONFIGS["soft boundary by gradient"]
    losses = train(config, runs.in_memory)[1].history["training"].loss
    level = float(losses[:, 0].mean())
    stops = dataclasses.replace(config.training, stop_below=level)
    outcome, progress = train(dataclasses.replace(config, training=stops), streaming.engine(BUDGET))
    expected, _ = train(dataclasses.replace(config, training=stops), runs.in_memory)
    stopped = int(np.argmin(losses[:, 0]))
    assert progress.history["training"].ran[stopped].tolist() == [True, False, False]
    assert_close(outcome.state, expected.state)


def test_no_more_than_the_budget_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    to_device = jax.device_put

    def note(values: Any, *where: Any, **options: Any) -> Any:
        # Of all that goes there the images: a program's keys and settings do too.
        if isinstance(values, np.ndarray) and values.shape[-1:] == (16,):
            moved.append(values.nbytes)
        return to_device(values, *where, **options)

    monkeypatch.setattr(jax, "device_put", note)
    train(CONFIGS["soft boundary by gradient"], streaming.engine(BUDGET))
    assert len(moved) > 10 and max(moved) == BUDGET // 4


def test_sets_are_streamed_above_the_budget_only() -> None:
    pools = np.zeros((10, 5), np.uint8), np.zeros((6, 5), np.uint8)
    assert choose_engine(4 * 80, *pools) is runs.in_memory
    assert choose_engine(4 * 80 - 1, *pools) is not runs.in_memory
    # A CPU's memory is where the pools are already.
    assert choose_engine(None, *pools) is runs.in_memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("500000", 500_000), ("64MB", 64_000_000), (" 1.5 gib ", 3 * 2**29), ("2KiB", 2048)],
)
def test_budgets_are_read(text: str, expected: int) -> None:
    assert memory.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0.2", "-1", "MB", "2 TB", "1e9", "two", "9" * 400])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match="memory budget .*; give bytes, or a size as 500MB or 2GiB"
    ):
        memory.parse_bytes(text)
