"""Distances to the nearest training points: the simplest baseline, which trains nothing.

The score of a point is the mean Euclidean distance to its k nearest training points, or the
distance to the k-th (Ramaswamy et al. 2000; Angiulli and Pizzuti 2002). Higher is more anomalous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Most elements of the distance matrix, and of the differences, that are in memory at a time.
BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class KNNConfig:
    """Nearest neighbors.

    Attributes:
      n_neighbors: k.
      distance: `mean` of the distances to the k nearest, or `largest`, that to the k-th.

    Raises:
      ValueError: a setting is out of range.
    """

    n_neighbors: int = 5
    distance: Literal["mean", "largest"] = "mean"

    def __post_init__(self) -> None:
        if self.n_neighbors < 1:
            raise ValueError(f"n_neighbors must be at least 1, got {self.n_neighbors}")
        if self.distance not in ("mean", "largest"):
            raise ValueError(f"distance must be 'mean' or 'largest', got {self.distance!r}")


def knn_scores(
    config: KNNConfig, points: FloatArray, train: FloatArray, *, leave_one_out: bool = False
) -> FloatArray:
    """Returns the scores of points, float64 `[n]`, a distance and not its square.

    Args:
      config: k, and which distance.
      points: `[n, features]`, finite.
      train: `[n_train, features]`, finite.
      leave_one_out: `points` are `train`, and none is its own neighbor; equal points are each
        other's.

    Raises:
      ValueError: fewer training points than neighbors.
    """
    distances = nearest_distances(points, train, config.n_neighbors, leave_one_out=leave_one_out)
    return distances.mean(axis=1) if config.distance == "mean" else distances[:, -1]


def nearest_distances(
    points: FloatArray, train: FloatArray, k: int, *, leave_one_out: bool = False
) -> FloatArray:
    """Returns the Euclidean distances to the k nearest training points, ascending, `[n, k]`.

    Products in float64 tell which training points may be among the nearest, with a bound of their
    rounding error; distances of these come from differences, so that neither near-duplicates nor
    points far from the origin lose digits. Which of equally distant points is taken does not
    matter: their distances are the same.

    Args:
      points: `[n, features]`, finite.
      train: `[n_train, features]`, finite.
      k: how many.
      leave_one_out: `points` are `train`, and none is its own neighbor.

    Raises:
      ValueError: fewer training points than neighbors.
    """
    available = len(train) - leave_one_out
    if available < k:
        raise ValueError(
            f"{k} nearest neighbors need {k + leave_one_out} training points at least, "
            f"got {len(train)}"
        )
    center = train.mean(axis=0)
    centered, squares = train - center, np.square(train - center).sum(axis=1)
    rows = max(1, BLOCK_ELEMENTS // len(train))
    found = [np.empty((0, k))]
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        near = _candidates(block - center, centered, squares, k, start if leave_one_out else None)
        found.append(_nearest_of(block, train, near, k))
    return np.concatenate(found)


def _candidates(
    points: FloatArray, train: FloatArray, train_squares: FloatArray, k: int, own: int | None
) -> npt.NDArray[np.bool_]:
    """Returns which training points may be among the k nearest, `[n, n_train]`, at least k a row.

    Args:
      points: `[n, features]`, centered.
      train: `[n_train, features]`, centered alike.
      train_squares: their squared norms.
      k: how many are wanted.
      own: place in `train` of the first point, which is not its own neighbor; None has no own.
    """
    squares = np.square(points).sum(axis=1)
    distances = points @ train.T
    distances *= -2.0
    distances += train_squares[None, :]
    distances += squares[:, None]
    # Rounding error of a sum of `features` products and of the two additions, with some room.
    relative = 4.0 * (train.shape[1] + 4) * np.finfo(np.float64).eps
    uncertain = relative * (squares[:, None] + train_squares[None, :])
    if own is not None:
        rows = np.arange(len(points))
        distances[rows, own + rows] = np.inf
    # At least k points are no farther than this.
    reach = np.partition(distances + uncertain, k - 1, axis=1)[:, k - 1]
    return distances - uncertain <= reach[:, None]


def _nearest_of(
    points: FloatArray, train: FloatArray, near: npt.NDArray[np.bool_], k: int
) -> FloatArray:
    """Returns the k least distances of each point to those training points that are near it."""
    rows, columns = np.nonzero(near)
    squared = np.empty(len(rows))
    step = max(1, BLOCK_ELEMENTS // train.shape[1])
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        squared[some] = np.square(points[rows[some]] - train[columns[some]]).sum(axis=1)
    # Ascending within each point; the first k of each are kept.
    order = np.lexsort((squared, rows))
    starts = np.searchsorted(rows, np.arange(len(points)))
    return np.sqrt(squared[order[starts[:, None] + np.arange(k)]])
