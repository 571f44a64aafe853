"""What a saved model shows: representations, reconstructions, first-layer filters."""

import functools
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import detectors, objectives, preprocessing
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.scoring import BATCH_SIZE
from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.plots import Embedding

Array = npt.NDArray[Any]


def first_member(model: Model) -> Model:
    """Returns one network's model, without the leading axis of members."""
    return model._replace(
        params=jax.tree.map(lambda leaf: leaf[0], model.params),
        statistics=jax.tree.map(lambda leaf: leaf[0], model.statistics),
        center=model.center[0],
        squared_radius=model.squared_radius[0],
    )


def network_inputs(model: Model, images: Array) -> Array:
    """Returns what the network is given for raw images `[n, ...]`, float32."""
    return preprocessing.apply(detectors.preprocessing_of(model), images)


def representations(model: Model, inputs: Array) -> Array:
    """Returns phi of network inputs `[n, ...]` under one network, `[n, rep_dim]`."""
    network = build_network(model.config.network, model.image_shape)
    parts = [
        _encode(network, model.params, model.statistics, inputs[start : start + BATCH_SIZE])
        for start in range(0, len(inputs), BATCH_SIZE)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def reconstructions(model: Model, inputs: Array) -> Array | None:
    """Returns the decoder's images of network inputs; None for a model without a decoder."""
    if "decoder" not in model.params:
        return None
    network = build_network(model.config.network, model.image_shape)
    return np.asarray(_reconstruct(network, model.params, model.statistics, inputs))


@functools.partial(jax.jit, static_argnames="network")
def _encode(network: Network, params: Any, statistics: Any, inputs: Any) -> jax.Array:
    return network.encode(params, statistics, inputs)


@functools.partial(jax.jit, static_argnames="network")
def _reconstruct(network: Network, params: Any, statistics: Any, inputs: Any) -> jax.Array:
    return network.decode(params, statistics, network.encode(params, statistics, inputs))


def first_filters(model: Model) -> Array | None:
    """Returns the first convolution's kernels `[height, width, inputs, features]`; None for dense
    networks."""
    first = model.params["encoder"].get("stage0_0")
    return None if first is None else np.asarray(first["kernel"])


def embed(model: Model, inputs: Array, labels: Array) -> tuple[Embedding, float]:
    """Returns test points and center in the plane of the points' largest variance, and its share.

    Args:
      model: of one network.
      inputs: network inputs `[n, ...]`.
      labels: `[n]`, 1 = anomalous.
    """
    codes = representations(model, inputs)
    mean, plane, share = plots.principal_components(codes)
    has_center = objectives.objective(model.config.training.objective).has_center
    center = (model.center - mean) @ plane if has_center else None
    return Embedding((codes - mean) @ plane, labels, center), share
