"""A model's scorer as one StableHLO artifact that jax runs without this package.

Writing and reading one takes flatbuffers, an extra: `pip install 'deepsvdd_jax[export]'`.

import jax, numpy as np

with open("scorer.jaxexport", "rb") as file:
    scorer = jax.export.deserialize(bytearray(file.read()))
scores = scorer.call(np.zeros((3, 28, 28, 1), np.float32))  # [3], higher = more anomalous
"""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import scoring
from deepsvdd_jax.configs import EXPORT_PLATFORMS
from deepsvdd_jax.detectors import embeddings
from deepsvdd_jax.detectors.batches import states_of
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.scoring.ensemble import member_units
from deepsvdd_jax.training import TrainState

PLATFORMS = EXPORT_PLATFORMS

# Scores differ from this rounding of a float32 input on, in standard deviations of its column.
_COARSE = 0.01


class PrecisionWarning(UserWarning):
    """Columns whose values float32, the input of an exported scorer, is too coarse for."""


def export_model(model: Model, platforms: tuple[str, ...] = PLATFORMS) -> bytes:
    """Returns the serialised scorer, for any number of images at once.

    It maps float32 `[n, *model.image_shape]`, pixels in [0, 1] or the columns of a table, to the
    scores of `detectors.score_images`, float32 `[n]`; preprocessing is part of it. Columns whose
    offset is so large that float32 rounds them are named in a `PrecisionWarning`: take an offset
    off before training.

    Args:
      model: fitted or loaded.
      platforms: on which it can run.

    Raises:
      ConfigError: a model that does not score by its center.
      ImportError: flatbuffers is missing; one line that says how to install it.
    """
    embeddings.check_center(model, "an export takes")
    try:
        importlib.import_module("flatbuffers")
    except ImportError:
        raise ImportError(
            "an export needs flatbuffers: pip install 'deepsvdd_jax[export]'"
        ) from None
    warn_of_coarse_columns(model)
    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *model.image_shape), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: scores(model, x)), platforms=platforms)(images)
    return bytes(exported.serialize())


def warn_of_coarse_columns(model: Model) -> None:
    """Warns of columns of a table that float32, the input of an exported scorer, is too coarse for.

    Warns:
      PrecisionWarning: names them.
    """
    coarse = coarse_columns(model)
    if not len(coarse):
        return
    names = [model.feature_names[i] if model.feature_names else str(i) for i in coarse]
    warnings.warn(
        f"an exported scorer takes float32, which rounds columns {', '.join(names)} by more "
        f"than {_COARSE:g} standard deviations: its scores are not the model's; take their "
        "offset off before training",
        PrecisionWarning,
        stacklevel=3,
    )


def scores(model: Model, images: Array) -> Array:
    """Returns the anomaly scores `[n]` of raw images `[n, *model.image_shape]`; pure, traceable.

    A score beyond float32, or that of a NaN pixel, becomes the largest number.
    """
    values = network_input(model, images)
    network = build_network(model.config.network, model.image_shape)
    objective = model.config.training.objective
    states = states_of(model)
    # Not vmapped: a batched convolution is slow on some of the platforms.
    members = [_member(states, number) for number in range(len(model.center))]
    distances = jnp.stack(
        [scoring.batch_distances(state, values, network, objective) for state in members]
    )
    if len(distances) == 1:
        found = distances[0] - scoring.score_offset(objective, states.squared_radius[0])
    else:
        units = member_units(model.train_means).astype(np.float32)
        found = jnp.mean(distances / units[:, None], axis=0)
    return jnp.where(jnp.isfinite(found), found, np.finfo(np.float32).max)


def _member(states: TrainState, number: int) -> TrainState:
    state: TrainState = jax.tree.map(lambda leaf: leaf[number], states)
    return state


def network_input(model: Model, images: Array) -> Array:
    """Preprocesses raw images `[n, ...]` as `preprocessing.apply` does, traceable."""
    values = _normalize_contrast(images, model.config.preprocessing.contrast)
    if len(model.whitening_mean):
        flat = values.reshape(values.shape[0], -1) - model.whitening_mean[None].astype(np.float32)
        with jax.default_matmul_precision("highest"):
            whitened = flat @ model.whitening_matrix.astype(np.float32)
        values = whitened.reshape(values.shape)
    # The shift in two parts, so that a difference of large numbers keeps its digits.
    shift = model.shift.astype(np.float32)
    rest = (model.shift - shift).astype(np.float32)
    return (values - shift[None] - rest[None]) * model.scale[None].astype(np.float32)


def coarse_columns(model: Model) -> npt.NDArray[np.integer]:
    """Returns the columns of a table that float32 input is too coarse for, positions from 0."""
    if len(model.image_shape) != 1 or model.shift.shape != model.image_shape:
        return np.zeros(0, np.int64)
    scale = np.abs(model.scale.astype(np.float64))
    rounding = np.abs(model.shift) * (np.finfo(np.float32).eps / 2) * scale
    tiny = np.finfo(np.float32).tiny
    return np.flatnonzero((rounding > _COARSE) | (scale > 0.01 / tiny) | (scale < tiny))


def _normalize_contrast(images: Array, kind: str) -> Array:
    if kind == "none":
        return images
    axes = tuple(range(1, images.ndim))
    low, high = (find(images, axis=axes, keepdims=True) for find in (jnp.min, jnp.max))
    size = jnp.maximum(jnp.abs(low), jnp.abs(high))
    constant = high - low <= 2 * np.finfo(np.float32).eps * size
    # From the smallest value on, so that a mean far from 0 is not rounded.
    values = images - low
    values = values - jnp.mean(values, axis=axes, keepdims=True)
    if kind == "l1":
        size = jnp.mean(jnp.abs(values), axis=axes, keepdims=True)
    else:
        size = jnp.sqrt(jnp.mean(jnp.square(values), axis=axes, keepdims=True))
        if kind == "l2":
            size = size * np.float32(np.sqrt(np.prod(images.shape[1:])))
    return jnp.where(constant, 0.0, values / jnp.where(constant, 1.0, size))
