"""Features, distances and results that the shallow baselines share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Rows of a distance matrix that are in memory at a time.
BLOCK_ROWS = 512


class BaselineResult(NamedTuple):
    """Scores of one fitted baseline, higher = more anomalous and never negative.

    Attributes:
      train_scores: float64 `[n_train]`; kernel density and nearest neighbors leave the point
        itself out.
      test_scores: float64 `[n_test]`, every test point in its own order.
      parameters: the hyper-parameters that were used.
      selection: how they were chosen: `none`, `paper` or `cross-validation`.
      test_indices: int64, ascending; the test points to be evaluated. All of them, but for
        `paper`, which leaves out the points whose labels chose the parameters.
    """

    train_scores: FloatArray
    test_scores: FloatArray
    parameters: Mapping[str, float]
    selection: str
    test_indices: IntArray


def to_features(images: npt.ArrayLike) -> npt.NDArray[Any]:
    """Images `[n, ...]` as features `[n, features]`, in row-major order and of the same dtype.

    Raises:
      ValueError: fewer than two dimensions.
    """
    array = np.asarray(images)
    if array.ndim < 2:
        raise ValueError(f"images must be [n, ...], got the shape {array.shape}")
    return array.reshape(len(array), int(np.prod(array.shape[1:])))


def pca_features(
    x_train: npt.ArrayLike, x_test: npt.ArrayLike, variance: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Principal components that keep a fraction of the training set's variance.

    Args:
      x_train: `[n_train, features]`; the components are fitted on these alone.
      x_test: `[n_test, features]`.
      variance: fraction to be kept, in (0, 1).

    Returns:
      float64 `[n_train, components]` and `[n_test, components]`, centred, not whitened.

    Raises:
      ValueError: features that are not finite, or `variance` outside (0, 1).
    """
    train, test = features(x_train, "x_train"), features(x_test, "x_test")
    if not 0 < variance < 1:
        raise ValueError(f"variance must lie in (0, 1), got {variance}")
    # The singular value decomposition does not converge for contrast-normalised MNIST digits; the
    # eigenvectors of the covariance do, and come sooner unless there are more features than points.
    solver = "covariance_eigh" if train.shape[1] <= len(train) else "full"
    pca = PCA(n_components=variance, svd_solver=solver).fit(train)
    return pca.transform(train), pca.transform(test)


def squared_distances(rows: FloatArray, columns: FloatArray) -> FloatArray:
    """‖rows_i − columns_j‖² `[rows, columns]` by one product; centred input keeps its digits."""
    distances = rows @ columns.T
    distances *= -2.0
    distances += np.square(rows).sum(axis=1)[:, None]
    distances += np.square(columns).sum(axis=1)[None, :]
    return np.maximum(distances, 0.0, out=distances)


def row_blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS)]


def all(test: FloatArray) -> IntArray:
    return np.arange(len(test), dtype=np.int64)


def features(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be [n, features], got the shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")
    return array


def checked_labels(values: npt.ArrayLike | None, count: int) -> IntArray:
    if values is None:
        raise ValueError("selection='paper' needs test_labels")
    labels = np.asarray(values)
    if labels.shape != (count,):
        raise ValueError(f"test_labels must be [{count}], got the shape {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("test_labels must be 0 (normal) or 1 (anomalous)")
    if min(np.count_nonzero(labels == 0), np.count_nonzero(labels == 1)) < 2:
        raise ValueError("selection='paper' needs at least two test points of each label")
    return labels.astype(np.int64)


def is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value)) and value > 0
