"""Known anomalies of a semi-supervised split (Ruff et al., ICLR 2020, Deep SAD)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset


def labelled_count(unlabelled: int, labelled_ratio: float) -> int:
    """Returns how many labelled anomalies join the unlabelled images so that they make up a share
    of all training images: round(r / (1 - r) * unlabelled).

    Args:
      unlabelled: normal images and the anomalies that pollute them.
      labelled_ratio: share r of all training images, 0 <= r < 1.

    Raises:
      DataError: a ratio out of range.
    """
    if not 0 <= labelled_ratio < 1:
        raise DataError(f"labelled_ratio is {labelled_ratio}, expected at least 0 and below 1")
    return round(labelled_ratio / (1 - labelled_ratio) * unlabelled)


def draw_known_anomalies(
    dataset: Dataset,
    normal_classes: Sequence[int],
    known_classes: Sequence[int] | None,
    taken: np.ndarray,
    labelled_ratio: float,
    seed: int,
) -> np.ndarray:
    """Draws the labelled anomalies of a training set.

    Deterministic, and independent of the draws of the unlabelled images.

    Args:
      dataset: the data set.
      normal_classes: classes that are normal.
      known_classes: anomalous classes that labelled images come from; None takes all classes that
        are not normal.
      taken: indices of the unlabelled training images, none of which is drawn.
      labelled_ratio: share of all training images, see `labelled_count`.
      seed: of the choice, not negative.

    Returns:
      int32, ascending, into `x_train`.

    Raises:
      DataError: a ratio out of range, a class that does not exist or is normal, too few images.
    """
    count = labelled_count(len(taken), labelled_ratio)
    classes = _known(dataset, normal_classes, known_classes)
    candidates = np.setdiff1d(np.flatnonzero(np.isin(dataset.y_train, classes)), taken)
    if count > len(candidates):
        names = ", ".join(dataset.class_names[label] for label in classes[:10])
        raise DataError(
            f"{dataset.name}: labelled_ratio={labelled_ratio} asks for {count} known anomalies"
            f" beside {len(taken)} unlabelled images, but there are {len(candidates)} of {names};"
            " lower it"
        )
    drawn = np.random.default_rng([seed, 2]).choice(candidates, count, replace=False)
    return np.sort(drawn).astype(np.int32)


def _known(
    dataset: Dataset, normal_classes: Sequence[int], known_classes: Sequence[int] | None
) -> list[int]:
    count = len(dataset.class_names)
    if known_classes is None:
        return [label for label in range(count) if label not in normal_classes]
    for label in known_classes:
        if not 0 <= label < count:
            raise DataError(
                f"{dataset.name}: known anomalous class {label} does not exist, allowed are 0 to"
                f" {count - 1}"
            )
        if label in normal_classes:
            raise DataError(
                f"{dataset.name}: class {label} is normal here, so that it cannot be a known"
                " anomalous class"
            )
    return list(dict.fromkeys(known_classes))
