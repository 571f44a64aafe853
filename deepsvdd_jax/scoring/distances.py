"""Anomaly scores of images under a trained state: batched, pure, higher = more anomalous."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives, training
from deepsvdd_jax.configs import BaseObjectiveConfig, RunConfig
from deepsvdd_jax.networks import BatchStats, Network, Params, build_network
from deepsvdd_jax.objectives import Forward
from deepsvdd_jax.training import RunData, TrainState

# So many images keep a device busy and take little memory.
BATCH_SIZE = 500


def batch_distances(
    state: TrainState, images: Array, network: Network, objective: BaseObjectiveConfig
) -> Array:
    """Returns an objective's scores of preprocessed images, `[n]`, before a radius is subtracted.

    Around a center d = ||phi - c||^2, of an autoencoder the summed reconstruction error. Evaluation
    mode, full float32 precision on every backend.
    """
    with jax.default_matmul_precision("highest"):
        evaluate = functools.partial(evaluate_network, network)
        return objectives.objective(objective).score(state, evaluate, images)


def evaluate_network(
    network: Network, params: Params, statistics: BatchStats, images: Array
) -> Forward:
    """Passes images through a network in evaluation mode, under the given statistics."""
    embeddings = network.encode(params, statistics, images)
    outputs = network.decode(params, statistics, embeddings) if "decoder" in params else None
    return Forward(embeddings, outputs, statistics)


def pool_distances(
    state: TrainState,
    images: Array,
    data: RunData,
    network: Network,
    objective: BaseObjectiveConfig,
    indices: Array | None = None,
) -> Array:
    """Returns the distances of images of a pool after the run's scaling, batch by batch.

    Args:
      state: of the run.
      images: float32 `[m, ...]`, the pool.
      data: whose scaling is applied.
      network: static.
      objective: static.
      indices: int32 `[n]`, which of them; None scores all.

    Returns:
      `[n]`.
    """
    indices = jnp.arange(images.shape[0], dtype=jnp.int32) if indices is None else indices
    count = indices.shape[0]
    if count == 0:
        return jnp.zeros((0,), jnp.float32)
    batches = -(-count // BATCH_SIZE)
    padded = jnp.pad(indices, (0, batches * BATCH_SIZE - count)).reshape(batches, BATCH_SIZE)

    def score(batch: Array) -> Array:
        scaled = training.scaled_images(images, data, batch)
        return batch_distances(state, scaled, network, objective)

    return jax.lax.map(score, padded).reshape(-1)[:count]


def score_offset(objective: BaseObjectiveConfig, squared_radius: Array) -> Array:
    """Returns the number subtracted from a distance to make it a score: R^2 for a soft boundary,
    else 0."""
    has_radius = objectives.objective(objective).has_radius
    return squared_radius if has_radius else jnp.zeros_like(squared_radius)


@functools.partial(jax.jit, static_argnames=("network", "objective"))
def _scores(
    state: TrainState, images: Array, network: Network, objective: BaseObjectiveConfig
) -> Array:
    distances = batch_distances(state, images, network, objective)
    return distances - score_offset(objective, state.squared_radius)


def anomaly_scores(config: RunConfig, state: TrainState, images: Array) -> Array:
    """Returns the anomaly scores of preprocessed images, `[n]`, higher = more anomalous.

    One-class: the squared distance d; soft-boundary: d - R^2; autoencoder: the summed squared
    error (paper, section 3.2).

    Args:
      config: of the run.
      state: one run's state, not stacked.
      images: float32 `[n, height, width, channels]` or `[n, features]`, network input.
    """
    network = build_network(config.network, tuple(images.shape[1:]))
    objective = config.training.objective
    images = jnp.asarray(images, jnp.float32)
    parts = [
        _scores(state, images[start : start + BATCH_SIZE], network, objective)
        for start in range(0, images.shape[0], BATCH_SIZE)
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros((0,), jnp.float32)
