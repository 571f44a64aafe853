"""Counts the false alarms of small sets and of the drift alarm against their bounds, and its delay.

    python -m benchmarks.guarantees

Small sets: the digits of a class, of which 100 are fitted as `fit` does, five members, few epochs;
the others of the class are new. Every split draws the hundred anew. Drift: streams of drawn scores
with the law of squared distances; in the changed ones the scores move, after some hundred that do
not, by so many standard deviations.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets, detectors, recipes
from deepsvdd_jax.cli import environment, process
from deepsvdd_jax.configs import DataConfig, DetectorConfig
from deepsvdd_jax.scoring import cross_calibration, drift

SAMPLES, MEMBERS = 100, 5
CALIBRATION, BEFORE = 200, 300
SHIFTS = (0.5, 1.0, 2.0)

Floats = npt.NDArray[np.float64]


class Rate(NamedTuple):
    """A share of false alarms.

    Attributes:
      name: of the alarm.
      asked: the share that was asked for.
      bound: the proved bound.
      seen: mean over the splits.
      error: its standard error.
    """

    name: str
    asked: float
    bound: float
    seen: float
    error: float


class Delays(NamedTuple):
    """When the drift alarm came after a change.

    Attributes:
      shift: of the scores, in their standard deviations.
      found: share of the streams in which it came.
      median: images from the change to the alarm, of those streams; NaN without any.
      latest: the same of the slowest of these.
    """

    shift: float
    found: float
    median: float
    latest: float


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_integer("splits", 200, "splits of the small sets", lower_bound=2)
    flags.DEFINE_integer("epochs", 5, "epochs of a member", lower_bound=1)
    flags.DEFINE_integer("streams", 200, "streams of scores", lower_bound=1)
    flags.DEFINE_integer("length", 2000, "scores of a stream", lower_bound=1)


def main() -> None:
    """Counts and prints."""
    values = flags.FLAGS
    environment.use_platform(values.platform, values.compilation_cache)
    for rate in small_sets(values.splits, values.epochs):
        print(
            f"{rate.name}, {SAMPLES} samples, {values.splits} splits: asked for "
            f"{100 * rate.asked:.3g} %, at most {100 * rate.bound:.3g} % is proved, seen "
            f"{100 * rate.seen:.2f} ± {100 * rate.error:.2f} %",
            flush=True,
        )
    alarms = unchanged_streams(values.streams, values.length)
    print(
        f"drift: {alarms} of {values.streams} streams of {values.length} unchanged scores raise "
        "the alarm; at most 1 % is proved",
        flush=True,
    )
    for found in (delays(shift, values.streams, values.length) for shift in SHIFTS):
        print(
            f"drift: scores higher by {found.shift:g} standard deviations: alarm in "
            f"{100 * found.found:.3g} % of the streams, after {found.median:.0f} images in the "
            f"median, {found.latest:.0f} at the latest",
            flush=True,
        )


# --- small sets -----------------------------------------------------------------------------------


def small_sets(splits: int, epochs: int) -> list[Rate]:
    """Returns the false alarms of new samples of a class, held out and cross-calibrated."""
    fifth = detectors.held_out_count(0.2, SAMPLES)
    carried = 1 / (fifth + 1)
    crossed = SAMPLES - fifth
    proved = 2 * 0.02 + cross_calibration.bound_excess(crossed, MEMBERS)
    kinds: tuple[tuple[Literal["held-out", "cross"], float, float], ...] = (
        ("held-out", carried, carried),
        ("cross", 0.02, proved),
    )
    return [
        _rate(name, asked, bound, np.array(list(_shares(name, asked, splits, epochs))))
        for name, asked, bound in kinds
    ]


def _rate(name: str, asked: float, bound: float, shares: Floats) -> Rate:
    error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
    return Rate(name, asked, bound, float(shares.mean()), error)


def _shares(
    calibration: Literal["held-out", "cross"], rate: float, splits: int, epochs: int
) -> Iterator[float]:
    """Yields the share of alarms among the new samples of each split."""
    dataset = datasets.load(DataConfig("digits"))
    images = np.concatenate([dataset.x_train, dataset.x_test])
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    run = recipes.preset("auto", "digits", images.shape[1:])
    optimizer = dataclasses.replace(run.training.optimizer, milestones=())
    training = dataclasses.replace(run.training, epochs=epochs, optimizer=optimizer)
    config = DetectorConfig(
        dataclasses.replace(run, training=training),
        tuple(range(MEMBERS)),
        0.2,
        "conformal",
        alarm_rate=rate,
        calibration=calibration,
    )
    for split in range(splits):
        own = images[labels == split % 10]
        order = np.random.default_rng(split).permutation(len(own))
        model, _ = detectors.fit_detector(config, own[order[:SAMPLES]])
        yield float(detectors.judge(model, own[order[SAMPLES:]]).anomalous.mean())


# --- drift ----------------------------------------------------------------------------------------


def unchanged_streams(streams: int, length: int) -> int:
    """Returns how many streams that do not change raise the alarm."""
    return sum(_first_alarm(seed, length, 0.0) is not None for seed in range(streams))


def delays(shift: float, streams: int, length: int) -> Delays:
    """Returns how long the alarm takes after a change, of streams without one before it."""
    alarms = [_first_alarm(seed, length, shift) for seed in range(streams)]
    after = [alarm - BEFORE for alarm in alarms if alarm is not None and alarm >= BEFORE]
    if not after:
        return Delays(shift, 0.0, np.nan, np.nan)
    return Delays(shift, len(after) / streams, float(np.median(after)) + 1, max(after) + 1.0)


def _first_alarm(seed: int, length: int, shift: float) -> int | None:
    """Returns the place of the first score at which the alarm is up; None without any."""
    random = np.random.default_rng(seed)
    scores = random.gamma(2.0, size=CALIBRATION + length)
    # The standard deviation of that law is the root of 2.
    scores[CALIBRATION + BEFORE :] += shift * np.sqrt(2.0)
    states = drift.follow(drift.start(scores[:CALIBRATION]), scores[CALIBRATION:], seed)
    return next((place for place, state in enumerate(states) if drift.has_drifted(state)), None)


if __name__ == "__main__":
    define_flags()
    process.run_command(main)
