"""One step: forward, loss, gradient, update."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.networks import Network, Params
from deepsvdd_jax.objectives import (
    Batch,
    Forward,
    Hyperparameters,
    Losses,
    TrainState,
    default_hyperparameters,
)
from deepsvdd_jax.training.optimizer import descent, learning_rate_factor, trained_parts

# Share of the old value in the running average of the batch statistics, as in both original codes.
STATISTICS_MOMENTUM = 0.9


class StepInfo(NamedTuple):
    """The figures of a step at the weights before it: the loss, its part without decay, and each
    example's squared distance (or reconstruction error), `[batch]`."""

    loss: Array
    data_loss: Array
    distances: Array


class _Forward(NamedTuple):
    data_loss: Array
    losses: Losses


def apply_network(network: Network, params: Params, batch: Batch, key: Array | None) -> Forward:
    """Passes a batch through a network under the statistics of that batch."""
    embeddings, encoder = network.encode_batch(params, batch.images, batch.mask, key)
    if "decoder" not in params:
        return Forward(embeddings, None, {"encoder": encoder})
    outputs, decoder = network.decode_batch(params, embeddings, batch.mask)
    return Forward(embeddings, outputs, {"encoder": encoder, "decoder": decoder})


def batch_loss(
    trained: dict[str, Any],
    state: TrainState,
    batch: Batch,
    *,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    key: Array | None = None,
) -> tuple[Array, _Forward]:
    """Returns the loss of a batch under the statistics of that batch: the mean of the objective's
    losses plus the decay of the weights; and beside it what the step needs of the forward pass."""
    # Padding that is not finite would reach the gradients as 0 * inf.
    kept = jnp.expand_dims(batch.mask, tuple(range(1, batch.images.ndim)))
    batch = batch._replace(images=jnp.where(kept, batch.images, 0.0))
    if batch.labels is None:
        batch = batch._replace(labels=jnp.zeros(batch.mask.shape, jnp.int32))
    params = trained["params"]
    state = state._replace(**trained)
    apply = functools.partial(apply_network, network)
    objective = objectives.objective(phase.objective)
    losses = objective.losses(params, state, apply, batch, hyperparameters, key)
    data_loss = objectives.masked_mean(losses.values, batch.mask)
    decay = hyperparameters.weight_decay * objectives.squared_kernel_norm(params)
    return data_loss + phase.weight_decay_factor * decay, _Forward(data_loss, losses)


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
      batch: float32 images `[batch, ...]`, bool mask `[batch]` and labels; padding enters neither
        the loss nor the batch statistics, and a batch of nothing but padding changes nothing.
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
        trained,
        state,
        batch,
        network=network,
        phase=phase,
        hyperparameters=hyperparameters,
        key=key,
    )
    # optax corrects its moments in jax's default type, which may be float64.
    with jax.enable_x64(False):
        direction, opt_state = descent(phase.optimizer).update(gradients, state.opt_state, trained)
    rate = hyperparameters.learning_rate * learning_rate_factor(phase.optimizer, state.epoch)
    objective = objectives.objective(phase.objective)
    for name, factor in objective.rates:
        if name in trained:
            direction[name] *= factor
    trained = jax.tree.map(lambda value, move: value - rate * move, trained, direction)
    new = state._replace(
        statistics=jax.tree.map(
            lambda old, seen: STATISTICS_MOMENTUM * old + (1.0 - STATISTICS_MOMENTUM) * seen,
            state.statistics,
            forward.losses.statistics,
        ),
        opt_state=opt_state,
        step=state.step + 1,
    )
    new = new._replace(**trained)
    new = objective.after_step(new, forward.losses, batch, hyperparameters)
    some = jnp.any(batch.mask)
    new = jax.tree.map(lambda changed, old: jnp.where(some, changed, old), new, state)
    return new, StepInfo(loss, forward.data_loss, forward.losses.distances)
