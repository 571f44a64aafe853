"""Anomaly scores of embeddings by the training embeddings around them, not by the center.

Deep SVDD's score is the squared distance to the center: it assumes that the embeddings of normal
samples form a ball. Two scores do not: the distance to the nearest training embeddings, and the
Mahalanobis distance, which assumes an ellipsoid (Lee et al., NeurIPS 2018).
"""

from __future__ import annotations

import jax
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import BaseObjectiveConfig, ConfigError, DetectorConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import batches
from deepsvdd_jax.detectors.knn import KNNConfig, knn_scores
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import Network
from deepsvdd_jax.training import TrainState

FloatArray = npt.NDArray[np.float64]

N_NEIGHBORS = 5


# --- the scores of embeddings -------------------------------------------------------------------


def nearest_scores(
    embeddings: npt.ArrayLike,
    train: npt.ArrayLike,
    n_neighbors: int = N_NEIGHBORS,
    *,
    leave_one_out: bool = False,
) -> FloatArray:
    """Returns the mean distance to the nearest training embeddings, `[n]`, not its square.

    Flattened network inputs may take the place of embeddings: then nothing is trained.

    Args:
      embeddings: `[n, rep_dim]`.
      train: `[n_train, rep_dim]`.
      n_neighbors: how many.
      leave_one_out: `embeddings` are `train`, and none is its own neighbor.

    Raises:
      ValueError: fewer training embeddings than neighbors.
    """
    points, known = np.asarray(embeddings, np.float64), np.asarray(train, np.float64)
    return knn_scores(KNNConfig(n_neighbors), points, known, leave_one_out=leave_one_out)


def mahalanobis_scores(embeddings: npt.ArrayLike, train: npt.ArrayLike) -> FloatArray:
    """Returns the squared Mahalanobis distance to the training embeddings' mean, `[n]`.

    Args:
      embeddings: `[n, rep_dim]`.
      train: `[n_train, rep_dim]`.

    Raises:
      ValueError: all training embeddings are equal.
    """
    mean, precision = ellipsoid(train)
    return _mahalanobis(np.asarray(embeddings, np.float64), mean, precision)


def ellipsoid(train: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns mean `[rep_dim]` and precision `[rep_dim, rep_dim]` of training embeddings.

    The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf), so that it has an
    inverse even with fewer samples than dimensions or with embeddings in a plane.

    Args:
      train: `[n_train, rep_dim]`.

    Raises:
      ValueError: all training embeddings are equal.
    """
    from sklearn.covariance import LedoitWolf

    known = np.asarray(train, np.float64)
    if not np.ptp(known, axis=0).any():
        raise ValueError(f"all {len(known)} training embeddings are equal")
    fitted = LedoitWolf().fit(known)
    return np.asarray(fitted.location_), np.asarray(fitted.get_precision())


def _mahalanobis(points: FloatArray, mean: FloatArray, precision: FloatArray) -> FloatArray:
    centered = points - mean
    return np.asarray(((centered @ precision) * centered).sum(axis=1))


# --- of a model ---------------------------------------------------------------------------------


def check(config: DetectorConfig, train_count: int) -> None:
    """Refuses a score of embeddings where it has no meaning.

    Args:
      config: of the detector.
      train_count: of normal samples that are trained on.

    Raises:
      ConfigError: the objective has a radius or a map, calibration is `cross`, or there are too
        few samples.
    """
    kind, objective = config.embedding_score, config.run.training.objective
    if kind == "center":
        return
    described = objectives.objective(objective)
    if described.has_radius or described.maps is not None:
        what = "d - R^2" if described.has_radius else "the mean of its map"
        raise ConfigError(
            f"embedding_score is {kind}; the score of objective {objective.kind} is {what}, give "
            "center"
        )
    if config.calibration == "cross":
        raise ConfigError(
            f"embedding_score is {kind} and calibration cross, whose folds have no embeddings in "
            "common; give calibration held-out"
        )
    if kind == "neighbors" and train_count <= N_NEIGHBORS:
        raise ConfigError(
            f"embedding_score is neighbors; it needs {N_NEIGHBORS + 1} training samples at least, "
            f"not {train_count}"
        )


def check_center(model: Model, what: str) -> None:
    """Refuses a model that does not score by distance to the center.

    Raises:
      ConfigError: says which command or function needs such a model.
    """
    if model.embedding_score != "center":
        raise ConfigError(
            f"{what} a model that scores by its center; this one has embedding_score "
            f"{model.embedding_score}"
        )


def of_samples(model: Model, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the embeddings of samples under every member, float32 `[members, n, rep_dim]`.

    Arguments and errors are those of `batches.of_members`.
    """
    return batches.of_members(model, images, _embed, (model.center.shape[1],))


def _embed(
    state: TrainState, images: Array, network: Network, objective: BaseObjectiveConfig
) -> Array:
    with jax.default_matmul_precision("highest"):
        return network.encode(state.params, state.statistics, images)


def with_reference(
    model: Model, kind: str, train: npt.ArrayLike
) -> tuple[Model, npt.NDArray[np.float32]]:
    """Returns the model with the reference that it compares embeddings with, and the scores of the
    training samples, float32 `[members, n]`; no sample is its own neighbor.

    Args:
      model: trained.
      kind: `neighbors` or `mahalanobis`.
      train: `[n, *model.image_shape]`, normal samples that it was trained on.

    Raises:
      DataError: all embeddings of a member are equal.
    """
    embedded = of_samples(model, train)
    if kind == "neighbors":
        model = model._replace(embedding_score=kind, reference={"embeddings": embedded})
        return model, distances_in_training(model)
    try:
        means, precisions = zip(*map(ellipsoid, embedded), strict=True)
    except ValueError as error:
        raise DataError(f"embedding_score mahalanobis: {error}; give center") from None
    reference = {"mean": np.stack(means), "precision": np.stack(precisions)}
    model = model._replace(embedding_score=kind, reference=reference)
    return model, _distances_of(model, embedded)


def distances_in_training(model: Model) -> npt.NDArray[np.float32]:
    """Returns the scores, float32 `[members, n]`, of the training samples of a model that scores by
    `neighbors`; none is its own neighbor."""
    every = model.reference["embeddings"]
    return np.asarray([nearest_scores(one, one, leave_one_out=True) for one in every], np.float32)


def distances(model: Model, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the scores of samples by each member's training embeddings, float32 `[members, n]`:
    the mean distance to the nearest five, or the squared Mahalanobis distance.

    Arguments and errors are those of `batches.of_members`.
    """
    return _distances_of(model, of_samples(model, images))


def _distances_of(model: Model, embedded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    points = embedded.astype(np.float64)
    reference = model.reference
    if model.embedding_score == "neighbors":
        pairs = zip(points, reference["embeddings"], strict=True)
        found = [nearest_scores(one, known) for one, known in pairs]
    else:
        parts = zip(points, reference["mean"], reference["precision"], strict=True)
        found = [_mahalanobis(one, mean, precision) for one, mean, precision in parts]
    return np.asarray(found, np.float32)
