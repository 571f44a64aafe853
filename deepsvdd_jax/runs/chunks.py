"""Functions of one run and a chunk of its images: shares of a mean, rows, steps of an epoch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import scoring, training
from deepsvdd_jax.networks import BatchStats, Network
from deepsvdd_jax.runs.sources import Chunk, Result
from deepsvdd_jax.runs.state import Phase, Run
from deepsvdd_jax.training import EpochInfo, EpochUnderWay, RunData, TrainState


def add_statistics(
    phase: Phase, chunk: Chunk, count: Array, state: TrainState, total: BatchStats
) -> BatchStats:
    """Adds a chunk's share of the mean batch statistics, weights fixed."""

    def of_batch(positions: Array, mask: Array) -> BatchStats:
        batch = training.take_batch(chunk.images, chunk.data, positions, mask)
        return training.apply_network(phase.network, state.params, batch, None).statistics

    return _add_share(of_batch, phase, chunk, count, total)


def add_embeddings(
    phase: Phase, chunk: Chunk, count: Array, state: TrainState, total: Array
) -> Array:
    """Adds a chunk's share of the mean embedding `[rep_dim]`."""

    def of_batch(positions: Array, mask: Array) -> Array:
        batch = training.take_batch(chunk.images, chunk.data, positions, mask)
        embeddings = phase.network.encode(state.params, state.statistics, batch.images)
        total = jnp.sum(jnp.where(mask[:, None], embeddings, 0.0), axis=0)
        return total / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)

    return _add_share(of_batch, phase, chunk, count, total)


def _add_share(
    of_batch: Callable[[Array, Array], Result],
    phase: Phase,
    chunk: Chunk,
    count: Array,
    total: Result,
) -> Result:
    """Adds a chunk's share of the mean of a function of batches over all images."""
    mean = _mean_over_batches(of_batch, chunk.data, phase.config.batch_size, total)
    share = chunk.data.count / jnp.maximum(count, 1)
    return jax.tree.map(lambda old, new: old + share * new, total, mean)


def _mean_over_batches(
    of_batch: Callable[[Array, Array], Result], data: RunData, batch_size: int, like: Result
) -> Result:
    """Averages a function of batches, which returns what `like` looks like, over a run's images,
    weighted by their number."""

    def body(index: Array, total: Result) -> Result:
        positions = index * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        mask = positions < data.count
        found = of_batch(jnp.minimum(positions, data.indices.shape[0] - 1), mask)
        weight = jnp.sum(mask, dtype=jnp.int32) / jnp.maximum(data.count, 1)
        return jax.tree.map(lambda old, new: old + weight * new, total, found)

    batches = (data.count + batch_size - 1) // batch_size
    return jax.lax.fori_loop(0, batches, body, jax.tree.map(jnp.zeros_like, like))


def embeddings(network: Network, chunk: Chunk, state: TrainState) -> Array:
    """Returns the embeddings `[n, rep_dim]` of a chunk, padding included."""

    def encode(indices: Array) -> Array:
        scaled = training.scaled_images(chunk.images, chunk.data, indices)
        return network.encode(state.params, state.statistics, scaled)

    size = chunk.data.indices.shape[0]
    batches = -(-size // scoring.BATCH_SIZE)
    padded = jnp.pad(chunk.data.indices, (0, batches * scoring.BATCH_SIZE - size))
    found = jax.lax.map(encode, padded.reshape(batches, -1))
    return found.reshape(-1, network.rep_dim)[:size]


def distances(phase: Phase, chunk: Chunk, state: TrainState) -> Array:
    """Returns the squared distances `[n]` of a chunk, padding included."""
    images, data, objective = chunk.images, chunk.data, phase.config.objective
    return scoring.pool_distances(
        state, images, data, network=phase.network, objective=objective, indices=data.indices
    )


def epoch_order(phase: Phase, epoch: Array, run: Run, state: TrainState) -> tuple[Array, Array]:
    """Returns an epoch's order of a run's images, see `training.order_of_epoch`, and how many of
    them it takes: none once the run has stopped."""
    key = epoch_key(phase, run, epoch, 0)
    order, count = training.order_of_epoch(key, run.data, phase.config)
    return order, jnp.where(state.active, count, 0)


def take_steps(
    phase: Phase,
    epoch: Array,
    chunk: Chunk,
    run: Run,
    count: Array,
    under_way: EpochUnderWay,
) -> EpochUnderWay:
    """Takes the steps of an epoch whose images a chunk holds."""
    stochastic = phase.network.stochastic or phase.config.stochastic
    return training.take_steps(
        under_way,
        chunk.images,
        chunk.data,
        order=chunk.order,
        first=chunk.first // phase.config.batch_size,
        count=count,
        network=phase.network,
        phase=phase.config,
        hyperparameters=phase.settings(run),
        key=epoch_key(phase, run, epoch, 1) if stochastic else None,
    )


def end_epoch(
    phase: Phase, run: Run, before: TrainState, under_way: EpochUnderWay, count: Array
) -> tuple[TrainState, EpochInfo]:
    """See `training.end_epoch`."""
    return training.end_epoch(before, under_way, count, phase.config, phase.settings(run))


def epoch_key(phase: Phase, run: Run, epoch: Array, use: int) -> Array:
    """Returns the key of an epoch's order (use 0), or of the dropout and the changes of images in
    its steps (use 1)."""
    # Keyed by objective, so that an autoencoder gets the same randomness as a pretraining and as a
    # run of its own.
    return _folded(run.key, phase.objective.key_number, epoch, use)


def _folded(key: Array, *numbers: Array | int) -> Array:
    """Folds numbers into a key one after the other. In a loop, since every drawing operation in a
    program takes the compiler a tenth of a second."""
    path = jnp.stack([jnp.asarray(number, jnp.uint32) for number in numbers])
    return jax.lax.fori_loop(
        0, len(numbers), lambda place, key: jax.random.fold_in(key, path[place]), key
    )
