"""What a sweep will cost on this device, from a few steps that are measured at the real shapes."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepsvdd_jax import preprocessing, runs, scoring, training
from deepsvdd_jax.cli import files
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import plans, pools, shallow
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import build_network

# Steps of a measured epoch, and how often it is measured: the least time counts, because others
# that use the machine only ever add to it.
STEPS = 2
REPEATS = 2

# Runs a device that are measured together on an accelerator; a wider program costs less a run.
_ACCELERATOR_RUNS = 10

# Passes of a phase over a set, beside its epochs: statistics, center and last distances of the
# training images, first and last distances of the test images.
_TRAIN_PASSES, _TEST_PASSES = 3, 2

AUTOENCODER = "autoencoder"


class Speed(NamedTuple):
    """Seconds of the whole device a run: of one step, and of one image scored."""

    step: float
    image: float


class PhaseCost(NamedTuple):
    """What is to go of a phase.

    Attributes:
      name: the autoencoder, or the method whose last phase it is.
      runs: how many classes and seeds have it to go.
      epochs: of one of them.
      seconds: that one of them takes.
    """

    name: str
    runs: int
    epochs: int
    seconds: float


def estimate(sweep: Sweep, rows: Mapping[RunName, files.Row]) -> list[PhaseCost]:
    """Measures the phases of the deep runs that are missing (reads the clock).

    Args:
      sweep: what is wanted.
      rows: of the runs that are there.
    """
    costs = []
    measured: dict[RunConfig, Speed] = {}
    for (name, config), problems in phases_to_go(sweep, rows).items():
        label, seed = problems[0]
        split = sweep.splits[label, seed]
        alike = _measured_as(config)
        if alike not in measured:
            measured[alike] = measure_speed(alike, sweep.dataset.x_train[split.train_indices])
        speed = measured[alike]
        steps = math.ceil(len(split.train_indices) / config.training.batch_size)
        scored = _TRAIN_PASSES * len(split.train_indices) + _TEST_PASSES * len(sweep.dataset.x_test)
        epochs = config.training.epochs
        seconds = epochs * steps * speed.step + scored * speed.image
        costs.append(PhaseCost(name, len(problems), epochs, seconds))
    return costs


def phases_to_go(
    sweep: Sweep, rows: Mapping[RunName, files.Row]
) -> dict[tuple[str, RunConfig], list[tuple[int, int]]]:
    """Returns, by phase, the classes and seeds whose runs have it to go.

    A pretraining is the DCAE of its class and seed and counts once for all methods.
    """
    everything = [
        (RunName(method, *problem), title, phase)
        for method, config in sweep.settings.configs.items()
        for problem in sweep.splits
        for title, phase in _phases(method, config)
    ]
    counted = {(phase, name[1:]) for name, _, phase in everything if name in rows}
    found: dict[tuple[str, RunConfig], list[tuple[int, int]]] = {}
    for name, title, phase in everything:
        problem = name[1:]
        if (phase, problem) not in counted:
            counted.add((phase, problem))
            found.setdefault((title, phase), []).append(problem)
    return found


def _phases(method: str, config: RunConfig) -> list[tuple[str, RunConfig]]:
    name = AUTOENCODER if method == "dcae" else method
    last = (name, dataclasses.replace(config, pretraining=None))
    if config.pretraining is None:
        return [last]
    return [(AUTOENCODER, runs.autoencoder_config(config)), last]


def _measured_as(config: RunConfig) -> RunConfig:
    """Returns the phase that takes as long: a soft boundary's radius, a quantile of a batch, adds
    nothing to a step, and its program would have to be compiled too."""
    plain = dataclasses.replace(config.training, objective=config.training.objective.of_ends)
    return dataclasses.replace(config, training=plain)


def measure_speed(config: RunConfig, images: np.ndarray) -> Speed:
    """Times warm epochs of a few steps and a warm scoring of the same images (reads the clock).

    Args:
      config: of one phase.
      images: raw, of the normal class.
    """
    batch = config.training.batch_size
    pool = _network_input(config, images)[: STEPS * batch]
    network = build_network(config.network, pool.shape[1:])
    mesh = runs.make_mesh()
    width = mesh.size * (1 if jax.default_backend() == "cpu" else _ACCELERATOR_RUNS)
    # Long enough that no measured epoch is the last one, and that none stops a run.
    endless = dataclasses.replace(config.training, epochs=REPEATS + 2, stop_below=None)
    config = dataclasses.replace(config, training=endless)
    stacked = runs.place(mesh, runs.stack_runs([_run(config, pool, seed) for seed in range(width)]))
    program = runs.Program(config, network, mesh, runs.in_memory(mesh, pool, pool), stacked)
    progress = program.init()

    def train() -> None:
        nonlocal progress
        progress = program.advance(progress, 1)

    epoch = _least_seconds(train)
    scored = _least_seconds(lambda: jax.block_until_ready(program.evaluate(progress)))
    steps = math.ceil(len(pool) / batch)
    # Both sets, which are the same images here, are filled up to whole batches.
    images_scored = 2 * scoring.BATCH_SIZE * math.ceil(len(pool) / scoring.BATCH_SIZE)
    return Speed(epoch / (width * steps), scored / (width * images_scored))


def _network_input(config: RunConfig, images: np.ndarray) -> np.ndarray:
    return preprocessing.apply(preprocessing.fit(config.preprocessing, images), images)


def _run(config: RunConfig, pool: np.ndarray, seed: int) -> runs.Run:
    ones = (1,) * (pool.ndim - 1)
    count = len(pool)
    data = training.RunData(
        jnp.arange(count, dtype=jnp.int32),
        jnp.int32(count),
        jnp.zeros(ones, jnp.float32),
        jnp.ones(ones, jnp.float32),
    )
    return runs.Run(pools.run_key(seed, 0), data, *runs.phase_settings(config), {})


def _least_seconds(work: Callable[[], Any]) -> float:
    work()
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def describe(sweep: Sweep, rows: Mapping[RunName, files.Row], costs: list[PhaseCost]) -> str:
    """Returns a table of what is to go, its sum as hours and minutes, runs an hour, and a line on
    each baseline."""
    lines = []
    if costs:
        header = ("phase", "runs to go", "epochs", "s a run", "time")
        cells = [
            (cost.name, str(cost.runs), str(cost.epochs), f"{cost.seconds:.3g}", _time_of(cost))
            for cost in costs
        ]
        seconds = sum(cost.runs * cost.seconds for cost in costs)
        deep_runs = sum(
            RunName(method, *problem) not in rows
            for method in sweep.settings.configs
            for problem in sweep.splits
        )
        device = jax.devices()[0]
        lines += [
            tables.aligned([header, *cells]),
            f"{deep_runs} deep runs: {tables.hours_and_minutes(seconds)}, "
            f"{3600 * deep_runs / seconds:.3g} runs an hour, from {STEPS} steps of each phase "
            f"measured on {jax.local_device_count()} x {device.device_kind}; compilation and "
            "baselines come on top",
        ]
    lines += shallow.describe_costs(
        sweep, [name for name in plans.wanted_runs(sweep) if name not in rows]
    )
    return "\n".join(lines) or "every run is there"


def _time_of(cost: PhaseCost) -> str:
    return tables.hours_and_minutes(cost.runs * cost.seconds)
