"""Checks that the requested false-alarm rate is kept, class by class.

    python -m experiments.false_alarms --dataset=mnist --data_dir=DIR --false_alarm_rate=0.01

For every class, puts a fifth of the training split's normals aside, fits a model to the rest (part
of which calibrates its threshold), and counts the alarms among the normals that were put aside.
These are exchangeable with the calibration normals, so that the number is beta-binomial. Shows
beside it the alarms of the test split's normals, which may differ (other writers). Exit code 1 if a
class leaves its 99.9 % interval.
"""

import sys
from typing import NamedTuple

import numpy as np
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import bars, environment, exits, settings, unread
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.configs import DetectorConfig
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.scoring import calibration
from deepsvdd_jax.scoring.calibration import AlarmInterval

with lazily():
    from deepsvdd_jax import detectors

_ASIDE = 0.2


class Count(NamedTuple):
    """Alarms of one class.

    Attributes:
      normal_class: the class.
      calibration: normals that the threshold was taken from.
      aside: normals of the training split that neither training nor threshold saw.
      alarms: how many of them raise an alarm.
      expected: 99.9 % interval of that number.
      test: normals of the test split.
      test_alarms: how many of them raise an alarm.
    """

    normal_class: int
    calibration: int
    aside: int
    alarms: int
    expected: AlarmInterval
    test: int
    test_alarms: int

    @property
    def holds(self) -> bool:
        """Whether the alarms lie in their interval."""
        return self.expected.low <= self.alarms <= self.expected.high


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags()
    settings.define_run_flags()
    environment.define_flags()
    flags.DEFINE_string("normal_classes", "all", "`all`, or classes as 0,3,8")
    flags.DEFINE_string("seeds", "1", "members of each model: a count, or a list")
    flags.DEFINE_float("calibration_fraction", 0.25, "share held out of training")
    flags.DEFINE_float("false_alarm_rate", 0.05, "share of normals that may raise an alarm")


def main() -> None:
    """Reads the flags, fits a model a class, prints the table."""
    values = flags.FLAGS
    environment.use_platform(values.platform, values.compilation_cache)
    dataset = datasets.load(settings.data_config(values))
    classes = settings.class_list(values.normal_classes, dataset)
    run = settings.run_config(values, values.dataset, tuple(dataset.x_train.shape[1:]))
    unread.check_settings(
        settings.given(values), run, [(methods.DEEP_SVDD, run)], keeps_radius=False
    )
    config = DetectorConfig(
        run=run,
        seeds=settings.seed_list(values.seeds),
        calibration_fraction=values.calibration_fraction,
        threshold_rule="conformal",
        alarm_rate=values.false_alarm_rate,
    )
    counts = []
    with bars.progress_bar("classes", len(classes), "class") as bar:
        for label in classes:
            counts.append(count_alarms(config, dataset, label))
            bar.update()
    print(table(counts))
    outside = [count.normal_class for count in counts if not count.holds]
    if outside:
        raise exits.Failure(
            f"classes {', '.join(map(str, outside))}: alarms outside the 99.9 % interval"
        )
    print(f"every class keeps {config.alarm_rate:g} within its 99.9 % interval", file=sys.stderr)


def count_alarms(config: DetectorConfig, dataset: Dataset, label: int) -> Count:
    """Fits a model to four fifths of a class's training normals and counts alarms among others."""
    normals = dataset.x_train[dataset.y_train == label]
    order = np.random.RandomState(label).permutation(len(normals))
    aside = round(_ASIDE * len(normals))
    model, _ = detectors.fit_detector(config, normals[np.sort(order[aside:])])
    test = dataset.x_test[dataset.y_test == label]
    alarms, test_alarms = (
        int((detectors.score_images(model, images) > model.threshold).sum())
        for images in (normals[np.sort(order[:aside])], test)
    )
    held_out = model.summary["calibration_samples"]
    expected = calibration.alarm_interval(held_out, aside, config.alarm_rate)
    return Count(
        normal_class=label,
        calibration=held_out,
        aside=aside,
        alarms=alarms,
        expected=expected,
        test=len(test),
        test_alarms=test_alarms,
    )


def table(counts: list[Count]) -> str:
    """Returns the counts, aligned."""
    header = ("class", "calibration", "aside", "alarms", "99.9 %", "test", "alarms", "rate in %")
    lines: list[tuple[str, ...]] = [header]
    for count in counts:
        rate = 100 * count.test_alarms / count.test if count.test else float("nan")
        interval = f"{count.expected.low} to {count.expected.high}"
        lines.append(
            (
                *map(str, count[:4]),
                interval,
                *map(str, count[5:]),
                f"{rate:.2f}",
            )
        )
    return tables.aligned(lines)
