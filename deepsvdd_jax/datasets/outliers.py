"""Outliers that have nothing to do with a task, as known anomalies (outlier exposure)."""

from __future__ import annotations

import logging

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset

_logger = logging.getLogger(__name__)

# The label of outliers, which belong to no class of the data set.
OUTLIER_LABEL = -1


def add_outliers(dataset: Dataset, outliers: np.ndarray, source: str) -> tuple[Dataset, np.ndarray]:
    """Appends outliers, which belong to no class of a data set, to its training images.

    Args:
      dataset: the data set.
      outliers: `[n, ...]`, of the shape and type of its images; uint8 join floats as n / 255.
      source: where they come from, for messages.

    Returns:
      The data set, and the indices of the outliers in its `x_train`, int32.

    Raises:
      DataError: outliers of another shape or type, or none.
    """
    wanted, found = dataset.x_train.shape[1:], outliers.shape[1:]
    if wanted != found:
        raise DataError(f"outliers {source}: shape {found}; {dataset.name} has {wanted}")
    if not len(outliers):
        raise DataError(f"outliers {source}: there are none; give at least one image or row")
    if outliers.dtype == np.uint8 and dataset.x_train.dtype != np.uint8:
        outliers = (outliers / 255.0).astype(dataset.x_train.dtype)
    elif outliers.dtype != np.uint8 and dataset.x_train.dtype == np.uint8:
        raise DataError(
            f"outliers {source}: {outliers.dtype} beside images of uint8; give both as uint8"
        )
    outliers = outliers.astype(dataset.x_train.dtype)
    _tell_shared(dataset, outliers, source)
    first = len(dataset.x_train)
    labels = np.full(len(outliers), OUTLIER_LABEL, dataset.y_train.dtype)
    names = dataset.train_names and (*dataset.train_names, *("outlier",) * len(outliers))
    joined = dataset._replace(
        x_train=np.concatenate([dataset.x_train, outliers]),
        y_train=np.concatenate([dataset.y_train, labels]),
        train_names=names,
    )
    return joined, np.arange(first, first + len(outliers), dtype=np.int32)


def _tell_shared(dataset: Dataset, outliers: np.ndarray, source: str) -> None:
    """Logs one line where outliers are images or rows of the data set too."""
    parts = (("training", dataset.x_train), ("test", dataset.x_test))
    for part, samples in parts:
        known = {hash(sample.tobytes()) for sample in samples}
        shared = sum(hash(outlier.tobytes()) in known for outlier in outliers)
        if shared:
            _logger.warning(
                "outliers %s: %d of %d are in the %s part of the data too: what is normal may be "
                "learned as an anomaly, and figures may be too good",
                *(source, shared, len(outliers), part),
            )


def chosen_outliers(outliers: np.ndarray, count: int | None, source: str) -> np.ndarray:
    """Returns so many of the outliers, the same ones for every run; all where `count` is None.

    Raises:
      DataError: there are not so many.
    """
    if count is None:
        return outliers
    if count > len(outliers):
        raise DataError(f"outliers {source}: {count} are asked for, there are {len(outliers)}")
    order = np.random.default_rng([0, 3]).permutation(len(outliers))
    return outliers[np.sort(order[:count])]
