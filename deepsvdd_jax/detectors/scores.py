"""Scores of new images by a model, higher for more anomalous ones.

The score of a single member is d, or d - R^2 for a soft boundary; that of several is the mean over
members of d, each divided by its mean over the training images. `d` is the squared distance to the
center, or the score of an embedding by `embeddings`.
"""

import warnings

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import scoring
from deepsvdd_jax.detectors import batches, embeddings
from deepsvdd_jax.detectors.errors import CollapseWarning
from deepsvdd_jax.detectors.inputs import network_values
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import ensemble, metrics

Scores = npt.NDArray[np.float32]


def score_images(model: Model, images: npt.ArrayLike) -> Scores:
    """Returns the anomaly scores of images, float32 `[n]`, higher = more anomalous.

    One member: d (a squared distance; of an autoencoder the summed squared error), or d - R^2 for
    a soft boundary. Several: the mean over members of d / its mean over the training images. A
    distance beyond float32 counts as its largest number.

    Args:
      model: fitted or loaded.
      images: `[n, *model.image_shape]`, see `network_values`.

    Raises:
      DataError: images of another shape, or values that are not finite.

    Warns:
      CollapseWarning: the samples differ and their scores do not.
    """
    values = network_values(images)
    distances = member_distances(model, values)
    if len(values) > 1 and metrics.are_all_equal(distances) and np.any(values[1:] != values[:1]):
        warnings.warn(
            "all scores are equal though the samples differ: the model tells nothing apart",
            CollapseWarning,
            stacklevel=2,
        )
    scores = combine_distances(model, distances)
    return np.where(np.isfinite(scores), scores, np.finfo(np.float32).max)


def training_scores(model: Model, images: npt.ArrayLike) -> Scores:
    """Returns the scores of all normal samples that a model was trained on, in their order. They
    are those of `score_images`, but no sample is its own nearest neighbor."""
    if model.embedding_score == "neighbors":
        return combine_distances(model, embeddings.distances_in_training(model))
    return score_images(model, images)


def combine_distances(model: Model, distances: Scores) -> Scores:
    """Returns scores, float32 `[n]`, from the members' distances `[members, n]`."""
    if len(distances) > 1:
        with np.errstate(over="ignore"):
            return ensemble.mean_in_units(distances, model.train_means).astype(np.float32)
    offset = scoring.score_offset(model.config.training.objective, model.squared_radius[0])
    return np.asarray(distances[0] - np.asarray(offset))


def member_scores(model: Model, distances: Scores) -> Scores:
    """Returns the distances `[members, n]` in units of each member's mean over its training
    images, float32."""
    with np.errstate(over="ignore"):
        return ensemble.in_units(distances, model.train_means).astype(np.float32)


def member_distances(model: Model, images: npt.ArrayLike) -> Scores:
    """Returns d of every image to every member's center, float32 `[members, n]`.

    Arguments and errors are those of `score_images`.
    """
    if model.embedding_score == "center":
        return batches.of_members(model, images, scoring.batch_distances)
    return embeddings.distances(model, images)
