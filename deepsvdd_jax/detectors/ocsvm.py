"""The one-class SVM of Schölkopf et al. (2001), by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from deepsvdd_jax.detectors.features import (
    BaselineResult,
    FloatArray,
    IntArray,
    all,
    checked_labels,
    is_positive,
    row_blocks,
    squared_distances,
)

# Bytes of the kernel cache of scikit-learn's support vector machines, by default.
LIBSVM_CACHE = 200e6


@dataclass(frozen=True)
class OneClassSVMConfig:
    """One-class SVM with the RBF kernel exp(−γ‖x − y‖²) (Schölkopf et al. 2001).

    Attributes:
      selection: `none` takes `nu` and `gamma` as they are. `paper` tries every pair of `nus` and
        `gammas` and keeps the one with the best AUROC on a labelled part of the test set; the
        score is then to be evaluated on the rest of it. The paper reports the better of two ν
        after picking γ for each; here the labelled part picks the pair.
      nu: upper bound of the fraction of training points outside, in (0, 1].
      gamma: kernel coefficient, or `scale` for 1 / (features · variance of all training values).
      nus: candidates of `paper`.
      gammas: candidates of `paper`.
      labelled_fraction: part of the test set, of each label, that `paper` selects on.

    Raises:
      ValueError: a setting is out of range.
    """

    selection: Literal["none", "paper"] = "none"
    nu: float = 0.1
    gamma: float | Literal["scale"] = "scale"
    nus: tuple[float, ...] = (0.01, 0.1)
    gammas: tuple[float, ...] = tuple(2.0**exponent for exponent in range(-10, 0))
    labelled_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.selection not in ("none", "paper"):
            raise ValueError(f"selection must be 'none' or 'paper', got {self.selection!r}")
        if not self.nus or not self.gammas:
            raise ValueError("nus and gammas must each hold at least one candidate")
        for nu in (self.nu, *self.nus):
            if not 0 < nu <= 1:
                raise ValueError(f"nu must lie in (0, 1], got {nu}")
        if self.gamma != "scale" and not is_positive(self.gamma):
            raise ValueError(f"gamma must be positive or 'scale', got {self.gamma!r}")
        for gamma in self.gammas:
            if not is_positive(gamma):
                raise ValueError(f"gammas must be positive, got {gamma!r}")
        if not 0 < self.labelled_fraction < 1:
            raise ValueError(f"labelled_fraction must lie in (0, 1), got {self.labelled_fraction}")


class _SupportVectors(NamedTuple):
    """A fitted one-class SVM: indices `[support]` of training points, and their weights, sum 1."""

    indices: IntArray
    weights: FloatArray


def score_plain_svm(
    config: OneClassSVMConfig, train: FloatArray, test: FloatArray
) -> BaselineResult:
    gamma = _scale_gamma(train) if config.gamma == "scale" else float(config.gamma)
    machine = OneClassSVM(kernel="rbf", nu=config.nu, gamma=gamma).fit(train)
    return _svm_result(
        config,
        _support(machine),
        config.nu,
        gamma=gamma,
        train=train,
        test=test,
        test_indices=all(test),
    )


def score_paper_svm(
    config: OneClassSVMConfig,
    train: FloatArray,
    test: FloatArray,
    seed: int,
    test_labels: npt.ArrayLike | None,
) -> BaselineResult:
    labels = checked_labels(test_labels, len(test))
    labelled, rest = _labelled_split(labels, config.labelled_fraction, seed)
    nu, gamma, support = _best_support(config, train, test[labelled], labels[labelled])
    return _svm_result(config, support, nu, gamma=gamma, train=train, test=test, test_indices=rest)


def _best_support(
    config: OneClassSVMConfig, train: FloatArray, labelled: FloatArray, labels: IntArray
) -> tuple[float, float, _SupportVectors]:
    """The (ν, γ) of the grid with the best AUROC on labelled points, the first one if several."""
    centre = train.mean(axis=0)
    train_distances = squared_distances(train - centre, train - centre)
    labelled_distances = squared_distances(labelled - centre, train - centre)
    kernel = np.empty_like(train_distances)
    best_auroc = -np.inf
    for gamma in config.gammas:
        # One buffer for all kernels: with thousands of training points it is the largest array.
        np.exp(np.multiply(train_distances, -gamma, out=kernel), out=kernel)
        for nu in config.nus:
            support = _support(OneClassSVM(kernel="precomputed", nu=nu).fit(kernel))
            scores = _kernel_scores(labelled_distances[:, support.indices], support, gamma)
            auroc = float(roc_auc_score(labels, scores))
            if auroc > best_auroc:
                best_auroc, best = auroc, (nu, gamma, support)
    return best


def _svm_result(
    config: OneClassSVMConfig,
    support: _SupportVectors,
    nu: float,
    gamma: float,
    train: FloatArray,
    test: FloatArray,
    test_indices: IntArray,
) -> BaselineResult:
    centre = train.mean(axis=0)
    vectors = train[support.indices] - centre

    def scores(points: FloatArray) -> FloatArray:
        blocks = row_blocks(len(points))
        distances = (squared_distances(points[rows] - centre, vectors) for rows in blocks)
        return np.concatenate([_kernel_scores(block, support, gamma) for block in distances])

    parameters = {"nu": nu, "gamma": gamma}
    return BaselineResult(scores(train), scores(test), parameters, config.selection, test_indices)


def _support(machine: OneClassSVM) -> _SupportVectors:
    weights = machine.dual_coef_[0]
    return _SupportVectors(machine.support_.astype(np.int64), weights / weights.sum())


def _kernel_scores(distances: FloatArray, support: _SupportVectors, gamma: float) -> FloatArray:
    """−log of the weighted mean kernel, `[rows]`, of squared distances `[rows, support]`.

    In logarithms, since all kernels of a far point may be too small for a float.
    """
    log_means = logsumexp(-gamma * distances, b=support.weights[None, :], axis=1)
    return np.asarray(np.maximum(-log_means, 0.0))


def _scale_gamma(train: FloatArray) -> float:
    """scikit-learn's `gamma='scale'`, with its value 1 for constant features."""
    variance = float(train.var())
    return 1.0 / (train.shape[1] * variance) if variance > 0 else 1.0


def _labelled_split(labels: IntArray, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Indices of the labelled part, the same fraction of both labels, and of the rest."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in (0, 1):
        indices = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(indices))), len(indices) - 1)
        chosen[generator.permutation(indices)[:count]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)
