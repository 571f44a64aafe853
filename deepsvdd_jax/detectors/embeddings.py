"""Anomaly scores of embeddings by the training embeddings around them, not by the center.

Deep SVDD's score is the squared distance to the center, which takes the embeddings of normal
samples for a ball. Two scores that do not: the distance to the nearest training embeddings, and the
Mahalanobis distance, which takes them for an ellipsoid (Lee et al., NeurIPS 2018).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.detectors.knn import KNNConfig, knn_scores

FloatArray = npt.NDArray[np.float64]


def nearest_scores(
    embeddings: npt.ArrayLike, train: npt.ArrayLike, n_neighbors: int = 5
) -> FloatArray:
    """Returns the mean distance to the nearest training embeddings, `[n]`, not its square.

    Network inputs, made flat, may stand for embeddings: nothing is trained then.

    Args:
      embeddings: `[n, rep_dim]`.
      train: `[n_train, rep_dim]`.
      n_neighbors: how many.

    Raises:
      ValueError: fewer training embeddings than neighbors.
    """
    points, known = np.asarray(embeddings, np.float64), np.asarray(train, np.float64)
    return knn_scores(KNNConfig(n_neighbors), points, known)


def mahalanobis_scores(embeddings: npt.ArrayLike, train: npt.ArrayLike) -> FloatArray:
    """Returns the squared Mahalanobis distance to the training embeddings' mean, `[n]`.

    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf have it, so that
    it has an inverse with fewer samples than dimensions, or embeddings that lie in a plane, too.

    Args:
      embeddings: `[n, rep_dim]`.
      train: `[n_train, rep_dim]`.

    Raises:
      ValueError: all training embeddings are equal.
    """
    from sklearn.covariance import LedoitWolf

    known = np.asarray(train, np.float64)
    if not np.ptp(known, axis=0).any():
        raise ValueError(f"all {len(known)} training embeddings are equal")
    fitted = LedoitWolf().fit(known)
    return np.asarray(fitted.mahalanobis(np.asarray(embeddings, np.float64)))
