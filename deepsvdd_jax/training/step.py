"""One step: forward, loss, gradient, update."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.networks import Network, Statistics
from deepsvdd_jax.training.optimizer import descent, learning_rate_factor, trained_parts
from deepsvdd_jax.training.state import Batch, Hyperparameters, TrainState, default_hyperparameters

# Share of the old value in the running average of the batch statistics, as in both original codes.
STATISTICS_MOMENTUM = 0.9


class StepInfo(NamedTuple):
    """What a step tells: the loss, its part without decay, and each example's squared distance
    (or reconstruction error), `[batch]`, at the weights before the step."""

    loss: Array
    data_loss: Array
    distances: Array


class _Forward(NamedTuple):
    data_loss: Array
    distances: Array
    statistics: Statistics


def batch_loss(
    trained: dict[str, Any],
    state: TrainState,
    batch: Batch,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    key: Array | None = None,
) -> tuple[Array, _Forward]:
    """Returns the loss of a batch under the statistics of that batch, and what came with it.

    Equations (3) and (4) of Ruff et al. 2018, or the autoencoder's: mean summed squared error.
    """
    objective, params = phase.objective, trained["params"]
    # What is not finite in padding would reach the gradients as 0 * inf.
    kept = jnp.expand_dims(batch.mask, tuple(range(1, batch.images.ndim)))
    images = jnp.where(kept, batch.images, 0.0)
    codes, encoder_statistics = network.encode_batch(params, images, batch.mask, key)
    statistics = {"encoder": encoder_statistics}
    errors = None
    if "decoder" in params:
        outputs, statistics["decoder"] = network.decode_batch(params, codes, batch.mask)
        errors = objectives.reconstruction_errors(outputs, images, objective.reconstruction_error)
    if objective.kind == "reconstruction":
        assert errors is not None
        distances = losses = errors
    else:
        distances = losses = objectives.squared_distances(
            codes, trained.get("center", state.center)
        )
        if objective.kind == "soft-boundary":
            squared_radius = trained.get("squared_radius", state.squared_radius)
            losses = objectives.soft_boundary_losses(losses, squared_radius, hyperparameters.nu)
        if objective.reconstruction_penalty:
            assert errors is not None
            losses = losses + objective.reconstruction_penalty * errors
    data_loss = objectives.masked_mean(losses, batch.mask)
    decay = hyperparameters.weight_decay * objectives.squared_kernel_norm(params)
    loss = data_loss + phase.weight_decay_factor * decay
    return loss, _Forward(data_loss, distances, statistics)


def train_step(
    state: TrainState,
    batch: Batch,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters | None = None,
    key: Array | None = None,
) -> tuple[TrainState, StepInfo]:
    """One optimiser step on one batch of one run; pure, for jit, vmap, pmap and shard_map.

    Args:
      state: of the run.
      batch: float32 images `[batch, ...]` and bool mask `[batch]`; padding enters neither the loss
        nor the batch statistics, and a batch of nothing but padding changes nothing.
      network: static.
      phase: static; its nu, weight decay and learning rate hold where `hyperparameters` is None.
      hyperparameters: traced scalars.
      key: draws the dropout; None where the network has none.

    Returns:
      The new state, and the step's losses and distances.
    """
    if hyperparameters is None:
        hyperparameters = default_hyperparameters(phase)
    trained = trained_parts(phase, state)
    (loss, forward), gradients = jax.value_and_grad(batch_loss, has_aux=True)(
        trained, state, batch, network, phase, hyperparameters, key
    )
    direction, optimizer_state = descent(phase.optimizer).update(
        gradients, state.optimizer_state, trained
    )
    rate = hyperparameters.learning_rate * learning_rate_factor(phase.optimizer, state.epoch)
    if "squared_radius" in trained:
        direction["squared_radius"] *= phase.objective.radius_rate
    trained = jax.tree.map(lambda value, move: value - rate * move, trained, direction)
    new = state._replace(
        params=trained["params"],
        statistics=jax.tree.map(
            lambda old, seen: STATISTICS_MOMENTUM * old + (1.0 - STATISTICS_MOMENTUM) * seen,
            state.statistics,
            forward.statistics,
        ),
        optimizer_state=optimizer_state,
        center=trained.get("center", state.center),
        squared_radius=trained.get("squared_radius", state.squared_radius),
        step=state.step + 1,
    )
    if phase.objective.kind == "soft-boundary" and phase.objective.radius_rule == "quantile":
        new = _with_batch_radius(new, forward.distances, batch.mask, phase, hyperparameters.nu)
    some = jnp.any(batch.mask)
    new = jax.tree.map(lambda changed, old: jnp.where(some, changed, old), new, state)
    return new, StepInfo(loss, forward.data_loss, forward.distances)


def _with_batch_radius(
    state: TrainState, distances: Array, mask: Array, phase: PhaseConfig, nu: Array
) -> TrainState:
    """Sets the radius from the batch's distances once the warm-up is over (PyTorch code)."""
    radius = objectives.quantile_squared_radius(distances, nu, mask)
    warm = state.epoch >= phase.objective.warm_up_epochs
    return state._replace(squared_radius=jnp.where(warm, radius, state.squared_radius))
