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
    padding = jnp.arange(size) >= count
    bits = jnp.where(padding, jnp.uint32(0xFFFFFFFF), bits)
    return jnp.argsort(bits, stable=True).astype(jnp.int32)


def batch_order(key: Array, size: int, count: Array, batch_size: int) -> tuple[Array, Array]:
    """Returns an order of whole fixed batches and how many images they hold (Theano code)."""
    batches = -(-size // batch_size)
    whole = count // batch_size
    order = epoch_order(key, batches, whole)
    places = order[:, None] * batch_size + jnp.arange(batch_size, dtype=jnp.int32)[None]
    return jnp.minimum(places.reshape(-1), size - 1), whole * batch_size


def order_of_epoch(key: Array, run: RunData, phase: PhaseConfig) -> tuple[Array, Array]:
    """Returns an epoch's order of a run's images, int32 `[steps * batch]` places in its indices
    with the padding last, and how many of them the epoch takes."""
    size, batch_size = run.indices.shape[0], phase.batch_size
    if phase.whole_batches:
        order, count = batch_order(key, size, run.count, batch_size)
    else:
        order, count = epoch_order(key, size, run.count), run.count
    steps = -(-size // batch_size)
    return jnp.pad(order, (0, steps * batch_size - order.shape[0])), count
