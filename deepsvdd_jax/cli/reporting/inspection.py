"""Pictures of a saved model: embeddings, reconstructions, first-layer filters."""

import functools
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import detectors, objectives, preprocessing
from deepsvdd_jax.detectors import embeddings
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import BatchStats, Network, Params, build_network
from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.plots import Embedding

Array = npt.NDArray[Any]


def first_member(model: Model) -> Model:
    """Returns the model of the first member alone."""
    return model._replace(
        params=jax.tree.map(lambda leaf: leaf[:1], model.params),
        statistics=jax.tree.map(lambda leaf: leaf[:1], model.statistics),
        center=model.center[:1],
        squared_radius=model.squared_radius[:1],
        train_means=model.train_means[:1],
    )


def network_inputs(model: Model, images: Array) -> Array:
    """Returns the network's input for raw images `[n, ...]`, float32."""
    return preprocessing.apply(detectors.preprocessing_of(model), images)


def reconstructions(model: Model, inputs: Array) -> Array | None:
    """Returns the first member's images of network inputs; None for a model without a decoder."""
    if "decoder" not in model.params:
        return None
    network = build_network(model.config.network, model.image_shape)
    params, statistics = jax.tree.map(lambda leaf: leaf[0], (model.params, model.statistics))
    return np.asarray(_reconstruct(network, params, statistics, inputs))


@functools.partial(jax.jit, static_argnames="network")
def _reconstruct(
    network: Network, params: Params, statistics: BatchStats, inputs: jax.Array
) -> jax.Array:
    return network.decode(params, statistics, network.encode(params, statistics, inputs))


def first_filters(model: Model) -> Array | None:
    """Returns the first member's first kernels, `[height, width, inputs, features]`; None for dense
    networks."""
    first = model.params["encoder"].get("stage0_0")
    return None if first is None else np.asarray(first["kernel"][0])


def embed(model: Model, images: Array, labels: Array) -> tuple[Embedding, float]:
    """Returns test points and center in the plane of the points' largest variance, and its share.

    Args:
      model: its first member is shown.
      images: raw `[n, ...]`.
      labels: `[n]`, 1 = anomalous.
    """
    embedded = embeddings.of_samples(first_member(model), images)[0]
    mean, plane, share = plots.principal_components(embedded)
    has_center = objectives.objective(model.config.training.objective).has_center
    center = (model.center[0] - mean) @ plane if has_center else None
    return Embedding((embedded - mean) @ plane, labels, center), share
