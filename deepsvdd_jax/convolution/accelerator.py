"""Forms of convolution that are fast on an accelerator, each with few kernels under vmap.

XLA and cuDNN have no good kernel for the gradients of a convolution under vmap; products stay
batched products, forward and backward. `rule.py` chooses among the forms.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepsvdd_jax.convolution import rule
from deepsvdd_jax.convolution.channels import channel_sums, scale_channels
from deepsvdd_jax.convolution.geometry import (
    Padding,
    PooledMap,
    block_taps,
    of_gradient,
    output_shape,
    padded,
    pixel_taps,
    plain_convolution,
    side_by_side,
    upsample,
)
from deepsvdd_jax.convolution.pooling import first_maximum, max_pool
from deepsvdd_jax.convolution.rows import row_convolution, row_windows
from deepsvdd_jax.convolution.tiles import tile_corners

# Columns of a tile of outputs.
_TILE = 4
# A band matrix is a copy of the kernel, and its gradient is added up to that of the kernel: both in
# full, whatever the precision of the products that the band takes part in.
_EXACT = "highest"


def convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """See `convolution.convolve`."""
    form = _form_of(images, kernel, padding)
    if form == "grouped":
        return plain_convolution(padding, images, kernel)
    if form == "windows":
        return _window_product(padding, images, kernel)
    if form == "canonical":
        return _canonical_convolution(padding, images, kernel)
    return _whole_rows(images, kernel, padding)


def convolve_pool(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """See `convolution.convolve_pool`."""
    form = _form_of(images, kernel, padding)
    height, width = output_shape(images, kernel, padding)
    if form in ("rows", "tiles") and height % 2 == 0 and width % 2 == 0:
        tiled = form == "tiles" and width % _TILE == 0
        corners = (
            tile_corners(images, kernel, padding, _TILE, _EXACT)
            if tiled
            else _row_pairs(images, kernel, padding)
        )
        return _pool_corners(corners, height, width, kernel.shape[3])
    output = convolve(images, kernel, padding)
    scaled = functools.partial(scale_channels, max_pool(output))
    return PooledMap(scaled, *channel_sums(output), height * width)


def upsample_convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """See `convolution.upsample_convolve`."""
    height, width = output_shape(images, kernel, padding, upsampling=2)
    size, _, channels, features = kernel.shape
    form = rule.form_of(size, channels, features, width, upsampling=2)
    if form not in ("rows", "tiles") or height % 2 or width % 2:
        return convolve(upsample(images), kernel, padding)
    return _whole_rows(images, kernel, padding, upsampling=2)


def _form_of(images: Array, kernel: Array, padding: Padding) -> str:
    size, _, channels, features = kernel.shape
    width = max(images.shape[2], output_shape(images, kernel, padding)[1])
    return rule.form_of(size, channels, features, width)


# --- products -----------------------------------------------------------------------------------


def _whole_rows(images: Array, kernel: Array, padding: Padding, upsampling: int = 1) -> Array:
    height, width = output_shape(images, kernel, padding, upsampling)
    rows = row_convolution(images, kernel, padding, upsampling, _EXACT)
    return rows.reshape(images.shape[0], height, width, kernel.shape[3])


def _row_pairs(images: Array, kernel: Array, padding: Padding) -> Array:
    """Multiplies the pairs of rows under each pair of rows that come out with a band matrix.

    The columns of the matrix are ordered by place in the window of the pool, so that the maximum
    and the sums run over contiguous memory and no axis is swapped.

    Returns:
      `[batch height' / 2, 4, width' / 2 features]`: the corners of the windows, row by row.
    """
    batch, height, width, channels = images.shape
    size, _, _, features = kernel.shape
    rows, columns = output_shape(images, kernel, padding)
    down, before = block_taps(size, padding[0][0], 2, 1)
    across = pixel_taps(width, columns, size, padding[1][0])
    across = across.reshape(width, columns // 2, 2, size)
    band = jnp.einsum("hpat,xyqu,tucf->hpxcaqyf", down, across, kernel, precision=_EXACT)
    even = padded(images, ((0, height % 2), (0, 0)))
    pairs = even.reshape(batch, -1, 2 * width * channels)
    windows = row_windows(len(down), before, rows // 2, pairs)
    band = band.reshape(windows.shape[2], -1)
    product = windows.reshape(-1, windows.shape[2]) @ band
    return product.reshape(-1, 4, columns // 2 * features)


def _pool_corners(corners: Array, height: int, width: int, features: int) -> PooledMap:
    """Pools `[positions, 4, columns features]`, the corners of 2x2 windows."""
    pooled = first_maximum(corners, (1,)).reshape(-1, height // 2, width // 2, features)
    rows = corners.reshape(corners.shape[0], -1)
    total, of_squares = (
        values.sum(0).reshape(-1, features).sum(0) for values in (rows, jnp.square(rows))
    )
    scaled = functools.partial(scale_channels, pooled)
    return PooledMap(scaled, total, of_squares, height * width)


def _window_product(padding: Padding, images: Array, kernel: Array) -> Array:
    """Multiplies the windows `[batch positions, taps channels]` with the kernel."""
    size, across, channels, features = kernel.shape
    height, width = output_shape(images, kernel, padding)
    windows = side_by_side(padded(images, padding), (size, across), (height, width))
    output = windows.reshape(-1, size * across * channels) @ kernel.reshape(-1, features)
    return output.reshape(images.shape[0], height, width, features)


# --- the canonical convolution ------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _canonical_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    return plain_convolution(padding, images, kernel)


def _canonical_forward(
    padding: Padding, images: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return plain_convolution(padding, images, kernel), (images, kernel)


def _canonical_backward(
    padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    """The images' gradient is a convolution with the flipped kernel, in the form that has a fast
    kernel under vmap too; the kernel's is a product."""
    images, kernel = residuals
    flipped, full = of_gradient(kernel, padding)
    d_images = plain_convolution(full, gradient, flipped)
    size, _, channels, features = kernel.shape
    width = max(images.shape[2], gradient.shape[2])
    if rule.has_rows(size, channels, features, width):
        return d_images, _kernel_gradient_of_rows(padding, images, size, gradient)
    return d_images, _kernel_gradient_of_taps(padding, images, size, gradient)


_canonical_convolution.defvjp(_canonical_forward, _canonical_backward)


def _kernel_gradient_of_rows(padding: Padding, images: Array, size: int, gradient: Array) -> Array:
    """The gradient of the band matrix, added up to that of the kernel."""
    batch, _, width, channels = images.shape
    _, count, columns, features = gradient.shape
    windows = row_windows(size, padding[0][0], count, images.reshape(batch, -1, width * channels))
    flat = windows.reshape(-1, size * width * channels)
    band = lax.dot_general(flat, gradient.reshape(-1, columns * features), (((0,), (0,)), ((), ())))
    across = pixel_taps(width, columns, size, padding[1][0])
    band = band.reshape(size, width, channels, columns, features)
    return jnp.einsum("xyu,txcyf->tucf", across, band, precision=_EXACT)


def _kernel_gradient_of_taps(padding: Padding, images: Array, size: int, gradient: Array) -> Array:
    """One product for each tap: for layers whose band matrix would be too large."""
    wide = padded(images, padding)
    height, width = gradient.shape[1:3]
    taps = [
        jnp.einsum("bhwc,bhwf->cf", wide[:, i : i + height, j : j + width], gradient)
        for i in range(size)
        for j in range(size)
    ]
    return jnp.stack(taps).reshape(size, size, *taps[0].shape)
