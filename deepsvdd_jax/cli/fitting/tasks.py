"""The trainings of `fit`: the saved model and, with labelled defects, one without them."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets, recipes
from deepsvdd_jax.cli import settings
from deepsvdd_jax.cli.fitting import known
from deepsvdd_jax.cli.fitting.known import Share
from deepsvdd_jax.cli.fitting.samples import Images, Samples
from deepsvdd_jax.configs import DetectorConfig, as_kind
from deepsvdd_jax.datasets import DataError, Dataset


class Task(NamedTuple):
    """A detector to train.

    Attributes:
      title: objective and anomalies, in words.
      config: of the detector.
      anomalies: `[k, ...]`, known anomalies that it is trained on beside the normal samples.
      regions: bool `[k, height, width]`, their anomalous pixels where these are known; None where
        masks are not read.
    """

    title: str
    config: DetectorConfig
    anomalies: Images
    regions: npt.NDArray[np.bool_] | None = None


class Plan(NamedTuple):
    """The trainings of a fit and the samples that they are tested on.

    Attributes:
      samples: normal ones, and those to test on, none of which is trained on.
      main: the training of the saved model.
      reference: the same without labelled defects; None where there are none.
      shares: use of the labelled defects, by kind; empty where nothing learns from them.
      outliers: how many of the known anomalies are outliers, not labelled defects.
    """

    samples: Samples
    main: Task
    reference: Task | None
    shares: dict[str, Share]
    outliers: int = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All trainings, the reference last."""
        return (self.main,) if self.reference is None else (self.main, self.reference)


def plan(values: flags.FlagValues, config: DetectorConfig, samples: Samples) -> Plan:
    """Decides on the trainings of a fit (touches files: reads labelled defects and outliers).

    Raises:
      ConfigError: a flag for labels, and an objective that does not learn from them.
      DataError: labelled defects that cannot be divided, or nothing anomalous to learn from.
    """
    objective = config.run.training.objective
    if not objective.uses_labels:
        known.refuse_flags(values, objective.kind)
        return Plan(samples, Task(objective.kind, config, samples.images[:0]), None, {})
    outliers = read_outliers(values, samples)
    divided, defects = known.divide(samples, known.wanted(values), config.seeds[0])
    synthetic = config.run.training.synthetic_anomalies
    if not len(defects.kinds) and not len(outliers) and synthetic is None:
        raise DataError(
            f"objective {objective.kind}: there are no labelled defects to learn from; put them "
            "beside good/ as defects/<kind>/ (with a test part into train/<kind>/), into a column "
            "of labels, or give --outliers or --synthetic_anomalies"
        )
    others: tuple[str, ...] = (f"{len(outliers)} outliers",) if len(outliers) else ()
    others += () if synthetic is None else (f"synthetic {synthetic}",)
    labelled = (f"{len(defects.kinds)} labelled defects",) if defects.kinds else ()
    main = Task(
        f"{objective.kind} with {' and '.join((*labelled, *others))}",
        config,
        np.concatenate([defects.images, outliers]),
        _regions(defects.regions, len(outliers)),
    )
    if not defects.kinds:
        return Plan(divided, main, None, {}, len(outliers))
    reference = _without_labels(values, config, outliers, others)
    shares = known.shares(samples, divided, defects)
    return Plan(divided, main, reference if values.compare else None, shares, len(outliers))


def _without_labels(
    values: flags.FlagValues, config: DetectorConfig, outliers: Images, others: tuple[str, ...]
) -> Task:
    """Returns the same training without the labelled defects: one-class where the objective needs
    anomalies and nothing else gives it some."""
    run = config.run
    objective = run.training.objective
    if not objective.needs_anomalies or others:
        title = f"{objective.kind} with {' and '.join(others)}" if others else objective.kind
        if run.training.synthetic_anomalies is None:
            # Outliers have no masks.
            training = dataclasses.replace(run.training, objective=objective.without_masks)
            config = dataclasses.replace(config, run=dataclasses.replace(run, training=training))
        return Task(f"{title}, without labels", config, outliers)
    training = dataclasses.replace(run.training, objective=as_kind(objective, "one-class"))
    # A classifier may have biases, or end in a map, with which one-class Deep SVDD collapses or
    # cannot be trained.
    network = recipes.preset("auto", values.dataset, outliers.shape[1:]).network
    run = dataclasses.replace(run, training=training, network=network)
    return Task("one-class, without labels", dataclasses.replace(config, run=run), outliers)


def _regions(
    of_defects: npt.NDArray[np.bool_] | None, outliers: int
) -> npt.NDArray[np.bool_] | None:
    """Returns the anomalous pixels of known anomalies, and prints of how many they are known; those
    of outliers, which come last, are not."""
    if of_defects is None or not len(of_defects):
        return None
    marked = int(of_defects.any(axis=(1, 2)).sum())
    print(
        f"masks: of {marked} of the {len(of_defects)} labelled defects that are trained on",
        file=sys.stderr,
    )
    return np.pad(of_defects, ((0, outliers), (0, 0), (0, 0)))


def with_configs(planned: Plan, change: Callable[[DetectorConfig], DetectorConfig]) -> Plan:
    """Returns a plan whose tasks have changed configurations."""
    main, reference = (
        task and task._replace(config=change(task.config))
        for task in (planned.main, planned.reference)
    )
    assert main is not None
    return planned._replace(main=main, reference=reference)


def read_outliers(values: flags.FlagValues, samples: Samples) -> Images:
    """Returns the outliers of --outliers in the shape and type of the samples (touches files); none
    where it is not given.

    Raises:
      ConfigError, DataError: they are not there, or do not suit the samples.
    """
    images, tests = samples.images, samples.test_images
    dataset = Dataset(
        name=values.dataset,
        x_train=images,
        y_train=np.zeros(len(images), np.int64),
        x_test=tests,
        y_test=np.zeros(len(tests), np.int64),
        class_names=(samples.normal,),
        pixel_range=samples.pixel_range,
    )
    outliers = settings.load_outliers(values, dataset)
    if outliers is None:
        return images[:0]
    joined, places = datasets.add_outliers(dataset, outliers, values.outliers)
    return joined.x_train[places]


def training_set(
    task: Task, samples: Samples, groups: npt.NDArray[np.str_] | None
) -> dict[str, Any]:
    """Returns the arguments of `fit_detector` with the samples of a task."""
    normals, anomalies = len(samples.images), len(task.anomalies)
    if not anomalies:
        return {"images": samples.images, "groups": groups}
    return {
        "images": np.concatenate([samples.images, task.anomalies]),
        # Normals count as unlabelled, so that eta weighs the defects.
        "labels": np.repeat([0, -1], [normals, anomalies]),
        "regions": task.regions,
        "groups": None if groups is None else np.concatenate([groups, np.full(anomalies, "")]),
    }
