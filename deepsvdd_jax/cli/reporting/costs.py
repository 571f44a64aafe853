"""Estimates the cost of a sweep on this device by a few steps, measured at the real shapes."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepsvdd_jax import preprocessing, runs, training
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import plans, pools, shallow
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.records import Record, RunName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import build_network

# Steps of a measured epoch, and how often it is measured: the least time counts, because other work
# on the machine only adds to it.
STEPS = 2
REPEATS = 2

# So many runs are measured together on an accelerator; a wider program costs less a run.
_ACCELERATOR_RUNS = 10

# Phases are measured for so many seconds, compilation included; the cost of later ones follows from
# their operations.
MEASURING_SECONDS = 12.0

# Scoring an image takes this share of a step's time for an image: it has no backward pass.
_SCORING_SHARE = 1 / 3

# Passes of a phase over a set, beside its epochs: statistics, center and last distances of the
# training images, first and last distances of the test images.
_TRAIN_PASSES, _TEST_PASSES = 3, 2

# From this load a core on, other work has slowed the measured steps.
_BUSY_SHARE = 0.5

AUTOENCODER = "autoencoder"


class Speed(NamedTuple):
    """Seconds of the whole device for one run: of a step, and of an image scored; and whether they
    were measured or computed from another phase."""

    step: float
    image: float
    measured: bool = True


class PhaseCost(NamedTuple):
    """The cost of a phase that is left to train.

    Attributes:
      name: `autoencoder`, or the method whose last phase it is.
      runs: how many classes and seeds lack it.
      epochs: of one run.
      seconds: of one run.
      measured: whether its steps were measured, or computed from another phase's.
    """

    name: str
    runs: int
    epochs: int
    seconds: float
    measured: bool = True


def estimate(sweep: Sweep, rows: Mapping[RunName, Record]) -> list[PhaseCost]:
    """Measures the phases of the deep runs that are missing (reads the clock).

    Args:
      sweep: the planned sweep.
      rows: of the finished runs.
    """
    costs = []
    to_go = phases_to_go(sweep, rows)
    wanted: dict[RunConfig, np.ndarray] = {}
    for (_, config), problems in to_go.items():
        images = sweep.dataset.x_train[sweep.splits[problems[0]].train_indices]
        wanted.setdefault(_measured_as(config), images)
    measured = measure_speeds(wanted)
    for (name, config), problems in to_go.items():
        split = sweep.splits[problems[0]]
        speed = measured[_measured_as(config)]
        steps = math.ceil(len(split.train_indices) / config.training.batch_size)
        scored = _TRAIN_PASSES * len(split.train_indices) + _TEST_PASSES * len(sweep.dataset.x_test)
        epochs = config.training.epochs
        seconds = epochs * steps * speed.step + scored * speed.image
        costs.append(PhaseCost(name, len(problems), epochs, seconds, speed.measured))
    return costs


def phases_to_go(
    sweep: Sweep, rows: Mapping[RunName, Record]
) -> dict[tuple[str, RunConfig], list[tuple[int, int]]]:
    """Returns, by phase, the classes and seeds whose runs lack it.

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


def measure_speeds(wanted: Mapping[RunConfig, np.ndarray]) -> dict[RunConfig, Speed]:
    """Times warm epochs of a few steps of phases (reads the clock).

    The phase with the fewest operations comes first. A later phase whose compilation would take too
    long is not compiled: its time is scaled by its operations. Steps start with drawn weights,
    because passes over a set need programs of their own; the score of an image is counted as a
    third of a step's time for an image.

    Args:
      wanted: by the settings of one phase, raw images of the normal class.
    """
    started = time.perf_counter()
    programs = {config: measured_program(config, images) for config, images in wanted.items()}
    operations = {config: program.operations() for config, program in programs.items()}
    measured: dict[RunConfig, Speed] = {}
    found: dict[RunConfig, Speed] = {}
    seconds_an_operation = 0.0
    for config in sorted(operations, key=lambda config: operations[config]):
        begun = time.perf_counter()
        late = begun - started + seconds_an_operation * operations[config] > MEASURING_SECONDS
        if measured and late and all(operations.values()):
            first = next(iter(measured))
            factor = operations[config] / operations[first]
            batches = first.training.batch_size / config.training.batch_size
            found[config] = Speed(
                factor * measured[first].step, factor * batches * measured[first].image, False
            )
            continue
        measured[config] = found[config] = measure_speed(config, programs[config])
        seconds_an_operation = (time.perf_counter() - begun) / max(operations[config], 1.0)
    return found


def measure_speed(config: RunConfig, program: runs.Program) -> Speed:
    """Times warm epochs of one phase (reads the clock).

    Args:
      config: of the phase.
      program: of it, see `measured_program`.
    """
    # The first epoch compiles the program.
    progress = program.advance(program.unprepared(), 1)
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        progress = program.advance(progress, 1)
        found.append(time.perf_counter() - started)
    width, batch_size = len(progress.state.active), config.training.batch_size
    steps = math.ceil(len(program.images.images) / batch_size)
    step = min(found) / (width * steps)
    return Speed(step, _SCORING_SHARE * step / batch_size, True)


def measured_program(config: RunConfig, images: np.ndarray) -> runs.Program:
    """Returns a program of a phase with images for a few steps, a run a device, more on an
    accelerator.

    Args:
      config: of the phase.
      images: raw, of the normal class.
    """
    pool = _network_input(config, images[: STEPS * config.training.batch_size])
    network = build_network(config.network, pool.shape[1:])
    mesh = runs.make_mesh()
    width = mesh.size * (1 if jax.default_backend() == "cpu" else _ACCELERATOR_RUNS)
    # Long enough that no measured epoch is the last one, and that none stops a run.
    endless = dataclasses.replace(config.training, epochs=REPEATS + 2, stop_below=None)
    config = dataclasses.replace(config, training=endless)
    stacked = runs.place(mesh, runs.stack_runs([_run(config, pool, seed) for seed in range(width)]))
    return runs.Program(config, network, mesh, runs.in_memory(mesh, pool, pool[:1]), stacked)


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


def machine_load() -> float:
    """Returns how many processes have kept the cores busy in the last minute; 0 where the system
    does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def busy_note(load: float, cores: int | None = None) -> str:
    """Returns the end of a line of measured times, which says that the machine was busy; empty if
    it was not.

    Args:
      load: of `machine_load`, before anything was measured.
      cores: of the machine; None asks.
    """
    cores = cores or os.cpu_count() or 1
    if load < _BUSY_SHARE * cores:
        return ""
    return (
        f"; the machine was busy as the measuring began (load {load:.1f} on {cores} cores), alone "
        "it may take less"
    )


def describe(
    sweep: Sweep, rows: Mapping[RunName, Record], costs: list[PhaseCost], load: float = 0.0
) -> str:
    """Returns a table of the remaining phases, their sum as hours and minutes, runs an hour, and a
    line on each baseline.

    Args:
      sweep: the planned sweep.
      rows: of the finished runs.
      costs: of `estimate`.
      load: of `machine_load`, before anything was measured.
    """
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
            f"{deep_runs} deep runs: {tables.duration(seconds)}, "
            f"{3600 * deep_runs / seconds:.3g} runs an hour, from {STEPS} steps measured on "
            f"{jax.local_device_count()} x {device.device_kind}{_computed(costs)}; compilation and "
            f"baselines come on top{busy_note(load)}",
        ]
    lines += shallow.describe_costs(
        sweep, [name for name in plans.wanted_runs(sweep) if name not in rows]
    )
    return "\n".join(lines) or "every run is there"


def _computed(costs: list[PhaseCost]) -> str:
    """Returns in words which phases were not measured."""
    names = [cost.name for cost in costs if not cost.measured]
    if not names:
        return " of each phase"
    return f"; {' and '.join(names)} computed from these by the operations of a step, not measured"


def _time_of(cost: PhaseCost) -> str:
    return tables.duration(cost.runs * cost.seconds)
