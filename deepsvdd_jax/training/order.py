"""Random orders of a run's images."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.training.data import RunData


def epoch_order(key: Array, size: int, count: Array) -> Array:
    """Returns a random order of 0 .. count - 1, then the padding up to `size`; int32 `[size]`.

    The order depends on the key and on `count` alone: random bits do not depend on how many are
    drawn after them, a shuffle of `size` elements would.
    """
    bits = jax.random.bits(key, (size,), jnp.uint32)
    padding = jnp.arange(size, dtype=jnp.int32) >= count
    bits = jnp.where(padding, jnp.uint32(0xFFFFFFFF), bits)
    return jnp.argsort(bits, stable=True).astype(jnp.int32)


def batch_order(key: Array, size: int, count: Array, batch_size: int) -> tuple[Array, Array]:
    """Returns an order of whole fixed batches and how many images they hold (Theano code)."""
    batches = -(-size // batch_size)
    whole = count // batch_size
    order = epoch_order(key, batches, whole)
    positions = order[:, None] * batch_size + jnp.arange(batch_size, dtype=jnp.int32)[None]
    return jnp.minimum(positions.reshape(-1), size - 1), whole * batch_size


def balanced_order(key: Array, anomalous: Array, count: Array) -> tuple[Array, Array]:
    """Returns an order in which every other example is a known anomaly, and how long it is.

    Every other example comes once; anomalies repeat, each time through in a new order. Without
    anomalies, or with nothing else, it is `epoch_order`.

    Args:
      key: draws both orders.
      anomalous: bool `[n]`, which examples are known anomalies; padding counts for nothing.
      count: int32, how many of the n are not padding.

    Returns:
      int32 `[2 n]`, positions in 0 .. n - 1 and then padding, and an int32.
    """
    size = anomalous.shape[0]
    valid = jnp.arange(size) < count
    key_others, key_anomalies = jax.random.split(key)
    anomalies = jnp.sum(valid & anomalous)
    others = jnp.sum(valid & ~anomalous)
    # Positions of the others in random order, then fill: as epoch_order, but of a part.
    bits = jax.random.bits(key_others, (size,), jnp.uint32)
    other_order = jnp.lexsort((bits, ~(valid & ~anomalous)))
    anomaly_places = jnp.argsort(~(valid & anomalous), stable=True)
    draws = jnp.arange(size)
    rounds, turns = draws // jnp.maximum(anomalies, 1), draws % jnp.maximum(anomalies, 1)
    bits = jax.random.bits(key_anomalies, (size,), jnp.uint32)
    anomaly_order = anomaly_places[turns[jnp.lexsort((bits, rounds))]]
    balanced = jnp.stack([other_order, anomaly_order], axis=1).reshape(-1)
    plain = jnp.pad(epoch_order(key, size, count), (0, size))
    both = (anomalies > 0) & (others > 0)
    order = jnp.where(both, balanced, plain).astype(jnp.int32)
    return order, jnp.where(both, 2 * others, count).astype(jnp.int32)


def order_of_epoch(key: Array, data: RunData, phase: PhaseConfig) -> tuple[Array, Array]:
    """Returns an epoch's order of a run's images, int32 `[steps * batch]` positions in its indices
    with the padding last, and how many of them the epoch takes."""
    size, batch_size = data.indices.shape[0], phase.batch_size
    if phase.objective.draws_balanced and data.labels is not None:
        order, count = balanced_order(key, data.labels < 0, data.count)
        size = order.shape[0]
    elif phase.whole_batches:
        order, count = batch_order(key, size, data.count, batch_size)
    else:
        order, count = epoch_order(key, size, data.count), data.count
    steps = -(-size // batch_size)
    return jnp.pad(order, (0, steps * batch_size - order.shape[0])), count
