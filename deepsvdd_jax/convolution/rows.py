"""Whole rows of images times a band matrix that is made from the kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepsvdd_jax.convolution.geometry import Padding, block_taps, output_shape, pixel_taps


def row_convolution(
    images: Array,
    kernel: Array,
    padding: Padding,
    upsampling: int = 1,
    precision: str | None = None,
) -> Array:
    """Multiplies rows with a band matrix `[taps, width channels, upsampling width' features]`.

    Rows come and go as they lie in memory, no axis is swapped, and the product has as many columns
    as the machine likes, however few features there are.

    Args:
      images, kernel, padding: as of `convolution.convolve`.
      upsampling: how often every pixel is repeated first, in both directions.
      precision: of what makes the matrix.

    Returns:
      `[batch, height' / upsampling, upsampling width' features]`.
    """
    batch, height, width, channels = images.shape
    size, _, _, features = kernel.shape
    rows, columns = output_shape(images, kernel, padding, upsampling)
    down, before = block_taps(size, padding[0][0], 1, upsampling)
    across = pixel_taps(width, columns, size, padding[1][0], upsampling)
    band = jnp.einsum("hat,xyu,tucf->hxcayf", down[:, 0], across, kernel, precision=precision)
    band = band.reshape(-1, width * channels, upsampling * columns * features)
    return _row_product(images.reshape(batch, height, -1), band, before, rows // upsampling)


def _row_product(rows: Array, band: Array, before: int, count: int) -> Array:
    """Returns `sum_i rows[:, o + i - before] @ band[i]` for all o < count, `[batch, count, right]`.

    The narrower side is copied: either the rows that an output needs are put side by side, or the
    products that an output adds up. They are each other's gradient.
    """
    taps, left, right = band.shape
    batch, height, _ = rows.shape
    if left <= right:
        windows = row_windows(taps, before, count, rows)
        product = windows.reshape(-1, taps * left) @ band.reshape(-1, right)
        return product.reshape(batch, count, right)
    reversed_band = band[::-1].transpose(1, 0, 2).reshape(left, -1)
    products = (rows.reshape(-1, left) @ reversed_band).reshape(batch, height, -1)
    return _add_windows(taps, taps - 1 - before, count, products)


def row_windows(taps: int, before: int, count: int, rows: Array) -> Array:
    """Puts `taps` neighbouring rows side by side: `[batch, count, taps length]`, the first window
    starting `before` rows above the image, with zeros outside."""
    after = count + taps - 1 - before - rows.shape[1]
    padded = lax.pad(rows, np.zeros((), rows.dtype), ((0, 0, 0), (before, after, 0), (0, 0, 0)))
    return jnp.concatenate([padded[:, tap : tap + count] for tap in range(taps)], 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _add_windows(taps: int, before: int, count: int, windows: Array) -> Array:
    """The transpose of `row_windows`, from `[batch, height, taps length]`; what XLA makes of the
    gradient that JAX derives takes four times as long as putting rows side by side again."""
    batch, height, wide = windows.shape
    rows = jax.ShapeDtypeStruct((batch, count, wide // taps), windows.dtype)
    put_side_by_side = functools.partial(row_windows, taps, before, height)
    (added,) = jax.linear_transpose(put_side_by_side, rows)(windows)
    return added


def _add_windows_forward(taps: int, before: int, count: int, windows: Array) -> tuple[Array, int]:
    return _add_windows(taps, before, count, windows), windows.shape[1]


def _add_windows_backward(
    taps: int, before: int, count: int, height: int, gradient: Array
) -> tuple[Array]:
    return (row_windows(taps, before, height, gradient),)


_add_windows.defvjp(_add_windows_forward, _add_windows_backward)
