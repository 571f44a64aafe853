"""One-class splits: which images are trained on, and which test images count as anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset
from deepsvdd_jax.datasets.labelled import draw_known_anomalies

PROTOCOLS = ("one-vs-rest", "rest-vs-one")


class OneClassSplit(NamedTuple):
    """Indices into a data set for one one-class problem.

    Attributes:
      train_indices: int32, ascending, into `x_train`: the normal images that are trained on, and
        the anomalies that pollute them.
      validation_indices: int32, ascending, into `x_train`: normal images held out of training.
      test_indices: int32, ascending, into `x_test`.
      test_labels: uint8, one a test index; 1 = anomalous.
      known_anomalies: int32, ascending, into `x_train`: labelled anomalies, which objectives that
        learn from labels train on beside `train_indices`.
    """

    train_indices: np.ndarray
    validation_indices: np.ndarray
    test_indices: np.ndarray
    test_labels: np.ndarray
    known_anomalies: np.ndarray = np.zeros(0, np.int32)


def one_class_split(
    dataset: Dataset,
    normal_class: int,
    protocol: str = "one-vs-rest",
    anomalous_classes: tuple[int, ...] | None = None,
    outlier_fraction: float = 0.0,
    validation_fraction: float = 0.0,
    seed: int = 0,
    require_test: bool = True,
    known_anomalous_classes: tuple[int, ...] | None = None,
    labelled_ratio: float | None = None,
) -> OneClassSplit:
    """Selects the training, validation and test images of one one-class problem.

    Deterministic: equal arguments give equal splits. The validation images do not depend on the
    outlier fraction, and neither depends on the test set.

    Args:
      dataset: the data set.
      normal_class: the class k that the protocol is about.
      protocol: 'one-vs-rest': k is normal, all other classes are anomalous. 'rest-vs-one': all
        classes but k are normal, k is anomalous.
      anomalous_classes: restricts which classes appear as anomalies, in the test set and in the
        polluted training set; None takes all. One class against one other is 'one-vs-rest' with
        a single class here.
      outlier_fraction: fraction f of anomalies in the polluted training set, 0 <= f < 1:
        round(f / (1 - f) * n) anomalies join n normal images.
      validation_fraction: fraction of the normal training images to hold out, 0 <= v < 1.
      seed: seed of the two random choices, not negative.
      require_test: whether the test set must hold normal and anomalous images. False serves
        training on data that has no test part.
      known_anomalous_classes: classes that labelled anomalies come from; None takes all that are
        anomalous.
      labelled_ratio: share r of labelled anomalies in the training set, 0 <= r < 1: round(r / (1 -
        r) * n) of them join n unlabelled images, polluting ones included.

    Raises:
      DataError: a class that does not exist or is empty, a normal class among the anomalous ones,
        a fraction out of range, more outliers asked for than there are.
    """
    _check_fraction("outlier_fraction", outlier_fraction)
    _check_fraction("validation_fraction", validation_fraction)
    if seed < 0:
        raise DataError(f"seed is {seed}, expected 0 or more")
    normal, anomalous = _roles(dataset, normal_class, protocol, anomalous_classes)

    candidates = np.flatnonzero(np.isin(dataset.y_train, normal))
    if candidates.size == 0:
        raise DataError(
            f"{dataset.name}: no training images of {_describe(dataset, normal)};"
            f" classes with training images: {_describe(dataset, np.unique(dataset.y_train))}"
        )
    train, validation = _hold_out(candidates, validation_fraction, seed)
    if train.size == 0:
        raise DataError(
            f"{dataset.name}: validation_fraction={validation_fraction} leaves nothing to train on"
            f" of {candidates.size} images of {_describe(dataset, normal)}; lower it"
        )
    outliers = _draw_outliers(dataset, anomalous, train.size, outlier_fraction, seed)
    unlabelled = np.sort(np.concatenate([train, outliers])).astype(np.int32)
    known = draw_known_anomalies(
        dataset,
        normal,
        anomalous if known_anomalous_classes is None else known_anomalous_classes,
        taken=unlabelled,
        labelled_ratio=labelled_ratio or 0.0,
        seed=seed,
    )

    test_normal = np.isin(dataset.y_test, normal)
    test_anomalous = np.isin(dataset.y_test, anomalous)
    if require_test:
        _check_test(dataset, test_normal, normal, "normal")
        _check_test(dataset, test_anomalous, anomalous, "anomalous")
    test = np.flatnonzero(test_normal | test_anomalous)
    return OneClassSplit(
        train_indices=unlabelled,
        validation_indices=validation.astype(np.int32),
        test_indices=test.astype(np.int32),
        test_labels=test_anomalous[test].astype(np.uint8),
        known_anomalies=known,
    )


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise DataError(f"{name} is {value}, expected at least 0 and below 1")


def _describe(dataset: Dataset, classes: Sequence[int] | np.ndarray) -> str:
    """Names classes by number and name, the first ten of them."""
    shown = [
        str(label)
        if dataset.class_names[label] == str(label)
        else f"{label} ({dataset.class_names[label]})"
        for label in classes[:10]
    ]
    noun = "class" if len(classes) == 1 else "classes"
    return f"{noun} {', '.join(shown)}{', ...' if len(classes) > 10 else ''}"


def _check_class(dataset: Dataset, label: int, role: str) -> None:
    count = len(dataset.class_names)
    if not 0 <= label < count:
        raise DataError(
            f"{dataset.name}: {role} class {label} does not exist, allowed are 0 to {count - 1}"
        )


def _roles(
    dataset: Dataset, normal_class: int, protocol: str, anomalous_classes: tuple[int, ...] | None
) -> tuple[list[int], list[int]]:
    """Returns the normal and the anomalous classes of a protocol."""
    if protocol not in PROTOCOLS:
        raise DataError(f"protocol {protocol!r} does not exist, allowed are {', '.join(PROTOCOLS)}")
    _check_class(dataset, normal_class, "normal")
    one = [normal_class]
    rest = [label for label in range(len(dataset.class_names)) if label != normal_class]
    normal, anomalous = (one, rest) if protocol == "one-vs-rest" else (rest, one)
    if anomalous_classes is None:
        return normal, anomalous
    for label in anomalous_classes:
        _check_class(dataset, label, "anomalous")
        if label in normal:
            raise DataError(
                f"{dataset.name}: class {label} is normal under {protocol} with class"
                f" {normal_class}, so it cannot be among the anomalous classes"
            )
    return normal, [label for label in anomalous if label in anomalous_classes]


def _hold_out(indices: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits indices into those kept and a random fraction held out, both ascending."""
    order = np.random.default_rng([seed, 0]).permutation(indices)
    count = round(fraction * len(indices))
    return np.sort(order[count:]), np.sort(order[:count])


def _draw_outliers(
    dataset: Dataset, anomalous: list[int], normal_count: int, fraction: float, seed: int
) -> np.ndarray:
    """Draws the training anomalies that make up `fraction` of the polluted training set."""
    candidates = np.flatnonzero(np.isin(dataset.y_train, anomalous))
    count = round(fraction / (1 - fraction) * normal_count)
    if count > candidates.size:
        raise DataError(
            f"{dataset.name}: outlier_fraction={fraction} asks for {count} anomalies beside"
            f" {normal_count} normal images, but there are {candidates.size}; lower it"
        )
    return np.random.default_rng([seed, 1]).choice(candidates, count, replace=False)


def _check_test(dataset: Dataset, chosen: np.ndarray, classes: list[int], role: str) -> None:
    if not chosen.any():
        raise DataError(
            f"{dataset.name}: no {role} test images ({_describe(dataset, classes)});"
            " the test set must hold normal and anomalous images"
        )
