"""A model's scorer as one StableHLO artifact that jax runs without this package.

Writing and reading one takes flatbuffers, an extra: `pip install 'deepsvdd_jax[export]'`.

import jax, numpy as np

with open("scorer.jaxexport", "rb") as file:
    scorer = jax.export.deserialize(bytearray(file.read()))
scores = scorer.call(np.zeros((3, 28, 28, 1), np.float32))  # [3], higher = more anomalous
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepsvdd_jax import scoring
from deepsvdd_jax.configs import EXPORT_PLATFORMS
from deepsvdd_jax.detectors import deep_svdd
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.training import TrainState

PLATFORMS = EXPORT_PLATFORMS

# As in `preprocessing.normalize_contrast`: below it an image is constant but for rounding.
_LEAST_CONTRAST = 1e-8


def export_model(model: Model, platforms: tuple[str, ...] = PLATFORMS) -> bytes:
    """Returns the serialised scorer, for any number of images at once.

    It maps float32 `[n, *model.image_shape]`, pixels in [0, 1] or the columns of a table, to the
    scores of `detectors.score_images`, float32 `[n]`; preprocessing is part of it, in float32.

    Args:
      model: fitted or loaded.
      platforms: what it can run on.

    Raises:
      ImportError: flatbuffers is missing; one line that says how to install it.
    """
    try:
        importlib.import_module("flatbuffers")
    except ImportError:
        raise ImportError(
            "an export needs flatbuffers: pip install 'deepsvdd_jax[export]'"
        ) from None
    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *model.image_shape), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: scores(model, x)), platforms=platforms)(images)
    return bytes(exported.serialize())


def scores(model: Model, images: Array) -> Array:
    """Returns the anomaly scores `[n]` of raw images `[n, *model.image_shape]`; pure, traceable."""
    values = network_input(model, images)
    network = build_network(model.config.network, model.image_shape)
    objective = model.config.training.objective
    states = deep_svdd.states_of(model)
    # Not vmapped: a batched convolution is slow on some of the platforms.
    members = [_member(states, number) for number in range(len(model.center))]
    distances = jnp.stack(
        [scoring.batch_distances(state, values, network, objective) for state in members]
    )
    if len(distances) == 1:
        return distances[0] - scoring.score_offset(objective, states.squared_radius[0])
    units = np.where(model.train_means > 0, model.train_means, 1.0).astype(np.float32)
    return jnp.mean(distances / units[:, None], axis=0)


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
    return (values - model.shift[None]) * model.scale[None]


def _normalize_contrast(images: Array, kind: str) -> Array:
    if kind == "none":
        return images
    axes = tuple(range(1, images.ndim))
    values = images - jnp.mean(images, axis=axes, keepdims=True)
    if kind == "l1":
        size = jnp.mean(jnp.abs(values), axis=axes, keepdims=True)
    else:
        size = jnp.sqrt(jnp.mean(jnp.square(values), axis=axes, keepdims=True))
        if kind == "l2":
            size = size * np.float32(np.sqrt(np.prod(images.shape[1:])))
    constant = size < _LEAST_CONTRAST
    return jnp.where(constant, 0.0, values / jnp.where(constant, 1.0, size))
