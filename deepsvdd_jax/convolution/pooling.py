"""The maximum of 2x2 windows, with a gradient for the first of equal values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def max_pool(images: Array) -> Array:
    """Takes the maximum of every 2x2 window, leaving out an odd last row or column."""
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    windows = even.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return first_maximum(windows, (2, 4))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def first_maximum(windows: Array, axes: tuple[int, ...]) -> Array:
    """Maximum over `axes`; the gradient goes to the first of equal values only.

    JAX's own gradient of a maximum splits it between equal values and takes several passes.
    """
    return functools.reduce(jnp.maximum, _window_slices(windows, axes))


def _window_slices(windows: Array, axes: tuple[int, ...]) -> list[Array]:
    slices = [windows]
    for axis in sorted(axes, reverse=True):
        slices = [
            lax.index_in_dim(part, index, axis, keepdims=False)
            for index in range(windows.shape[axis])
            for part in slices
        ]
    return slices


def _first_maximum_forward(windows: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    slices = _window_slices(windows, axes)
    maximum = functools.reduce(jnp.maximum, slices)
    # By order and not by equality with the maximum: a compiler that computes the values twice may
    # round them differently, and then none is equal to the maximum.
    best, winner = slices[0], jnp.zeros(maximum.shape, maximum.dtype)
    for index, part in enumerate(slices[1:], 1):
        winner = jnp.where(part > best, jnp.asarray(index, winner.dtype), winner)
        best = jnp.maximum(best, part)
    return maximum, winner


def _first_maximum_backward(axes: tuple[int, ...], winner: Array, gradient: Array) -> tuple[Array]:
    sizes = [2] * len(axes) if len(axes) > 1 else [4]
    shape = [1] * (winner.ndim + len(axes))
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    place = np.arange(4, dtype=winner.dtype).reshape(shape)
    wins = jnp.expand_dims(winner, axes) == place
    return (jnp.where(wins, jnp.expand_dims(gradient, axes), jnp.zeros((), gradient.dtype)),)


first_maximum.defvjp(_first_maximum_forward, _first_maximum_backward)
