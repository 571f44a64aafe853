"""Measures how long a training takes, by steps of the program that it runs."""

import contextlib
import dataclasses
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import runs
from deepsvdd_jax.configs import DetectorConfig, RunConfig
from deepsvdd_jax.detectors import deep_svdd
from deepsvdd_jax.detectors.members import train_members

# Steps of a measured epoch, and how many epochs are measured: the least time counts, because other
# work on the machine only adds to it.
STEPS = 2
REPEATS = 2


class Speed(NamedTuple):
    """Measured seconds of a training.

    Attributes:
      steps: of one step of all members, by phase.
      begin: of the passes over the training set before the first epoch, and of `STEPS` steps.
      compilation: until all programs were compiled.
    """

    steps: dict[str, float]
    begin: float
    compilation: float


class _Measured(Exception):
    """Raised to end a training that has been measured."""


def measure(
    config: DetectorConfig,
    images: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    prepared: deep_svdd.Prepared | None = None,
) -> Speed:
    """Times steps of the programs that `fit_detector` then runs (reads the clock).

    The programs are compiled for the shapes of that training, so that it does not compile them
    again in this process.

    Args:
      config: of the detector.
      images: as of `fit_detector`.
      labels: likewise.
      prepared: likewise.

    Raises:
      ConfigError, DataError: as `fit_detector`.
    """
    parts = deep_svdd.prepare(config, images, labels) if prepared is None else prepared
    steps: dict[str, float] = {}
    begin = compilation = 0.0
    for phase, run in _phases(config.run):
        alone = dataclasses.replace(config, run=run)
        step, begun, compiled = _measure_phase(alone, parts)
        steps[phase] = step
        begin, compilation = max(begin, begun), compilation + compiled
    return Speed(steps, begin, compilation)


def _phases(run: RunConfig) -> list[tuple[str, RunConfig]]:
    """Returns for each phase a run that starts with it."""
    if run.pretraining is None:
        return [("training", run)]
    return [("pretraining", run), ("training", dataclasses.replace(run, pretraining=None))]


def _measure_phase(config: DetectorConfig, parts: deep_svdd.Prepared) -> tuple[float, float, float]:
    """Returns seconds of a step, of the passes before and the first epoch, and of compilation."""
    phase = config.run.pretraining or config.run.training
    few = min(max(1, len(parts.inputs) // 2), STEPS * phase.batch_size)
    times = [time.perf_counter()]
    compiled = times[0]

    def note_compiled(done: int, total: int) -> None:
        nonlocal compiled
        compiled = time.perf_counter()

    def note(progress: runs.Progress) -> None:
        times.append(time.perf_counter())
        if len(times) > REPEATS + 1:
            raise _Measured

    with contextlib.suppress(_Measured):
        train_members(
            config,
            parts.inputs,
            parts.labels,
            on_progress=note,
            on_compiled=note_compiled,
            count=few,
            epochs_per_call=1,
            folds=parts.folds,
            regions=parts.regions,
        )
    taken = np.diff(times[1:])
    steps = -(-few // phase.batch_size)
    first = times[1] - compiled
    # A training of one epoch has no second one to measure.
    step = float(taken.min() if len(taken) else first) / steps
    return step, first, compiled - times[0]


def steps_of_epoch(phase_batch: int, normals: int, anomalies: int, balanced: bool) -> int:
    """Returns how many steps an epoch takes.

    Args:
      phase_batch: images a step.
      normals: samples that are no known anomalies and are trained on.
      anomalies: known anomalies.
      balanced: whether every other example is a known anomaly.
    """
    examples = 2 * normals if balanced and anomalies else normals + anomalies
    return -(-examples // phase_batch)
