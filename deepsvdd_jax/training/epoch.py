"""One pass over a run's images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.networks import Network
from deepsvdd_jax.objectives import Hyperparameters, TrainState
from deepsvdd_jax.training.data import RunData, take_batch
from deepsvdd_jax.training.info import EpochInfo, describe_epoch
from deepsvdd_jax.training.optimizer import learning_rate_factor
from deepsvdd_jax.training.perturbation import perturbed
from deepsvdd_jax.training.step import train_step


class EpochUnderWay(NamedTuple):
    """An epoch between two of its steps.

    Attributes:
      state: after the last step.
      loss: sum over the steps so far, decay included.
      data_loss: likewise without decay.
      distances: `[steps * batch]`, of the examples in the order of the epoch, 0 where none was yet.
    """

    state: TrainState
    loss: Array
    data_loss: Array
    distances: Array


def begin_epoch(state: TrainState, order: Array) -> EpochUnderWay:
    """Returns an epoch in that order before its first step."""
    return EpochUnderWay(
        state,
        jnp.zeros((), jnp.float32),
        jnp.zeros((), jnp.float32),
        jnp.zeros(order.shape, jnp.float32),
    )


def take_steps(
    under_way: EpochUnderWay,
    images: Array,
    data: RunData,
    *,
    order: Array,
    first: Array | int,
    count: Array,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    key: Array | None,
) -> EpochUnderWay:
    """Takes an epoch's next steps: all, or those whose images are at hand.

    Args:
      under_way: the epoch so far.
      images: float32 `[m, ...]`, a pool that holds at least their images.
      data: which of them are this run's.
      order: int32 `[steps * batch]`, of these steps, positions in the run's indices.
      first: how many of the epoch's steps come before these.
      count: images that the whole epoch takes.
      network: static.
      phase: static.
      hyperparameters: traced scalars.
      key: draws the dropout of the epoch's steps; None where the network has none.
    """
    batch_size = phase.batch_size

    def body(index: Array, under_way: EpochUnderWay) -> EpochUnderWay:
        state, loss, data_loss, distances = under_way
        start = index * batch_size
        positions = jax.lax.dynamic_slice(order, (start - first * batch_size,), (batch_size,))
        mask = start + jnp.arange(batch_size, dtype=jnp.int32) < count
        batch = take_batch(images, data, positions, mask)
        key_step = None if key is None else jax.random.fold_in(key, index)
        if phase.stochastic:
            assert key_step is not None
            batch = perturbed(phase, jax.random.fold_in(key_step, 1), batch)
        state, info = train_step(
            state, batch, network, phase=phase, hyperparameters=hyperparameters, key=key_step
        )
        return EpochUnderWay(
            state,
            loss + info.loss,
            data_loss + info.data_loss,
            jax.lax.dynamic_update_slice(distances, info.distances, (start,)),
        )

    # A traced number of steps: a run with fewer images than its neighbours takes fewer.
    last = jnp.minimum(first + order.shape[0] // batch_size, _steps(count, batch_size))
    return jax.lax.fori_loop(first, last, body, under_way)


def _steps(count: Array, batch_size: int) -> Array:
    return (count + batch_size - 1) // batch_size


def end_epoch(
    before: TrainState,
    under_way: EpochUnderWay,
    count: Array,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
) -> tuple[TrainState, EpochInfo]:
    """Returns the state after an epoch's last step, and the figures of the epoch."""
    state = under_way.state._replace(epoch=before.epoch + 1)
    valid = jnp.arange(under_way.distances.shape[0], dtype=jnp.int32) < count
    taken = jnp.maximum(_steps(count, phase.batch_size), 1)
    info = describe_epoch(
        before,
        state,
        under_way.distances,
        valid=valid,
        loss=under_way.loss / taken,
        data_loss=under_way.data_loss / taken,
    )
    rate = hyperparameters.learning_rate * learning_rate_factor(phase.optimizer, before.epoch)
    return state, info._replace(learning_rate=rate)
