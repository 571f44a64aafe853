"""Sums over channels and scaling by channels."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepsvdd_jax.convolution.geometry import Vector
from deepsvdd_jax.convolution.rule import on_cpu


def channel_sums(images: Array) -> tuple[Array, Array]:
    """Returns the sum and the sum of squares of every channel, two `[channels]`."""
    # Rows of all columns and channels are long enough to be added up as vectors.
    width, channels = images.shape[2:]
    rows = images.reshape(-1, width * channels)
    total, of_squares = (
        _sum_of_columns(values.sum(0), channels) for values in (rows, jnp.square(rows))
    )
    return total, of_squares


def _sum_of_columns(row: Array, channels: int) -> Array:
    """The transpose of `_every_column`, and written so that its gradient is that."""
    if not on_cpu():
        return row.reshape(-1, channels).sum(0)
    columns = np.tile(np.eye(channels, dtype=np.float32), (row.shape[0] // channels, 1))
    return jnp.matmul(row, columns, precision="highest")


def scale_channels(images: Array, scale: Vector, offset: Vector) -> Array:
    """Returns `images * scale + offset`, each `[channels]` or None."""
    width, channels = images.shape[2:]
    # As above: rows are worked on as vectors, a few channels are not.
    rows = images.reshape(-1, width * channels)
    wide_scale, wide_offset = (
        None if vector is None else _every_column(vector, width)[None] for vector in (scale, offset)
    )
    return scale_and_shift(rows, wide_scale, wide_offset).reshape(images.shape)


def scale_and_shift(values: Array, scale: Vector, offset: Vector) -> Array:
    values = values if scale is None else values * scale
    return values if offset is None else values + offset


def _every_column(vector: Array, width: int) -> Array:
    """Repeats `[channels]` for every column of a row: `[width channels]`.

    A product with a matrix of 0 and 1 keeps XLA from repeating inside the loops over the rows,
    where every element would divide its index.
    """
    if not on_cpu():
        return jnp.tile(vector, width)
    columns = np.tile(np.eye(vector.shape[0], dtype=np.float32), width)
    return jnp.matmul(vector, columns, precision="highest")
