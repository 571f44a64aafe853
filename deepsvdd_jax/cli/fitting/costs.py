"""The time that a fit takes on this device, by measured steps, and the choice for a time budget."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli.fitting import tasks
from deepsvdd_jax.cli.fitting.tasks import Plan, Task
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.configs import ConfigError, DetectorConfig, RunConfig

with lazily():
    from deepsvdd_jax import detectors

if TYPE_CHECKING:
    from deepsvdd_jax.detectors import Prepared, Speed

MOST_MEMBERS, MEMBERS_OF_LARGE_IMAGES = 5, 2
# From so many pixels of an image on, two members are the default: 500 images of 128 x 128 then
# train in some minutes on two cores.
LARGE = 64 * 64

# Share of a budget that is reserved for work that is not measured.
_SPARE = 0.1

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Choice(NamedTuple):
    """How many members and epochs a budget allows, and the seconds that they take."""

    members: int
    epochs: int
    seconds: float


def define_flags() -> None:
    """Defines the flags that estimate and bound the time of a fit."""
    flags.DEFINE_bool("estimate_only", False, "say what the training will take, then stop")
    flags.DEFINE_string(
        "time_budget",
        None,
        "90s, 5min or 2h: choose members and epochs (those that are not given) so that all is done "
        "by then",
    )


def default_members(image_shape: tuple[int, ...]) -> int:
    """Returns the default number of members of an ensemble."""
    large = len(image_shape) == 3 and image_shape[0] * image_shape[1] > LARGE
    return MEMBERS_OF_LARGE_IMAGES if large else MOST_MEMBERS


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration as 90s, 5min or 1.5h.

    Raises:
      ConfigError: another form, or nothing above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.0 < seconds < math.inf:
        raise ConfigError(f"time_budget is {text!r}; give 90s, 5min or 2h")
    return seconds


def budget_of(values: flags.FlagValues) -> float | None:
    """Returns the seconds of --time_budget; None without one.

    Raises:
      ConfigError: not a duration, or nothing is left to choose.
    """
    if values.time_budget is None:
        return None
    if values.seeds is not None and values.epochs is not None:
        raise ConfigError(
            "time_budget chooses --seeds and --epochs, which are both given; leave one out"
        )
    return parse_duration(values.time_budget)


def prepare(planned: Plan, groups: npt.NDArray[np.str_] | None) -> Prepared:
    """Prepares the samples of the main task, for the measurement and then for the training."""
    given = tasks.training_set(planned.main, planned.samples, groups)
    return detectors.prepare(planned.main.config, **given)


def measure(planned: Plan, prepared: Prepared) -> Speed:
    """Measures the main task (reads the clock)."""
    given = tasks.training_set(planned.main, planned.samples, None)
    return detectors.measure(planned.main.config, given["images"], given.get("labels"), prepared)


def rounds(members: int) -> int:
    """Returns how many members a device trains one after the other; on an accelerator all train
    together, which is counted as one after the other too."""
    return -(-members // _devices())


def _devices() -> int:
    import jax

    return jax.local_device_count()


def estimate(planned: Plan, speed: Speed, choice: tuple[int, int] | None = None) -> float:
    """Returns the seconds of training all tasks, compilation of the first one left out.

    Args:
      planned: the trainings.
      speed: measured with its main task.
      choice: other members and epochs than the plan's.
    """
    config = planned.main.config
    members, epochs = choice or (len(config.seeds), config.run.training.epochs)
    factor = rounds(members) / rounds(len(config.seeds))
    total = sum(_seconds_of(task, planned, speed, epochs) * factor for task in planned.tasks)
    return total + (len(planned.tasks) - 1) * speed.compilation


def _seconds_of(task: Task, planned: Plan, speed: Speed, epochs: int) -> float:
    config = task.config
    count = len(planned.samples.images)
    normals = count - detectors.held_out_count(config.calibration_fraction, count)
    seconds = 2 * speed.begin
    phases = [("training", config.run.training, epochs)]
    if config.run.pretraining is not None:
        before = config.run.pretraining
        phases.append(("pretraining", before, before.epochs))
    for name, phase, wanted in phases:
        balanced = phase.objective.draws_balanced
        steps = detectors.steps_of_epoch(phase.batch_size, normals, len(task.anomalies), balanced)
        seconds += wanted * steps * speed.steps.get(name, speed.steps["training"])
    return seconds


def choose(
    planned: Plan, speed: Speed, left: float, members: int | None, epochs: int | None
) -> Choice:
    """Returns the most members that train for all epochs within a time; if not even one round of
    members does, one round with fewer epochs.

    Args:
      planned: what would be trained without a budget.
      speed: measured with its main task.
      left: seconds.
      members: as given; None chooses up to five.
      epochs: as given; None chooses up to the plan's.

    Raises:
      ConfigError: not even one epoch fits.
    """
    left = (1.0 - _SPARE) * left
    most = planned.main.config.run.training.epochs if epochs is None else epochs
    counts = [members] if members is not None else list(range(MOST_MEMBERS, 0, -1))

    def seconds(count: int, length: int) -> float:
        config = planned.main.config
        changed = (count, length) != (len(config.seeds), config.run.training.epochs)
        # Another number of members or epochs is another program.
        return estimate(planned, speed, (count, length)) + changed * speed.compilation

    for count in counts:
        if seconds(count, most) <= left:
            return Choice(count, most, seconds(count, most))
    if epochs is None:
        count = members or min(MOST_MEMBERS, _devices())
        for length in range(most - 1, 0, -1):
            if seconds(count, length) <= left:
                return Choice(count, length, seconds(count, length))
    least = seconds(counts[-1], 1 if epochs is None else most)
    raise ConfigError(
        f"time_budget: {tables.duration(max(left, 0))} are left for the training, which "
        f"takes at least {tables.duration(least)}; give more time, fewer or smaller "
        "images (--image_size)"
    )


def with_choice(config: DetectorConfig, choice: Choice, seeds: tuple[int, ...]) -> DetectorConfig:
    """Returns a configuration of so many members and epochs; where the recipe lowers the learning
    rate, it does so as late.

    Args:
      config: before.
      choice: members and epochs.
      seeds: of the members.
    """
    return dataclasses.replace(config, seeds=seeds, run=_with_epochs(config.run, choice.epochs))


def _with_epochs(run: RunConfig, epochs: int) -> RunConfig:
    phase = run.training
    if epochs == phase.epochs:
        return run
    lowered = {max(1, round(at / phase.epochs * epochs)) for at in phase.optimizer.milestones}
    optimizer = dataclasses.replace(phase.optimizer, milestones=tuple(sorted(lowered)))
    training = dataclasses.replace(phase, epochs=epochs, optimizer=optimizer)
    return dataclasses.replace(run, training=training)


def describe(planned: Plan, speed: Speed) -> str:
    """Returns a line on the time that the training will take."""
    steps = ", ".join(f"{seconds:.2g} s a step of {name}" for name, seconds in speed.steps.items())
    return (
        f"about {tables.duration(estimate(planned, speed))} to train, from {steps}, all "
        "members, measured on this device; programs were compiled in "
        f"{tables.duration(speed.compilation)}"
    )
