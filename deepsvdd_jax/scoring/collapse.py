"""Measures whether a network maps every input to one point."""

import math

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.networks import Network
from deepsvdd_jax.training import TrainState


def collapse_ratio(state: TrainState, network: Network, count: int = 64) -> Array:
    """Returns the root mean squared distance between embeddings of uniform noise images and
    their mean, relative to ||c||. Near 0 every input is mapped to one point: a collapse."""
    embeddings = network.encode(state.params, state.statistics, uniform_noise(count, network))
    deviations = embeddings - embeddings.mean(0)[None]
    distance = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(deviations), 1)))
    return distance / jnp.maximum(jnp.linalg.norm(state.center), 1e-30)


def uniform_noise(count: int, network: Network) -> Array:
    """Returns images of uniform noise in [0, 1), always the same, float32 `[count, ...]`.

    The finaliser of MurmurHash3 (Appleby 2008) of a counter: the bits of `jax.random` take the
    compiler longer than the scoring around them.
    """
    shape = (count, *network.image_shape)
    bits = jnp.arange(1, math.prod(shape) + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return ((bits >> 8).astype(jnp.float32) * 2.0**-24).reshape(shape)
