"""Gaussian kernel density with a bandwidth by cross-validated likelihood."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold

from deepsvdd_jax.detectors.features import (
    BaselineResult,
    FloatArray,
    IntArray,
    all,
    is_positive,
    row_blocks,
    squared_distances,
)
from deepsvdd_jax.networks.process import check_process


@dataclass(frozen=True)
class KDEConfig:
    """Gaussian kernel density; the bandwidth has the best cross-validated likelihood.

    Attributes:
      bandwidths: candidates, the kernel's standard deviation; 20 from 2^−4.5 to 2^5 by default.
      folds: of the cross-validation on the training set.

    Raises:
      ValueError: no bandwidth, one that is not positive, or fewer than two folds.
    """

    bandwidths: tuple[float, ...] = tuple(2.0 ** (exponent / 2) for exponent in range(-9, 11))
    folds: int = 5

    def __post_init__(self) -> None:
        if not self.bandwidths:
            raise ValueError("bandwidths must hold at least one candidate")
        for bandwidth in self.bandwidths:
            if not is_positive(bandwidth):
                raise ValueError(f"bandwidths must be positive, got {bandwidth!r}")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")


def score_kde(config: KDEConfig, train: FloatArray, test: FloatArray, seed: int) -> BaselineResult:
    """Kernel density with the bandwidth of the best cross-validated likelihood.

    Not through scikit-learn: its tree takes about an hour for ten MNIST digits, and with small
    bandwidths it loses all digits of far points (bounds subtracted in logarithms).

    A training point is scored by the density of the others. Its own kernel would outweigh them
    in many dimensions: all training points would score alike, below every test point, and no
    threshold could be drawn from them.
    """
    bandwidth = _best_bandwidth(config, train, seed)
    own = np.arange(len(train))
    train_scores = -_log_mean_kernels(train, own, train, own, (bandwidth,))[0]
    test_scores = -_log_mean_kernels(test, np.full(len(test), -1), train, own, (bandwidth,))[0]
    return BaselineResult(
        np.maximum(train_scores, 0.0),
        np.maximum(test_scores, 0.0),
        {"bandwidth": bandwidth},
        "cross-validation",
        all(test),
    )


def _best_bandwidth(config: KDEConfig, train: FloatArray, seed: int) -> float:
    return config.bandwidths[int(np.argmax(cross_validated_likelihoods(config, train, seed)))]


def cross_validated_likelihoods(config: KDEConfig, train: FloatArray, seed: int) -> FloatArray:
    """Mean log density `[bandwidths]` of each point under the points of the other folds."""
    if len(train) < config.folds:
        raise ValueError(f"{config.folds} folds need as many training points, got {len(train)}")
    folds = _fold_of_each(len(train), config.folds, seed)
    log_kernels = _log_mean_kernels(train, folds, train, folds, config.bandwidths).mean(axis=1)
    variances = np.square(np.asarray(config.bandwidths))
    return np.asarray(log_kernels - 0.5 * train.shape[1] * np.log(2 * np.pi * variances))


def _fold_of_each(count: int, folds: int, seed: int) -> IntArray:
    fold_of = np.empty(count, dtype=np.int64)
    splits = KFold(folds, shuffle=True, random_state=seed).split(fold_of)
    for fold, (_, held_out) in enumerate(splits):
        fold_of[held_out] = fold
    return fold_of


def _log_mean_kernels(
    points: FloatArray,
    point_groups: IntArray,
    train: FloatArray,
    train_groups: IntArray,
    bandwidths: tuple[float, ...],
) -> FloatArray:
    """Log of the mean Gaussian kernel (peak 1) over the training points of other groups.

    Groups are folds for cross-validation and single points for leaving one out.

    Args:
      points: `[n, features]`.
      point_groups: `[n]`.
      train: `[n_train, features]`.
      train_groups: `[n_train]`; some training point must be of another group than each point.
      bandwidths: standard deviations of the kernel.

    Returns:
      float64 `[bandwidths, n]`.
    """
    check_process()
    log_sums = _log_sums_on_device()
    centre = train.mean(axis=0)
    centred = train - centre
    precisions = 0.5 / np.square(np.asarray(bandwidths))
    columns = []
    for rows in row_blocks(len(points)):
        distances = squared_distances(points[rows] - centre, centred)
        others = point_groups[rows, None] != train_groups[None, :]
        distances[~others] = np.inf
        nearest = distances.min(axis=1)
        # Once the nearest distance is subtracted in float64, the terms that count in the sum are
        # small and exact in float32.
        distances -= nearest[:, None]
        sums = np.asarray(log_sums(distances.astype(np.float32), precisions.astype(np.float32)))
        log_counts = np.log(others.sum(axis=1))
        columns.append(sums - precisions[:, None] * nearest[None, :] - log_counts[None, :])
    return np.concatenate(columns, axis=1)


@functools.cache
def _log_sums_on_device() -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any]:
    """Compiled log Σ_j exp(−precision · distances[i, j]), `[precisions, rows]`.

    The smallest distance of a row must be 0, so that no sum underflows.
    """
    import jax
    import jax.numpy as jnp

    def log_sums(distances: jax.Array, precisions: jax.Array) -> jax.Array:
        def of_one(precision: jax.Array) -> jax.Array:
            return jnp.log(jnp.sum(jnp.exp(-precision * distances), axis=1))

        return jnp.asarray(jax.lax.map(of_one, precisions))

    compiled: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any] = jax.jit(log_sums)
    return compiled
