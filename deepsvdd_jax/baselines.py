"""The shallow baselines: one-class SVM, kernel density and isolation forest of the Deep SVDD paper,
and nearest neighbors.

One signature for all of them: `fit_and_score(config, x_train, x_test, seed)`. The type of the
configuration says which method runs. `describe_cost` tells beforehand what a call will take.

Scores are higher for more anomalous points and never negative, so that the scores of several
seeds can be averaged in units of their mean over the training set. Each is a strictly
increasing function of the negated score that scikit-learn gives, so every ranking metric is the
same:

- one-class SVM: −log(Σ α_i k(x, x_i) / Σ α_i), where scikit-learn's `score_samples` is the sum
  in the numerator and k ≤ 1;
- kernel density: log of the kernel's peak minus the log density, −log(mean_i k(x, x_i)) with
  k(x, x) = 1;
- isolation forest: 2^(−mean path length / its expectation), in (0, 1];
- nearest neighbors: the mean distance to the k nearest training points.

Preprocessing is the caller's: these functions receive features `[n, features]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.svm import OneClassSVM

from deepsvdd_jax import knn
from deepsvdd_jax.knn import KNNConfig

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Rows of a distance matrix that are in memory at a time where the whole is not needed.
_BLOCK_ROWS = 512

# Bytes of the kernel cache of scikit-learn's support vector machines, by default.
_LIBSVM_CACHE = 200e6


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
        if self.gamma != "scale" and not _is_positive(self.gamma):
            raise ValueError(f"gamma must be positive or 'scale', got {self.gamma!r}")
        for gamma in self.gammas:
            if not _is_positive(gamma):
                raise ValueError(f"gammas must be positive, got {gamma!r}")
        if not 0 < self.labelled_fraction < 1:
            raise ValueError(f"labelled_fraction must lie in (0, 1), got {self.labelled_fraction}")


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
            if not _is_positive(bandwidth):
                raise ValueError(f"bandwidths must be positive, got {bandwidth!r}")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")


@dataclass(frozen=True)
class IsolationForestConfig:
    """Isolation forest (Liu et al. 2008), drawn from the seed.

    Attributes:
      n_estimators: trees.
      max_samples: training points of a tree; all of them if there are fewer.
      contamination: in (0, 0.5] or `auto`; moves scikit-learn's own threshold only, not a score.

    Raises:
      ValueError: a setting is out of range.
    """

    n_estimators: int = 100
    max_samples: int = 256
    contamination: float | Literal["auto"] = 0.1

    def __post_init__(self) -> None:
        if self.n_estimators < 1 or self.max_samples < 1:
            raise ValueError("n_estimators and max_samples must be at least 1")
        if self.contamination != "auto" and not (
            _is_positive(self.contamination) and self.contamination <= 0.5
        ):
            raise ValueError(
                f"contamination must lie in (0, 0.5] or be 'auto', got {self.contamination!r}"
            )


BaselineConfig = OneClassSVMConfig | KDEConfig | IsolationForestConfig | KNNConfig


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


def fit_and_score(
    config: BaselineConfig,
    x_train: npt.ArrayLike,
    x_test: npt.ArrayLike,
    seed: int,
    test_labels: npt.ArrayLike | None = None,
    n_jobs: int | None = None,
) -> BaselineResult:
    """Fits one baseline on normal features and scores the training and the test set.

    Args:
      config: which method, and its settings.
      x_train: `[n_train, features]`, normal points.
      x_test: `[n_test, features]`.
      seed: draws the labelled part (one-class SVM, `paper`), the folds (kernel density) or the
        trees; nearest neighbors, and a one-class SVM with `selection='none'`, do not depend on it.
      test_labels: `[n_test]`, 1 = anomalous; needed by `selection='paper'`, else not looked at.
      n_jobs: processes of the isolation forest, as in scikit-learn.

    Raises:
      ValueError: features that are not finite or do not fit together, fewer training points than
        folds or neighbors, or labels that are missing or hold fewer than two points of a kind for
        `paper`.
      TypeError: an unknown kind of configuration.
    """
    train, test = _features(x_train, "x_train"), _features(x_test, "x_test")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"x_train has {train.shape[1]} features but x_test has {test.shape[1]}")
    match config:
        case OneClassSVMConfig(selection="paper"):
            return _score_paper_svm(config, train, test, seed, test_labels)
        case OneClassSVMConfig():
            return _score_plain_svm(config, train, test)
        case KDEConfig():
            return _score_kde(config, train, test, seed)
        case IsolationForestConfig():
            return _score_forest(config, train, test, seed, n_jobs)
        case KNNConfig():
            return _score_neighbors(config, train, test)
    raise TypeError(f"no baseline has a configuration of the type {type(config).__name__}")


def describe_cost(config: BaselineConfig, n_train: int, n_test: int, n_features: int) -> str:
    """One line: what `fit_and_score` is about to do on so many points and features.

    The memory is what comes on top of the features.
    """
    pairs = n_train * n_train
    match config:
        case OneClassSVMConfig(selection="paper"):
            labelled = round(config.labelled_fraction * n_test)
            products = pairs + (labelled + n_train + n_test) * n_train
            fits = len(config.nus) * len(config.gammas)
            return (
                f"one-class SVM: {fits} fits ({len(config.nus)} nu x {len(config.gammas)} gamma) "
                f"on {n_train} points, at most {_gflop(products, n_features)} and about "
                f"{_megabytes(_LIBSVM_CACHE + 16 * pairs + 8 * labelled * n_train)}"
            )
        case OneClassSVMConfig():
            products = pairs + (n_train + n_test) * n_train
            return (
                f"one-class SVM: 1 fit on {n_train} points, about "
                f"{_gflop(products, n_features)} and at most "
                f"{_megabytes(_LIBSVM_CACHE + 16 * _BLOCK_ROWS * n_train)}"
            )
        case KDEConfig():
            products = 2 * pairs + n_test * n_train
            exponentials = pairs * (len(config.bandwidths) + 1) + n_test * n_train
            return (
                f"kernel density: {len(config.bandwidths)} bandwidths x {config.folds} folds on "
                f"{n_train} points, about {_gflop(products, n_features)}, "
                f"{exponentials / 1e9:.2g} billion exponentials and "
                f"{_megabytes(20 * _BLOCK_ROWS * n_train)}"
            )
        case IsolationForestConfig():
            return (
                f"isolation forest: {config.n_estimators} trees of "
                f"{min(config.max_samples, n_train)} points, "
                f"{config.n_estimators * (n_train + n_test) / 1e6:.2g} million paths to score"
            )
        case KNNConfig():
            products = pairs + n_test * n_train
            return (
                f"nearest neighbors: {config.n_neighbors} of {n_train} points, about "
                f"{_gflop(products, n_features)} and {_megabytes(16 * n_train * n_features)}"
            )
    raise TypeError(f"no baseline has a configuration of the type {type(config).__name__}")


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
    train, test = _features(x_train, "x_train"), _features(x_test, "x_test")
    if not 0 < variance < 1:
        raise ValueError(f"variance must lie in (0, 1), got {variance}")
    # The singular value decomposition does not converge for contrast-normalised MNIST digits; the
    # eigenvectors of the covariance do, and come sooner unless there are more features than points.
    solver = "covariance_eigh" if train.shape[1] <= len(train) else "full"
    pca = PCA(n_components=variance, svd_solver=solver).fit(train)
    return pca.transform(train), pca.transform(test)


class _SupportVectors(NamedTuple):
    """A fitted one-class SVM: indices `[support]` of training points, and their weights, sum 1."""

    indices: IntArray
    weights: FloatArray


def _score_plain_svm(
    config: OneClassSVMConfig, train: FloatArray, test: FloatArray
) -> BaselineResult:
    gamma = _scale_gamma(train) if config.gamma == "scale" else float(config.gamma)
    machine = OneClassSVM(kernel="rbf", nu=config.nu, gamma=gamma).fit(train)
    return _svm_result(config, _support(machine), config.nu, gamma, train, test, _all(test))


def _score_paper_svm(
    config: OneClassSVMConfig,
    train: FloatArray,
    test: FloatArray,
    seed: int,
    test_labels: npt.ArrayLike | None,
) -> BaselineResult:
    labels = _labels(test_labels, len(test))
    labelled, rest = _labelled_split(labels, config.labelled_fraction, seed)
    nu, gamma, support = _best_support(config, train, test[labelled], labels[labelled])
    return _svm_result(config, support, nu, gamma, train, test, rest)


def _best_support(
    config: OneClassSVMConfig, train: FloatArray, labelled: FloatArray, labels: IntArray
) -> tuple[float, float, _SupportVectors]:
    """The (ν, γ) of the grid with the best AUROC on labelled points, the first one if several."""
    centre = train.mean(axis=0)
    train_distances = _squared_distances(train - centre, train - centre)
    labelled_distances = _squared_distances(labelled - centre, train - centre)
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
        blocks = _row_blocks(len(points))
        distances = (_squared_distances(points[rows] - centre, vectors) for rows in blocks)
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


def _score_kde(config: KDEConfig, train: FloatArray, test: FloatArray, seed: int) -> BaselineResult:
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
        _all(test),
    )


def _best_bandwidth(config: KDEConfig, train: FloatArray, seed: int) -> float:
    return config.bandwidths[int(np.argmax(_cross_validated_likelihoods(config, train, seed)))]


def _cross_validated_likelihoods(config: KDEConfig, train: FloatArray, seed: int) -> FloatArray:
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
    log_sums = _log_sums_on_device()
    centre = train.mean(axis=0)
    centred = train - centre
    precisions = 0.5 / np.square(np.asarray(bandwidths))
    columns = []
    for rows in _row_blocks(len(points)):
        distances = _squared_distances(points[rows] - centre, centred)
        others = point_groups[rows, None] != train_groups[None, :]
        distances[~others] = np.inf
        nearest = distances.min(axis=1)
        # Less the nearest, in float64, what counts in the sum is small and exact in float32.
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


def _score_forest(
    config: IsolationForestConfig,
    train: FloatArray,
    test: FloatArray,
    seed: int,
    n_jobs: int | None,
) -> BaselineResult:
    samples = min(config.max_samples, len(train))
    forest = IsolationForest(
        n_estimators=config.n_estimators,
        max_samples=samples,
        contamination=config.contamination,
        random_state=seed,
        n_jobs=n_jobs,
    ).fit(train)
    parameters = {"n_estimators": config.n_estimators, "max_samples": samples}
    return BaselineResult(
        -forest.score_samples(train), -forest.score_samples(test), parameters, "none", _all(test)
    )


def _score_neighbors(config: KNNConfig, train: FloatArray, test: FloatArray) -> BaselineResult:
    """A training point is scored by the others: it would be its own nearest at distance 0."""
    return BaselineResult(
        knn.knn_scores(config, train, train, leave_one_out=True),
        knn.knn_scores(config, test, train),
        {"n_neighbors": config.n_neighbors},
        "none",
        _all(test),
    )


def _squared_distances(rows: FloatArray, columns: FloatArray) -> FloatArray:
    """‖rows_i − columns_j‖² `[rows, columns]` by one product; centred input keeps its digits."""
    distances = rows @ columns.T
    distances *= -2.0
    distances += np.square(rows).sum(axis=1)[:, None]
    distances += np.square(columns).sum(axis=1)[None, :]
    return np.maximum(distances, 0.0, out=distances)


def _row_blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK_ROWS) for start in range(0, count, _BLOCK_ROWS)]


def _all(test: FloatArray) -> IntArray:
    return np.arange(len(test), dtype=np.int64)


def _features(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be [n, features], got the shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")
    return array


def _labels(values: npt.ArrayLike | None, count: int) -> IntArray:
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


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value)) and value > 0


def _gflop(products: float, n_features: int) -> str:
    return f"{2 * products * n_features / 1e9:.3g} GFLOP"


def _megabytes(size: float) -> str:
    return f"{max(1, round(size / 1e6))} MB"
