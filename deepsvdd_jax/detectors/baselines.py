"""The shallow baselines: one-class SVM, kernel density and isolation forest of the Deep SVDD paper,
and nearest neighbors.

One signature for all of them: `fit_and_score(config, x_train, x_test, seed)`. The type of the
configuration selects the method. `describe_cost` estimates a call beforehand.

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

The caller does the preprocessing: these functions take features `[n, features]`.
"""

from __future__ import annotations

import numpy.typing as npt

from deepsvdd_jax.detectors import knn
from deepsvdd_jax.detectors.features import BLOCK_ROWS, BaselineResult, FloatArray, all, features
from deepsvdd_jax.detectors.isolation_forest import IsolationForestConfig, score_forest
from deepsvdd_jax.detectors.kde import KDEConfig, score_kde
from deepsvdd_jax.detectors.knn import KNNConfig
from deepsvdd_jax.detectors.ocsvm import (
    LIBSVM_CACHE,
    OneClassSVMConfig,
    score_paper_svm,
    score_plain_svm,
)

BaselineConfig = OneClassSVMConfig | KDEConfig | IsolationForestConfig | KNNConfig


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
    train, test = features(x_train, "x_train"), features(x_test, "x_test")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"x_train has {train.shape[1]} features but x_test has {test.shape[1]}")
    match config:
        case OneClassSVMConfig(selection="paper"):
            return score_paper_svm(config, train, test, seed, test_labels)
        case OneClassSVMConfig():
            return score_plain_svm(config, train, test)
        case KDEConfig():
            return score_kde(config, train, test, seed)
        case IsolationForestConfig():
            return score_forest(config, train, test, seed, n_jobs)
        case KNNConfig():
            return _score_neighbors(config, train, test)
    raise TypeError(f"no baseline has a configuration of the type {type(config).__name__}")


def describe_cost(config: BaselineConfig, n_train: int, n_test: int, n_features: int) -> str:
    """Returns one line on the work of `fit_and_score` for so many points and features.

    The memory comes on top of that of the features.
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
                f"{_megabytes(LIBSVM_CACHE + 16 * pairs + 8 * labelled * n_train)}"
            )
        case OneClassSVMConfig():
            products = pairs + (n_train + n_test) * n_train
            return (
                f"one-class SVM: 1 fit on {n_train} points, about "
                f"{_gflop(products, n_features)} and at most "
                f"{_megabytes(LIBSVM_CACHE + 16 * BLOCK_ROWS * n_train)}"
            )
        case KDEConfig():
            products = 2 * pairs + n_test * n_train
            exponentials = pairs * (len(config.bandwidths) + 1) + n_test * n_train
            return (
                f"kernel density: {len(config.bandwidths)} bandwidths x {config.folds} folds on "
                f"{n_train} points, about {_gflop(products, n_features)}, "
                f"{exponentials / 1e9:.2g} billion exponentials and "
                f"{_megabytes(20 * BLOCK_ROWS * n_train)}"
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


def _score_neighbors(config: KNNConfig, train: FloatArray, test: FloatArray) -> BaselineResult:
    """Scores a training point by the others: it would be its own nearest at distance 0."""
    return BaselineResult(
        knn.knn_scores(config, train, train, leave_one_out=True),
        knn.knn_scores(config, test, train),
        {"n_neighbors": config.n_neighbors},
        "none",
        all(test),
    )


def _gflop(products: float, n_features: int) -> str:
    return f"{2 * products * n_features / 1e9:.3g} GFLOP"


def _megabytes(size: float) -> str:
    return f"{max(1, round(size / 1e6))} MB"
