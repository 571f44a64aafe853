"""Forms of convolution that are fast on a CPU.

Three facts about XLA's CPU backend shape this module; `docs/performance.md` has the measurements.
Inside a loop only a convolution in canonical form (NHWC, HWIO, NHWC, no dilation) is fast, and the
two gradients that JAX derives are not in that form. A vmapped convolution becomes a grouped one,
which is slow. And few output features leave most of the machine idle, so there the 2x2 window of
the pool that follows is computed as one output with four times the features.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepsvdd_jax.convolution.channels import channel_sums, scale_and_shift, scale_channels
from deepsvdd_jax.convolution.geometry import (
    Padding,
    PooledMap,
    Vector,
    block_taps,
    of_gradient,
    output_shape,
    padded,
    pixel_taps,
    plain_convolution,
    side_by_side,
)
from deepsvdd_jax.convolution.pooling import first_maximum, max_pool
from deepsvdd_jax.convolution.rows import row_convolution
from deepsvdd_jax.convolution.tiles import tile_corners

# A layer with at most this many input channels gathers its windows and multiplies once; above it
# the gathered windows cost more memory traffic than they save.
_MOST_GATHERED_CHANNELS = 4
# Below this many features the window of the pool is computed together; it costs (k + 1)^2 / k^2
# times the multiplications, so wide layers are better off without.
_FEWEST_PLAIN_FEATURES = 32
# Fewer features than this, or fewer channels, whose gradient then has as many features, and XLA's
# convolution is ten times slower; a product of whole rows multiplies a third of the width as much.
_FEWEST_FAST_FEATURES = 16
# From as many features on, a kernel's gradient is a product with gathered windows, two to three
# times as fast as the convolution; with half as many the two take as long.
_FEWEST_GATHERED_GRADIENTS = 32
# The windows of as many images are gathered at once as the caches of a core hold.
GATHERED_BYTES = 1 << 21
# Columns of outputs that are computed together where only maxima are wanted.
_TILE = 4


def convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """See `convolution.convolve`."""
    return _canonical_convolution(padding, images, kernel)


def convolve_pool(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """See `convolution.convolve_pool`."""
    channels, features = kernel.shape[2:]
    height, width = output_shape(images, kernel, padding)
    if height % 2 or width % 2:
        return _pool_plain(images, kernel, padding)
    if channels <= _MOST_GATHERED_CHANNELS:
        return _pool_gathered(images, kernel, padding)
    sides_even = images.shape[1] % 2 == 0 and images.shape[2] % 2 == 0
    # Blocks of a small image would be fewer than the folded kernel spans.
    large = min(images.shape[1:3]) >= 2 * kernel.shape[0]
    if features < _FEWEST_PLAIN_FEATURES and sides_even and large:
        return _pool_blocked(images, kernel, padding)
    return _pool_plain(images, kernel, padding)


def convolve_maximum(images: Array, kernel: Array, padding: Padding) -> Array:
    """See `convolution.convolve_maximum`."""
    height, width = output_shape(images, kernel, padding)
    tiled = height % 2 == 0 and width % _TILE == 0
    if tiled and kernel.shape[2] <= _MOST_GATHERED_CHANNELS:
        return maximum_tiled(images, kernel, padding)
    return convolve_pool(images, kernel, padding).scaled(None, None)


def upsample_convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """See `convolution.upsample_convolve`; the height and width that come out are even."""
    height, width = output_shape(images, kernel, padding, upsampling=2)
    channels, features = kernel.shape[2:]
    if min(channels, 4 * features) < _FEWEST_FAST_FEATURES:
        rows = row_convolution(images, kernel, padding, upsampling=2)
        return rows.reshape(images.shape[0], height, width, features)
    blocks = _block_convolution(images, kernel, padding, stored=1, upsampling=2)
    return _from_blocks(blocks)


# --- the canonical convolution and its gradients ------------------------------------------------


def _looped_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    if images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        return _dense_convolution(padding, images, kernel)
    # Under vmap a loop over canonical convolutions, not the grouped one that is slow on a CPU.
    looped = jax.custom_batching.sequential_vmap(functools.partial(plain_convolution, padding))
    return looped(images, kernel)


def _dense_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    """Multiplies flattened images with one matrix `[pixels channels, pixels' features]`.

    XLA has no fast kernel for an image that is smaller than the kernel, padding aside; nearly every
    pixel meets every output there, so the matrix wastes little.
    """
    batch, _, _, channels = images.shape
    rows, columns = output_shape(images, kernel, padding)
    matrix = jnp.einsum(
        "iot,jpu,tucf->ijcopf",
        pixel_taps(images.shape[1], rows, kernel.shape[0], padding[0][0]),
        pixel_taps(images.shape[2], columns, kernel.shape[1], padding[1][0]),
        kernel,
    )
    features = kernel.shape[3]
    flat = images.reshape(batch, -1) @ matrix.reshape(-1, rows * columns * features)
    return flat.reshape(batch, rows, columns, features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _canonical_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    return _looped_convolution(padding, images, kernel)


def _canonical_forward(
    padding: Padding, images: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _looped_convolution(padding, images, kernel), (images, kernel)


def _canonical_backward(
    padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = residuals
    flipped, full = of_gradient(kernel, padding)
    d_images = _looped_convolution(full, gradient, flipped)
    if kernel.shape[3] >= _FEWEST_GATHERED_GRADIENTS:
        return d_images, _gathered_kernel_gradient(padding, images, kernel.shape, gradient)
    # Channels act as the batch and the batch as the channels: the sum runs over images and pixels.
    d_kernel = _looped_convolution(
        padding, images.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
    )
    return d_images, d_kernel.transpose(1, 2, 0, 3)


def _gathered_kernel_gradient(
    padding: Padding, images: Array, shape: tuple[int, ...], gradient: Array
) -> Array:
    """Multiplies gradients with the windows that they belong to, a few images at a time."""
    down, across, channels, features = shape
    batch, height, width, _ = gradient.shape
    window_bytes = 4 * height * width * down * across * channels
    most = max(1, GATHERED_BYTES // window_bytes)
    size = max(count for count in range(1, batch + 1) if batch % count == 0 and count <= most)
    parts = [jnp.reshape(part, (-1, size, *part.shape[1:])) for part in (images, gradient)]

    def add_part(index: Array, total: Array) -> Array:
        some_images, some_gradients = (
            lax.dynamic_index_in_dim(part, index, keepdims=False) for part in parts
        )
        windows = side_by_side(padded(some_images, padding), (down, across), (height, width))
        # The sum runs over the first axis of both; the smaller side comes first.
        both = some_gradients.reshape(-1, features), windows.reshape(-1, windows.shape[3])
        return total + lax.dot_general(*both, (((0,), (0,)), ((), ())))

    nothing = jnp.zeros((features, down * across * channels), images.dtype)
    total = lax.fori_loop(0, batch // size, add_part, nothing)
    return total.T.reshape(shape)


_canonical_convolution.defvjp(_canonical_forward, _canonical_backward)


# --- convolution of blocks of pixels ------------------------------------------------------------


def _block_convolution(
    blocks: Array, kernel: Array, padding: Padding, *, stored: int, upsampling: int
) -> Array:
    """Convolves `[batch, h, w, stored^2 channels]` to `[batch, h', w', 4 features]`.

    Blocks hold their pixels row by row, channels or features innermost. An output block has 2x2
    pixels: `stored * upsampling` is 2.
    """
    size, _, channels, features = kernel.shape
    taps_down, before_down = block_taps(size, padding[0][0], stored, upsampling)
    taps_across, before_across = block_taps(size, padding[1][0], stored, upsampling)
    folded = jnp.einsum("ipat,jqbu,tucf->ijpqcabf", taps_down, taps_across, kernel)
    offsets = (taps_down.shape[0], taps_across.shape[0])
    folded = folded.reshape(*offsets, stored**2 * channels, 4 * features)

    def block_padding(axis: int, before: int) -> tuple[int, int]:
        pixels = 2 * blocks.shape[axis + 1] + sum(padding[axis]) - size + 1
        return before, pixels // 2 + offsets[axis] - 1 - before - blocks.shape[axis + 1]

    pads = (block_padding(0, before_down), block_padding(1, before_across))
    return _canonical_convolution(pads, blocks, folded)


def _to_blocks(images: Array) -> Array:
    """Gathers every 2x2 pixels: `[batch, height / 2, width / 2, 4 channels]`."""
    batch, height, width, channels = images.shape
    windows = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, -1)


def _from_blocks(blocks: Array) -> Array:
    """Inverse of `_to_blocks`."""
    batch, height, width, depth = blocks.shape
    windows = blocks.reshape(batch, height, width, 2, 2, depth // 4)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)


# --- forms of convolution and pool --------------------------------------------------------------


def _pool_plain(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    output = convolve(images, kernel, padding)
    scaled = functools.partial(scale_channels, max_pool(output))
    return PooledMap(scaled, *channel_sums(output), output.shape[1] * output.shape[2])


def _pool_blocked(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    output = _block_convolution(_to_blocks(images), kernel, padding, stored=2, upsampling=1)
    batch, height, width, depth = output.shape
    flat = output.reshape(-1, depth)
    windows = output.reshape(batch, height, width, 4, depth // 4)
    pooled = first_maximum(windows, (3,))
    return PooledMap(
        functools.partial(scale_channels, pooled),
        flat.sum(0).reshape(4, -1).sum(0),
        jnp.square(flat).sum(0).reshape(4, -1).sum(0),
        4 * height * width,
    )


def _pool_gathered(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """One product of the folded kernel `[4 features, taps]` with all windows `[taps, positions]`.

    Positions are innermost, so that sums, maxima and their gradients run over contiguous memory.
    """
    size, _, channels, features = kernel.shape
    height, width = output_shape(images, kernel, padding)
    taps = np.stack([np.eye(size + 1, size, -shift, dtype=np.float32) for shift in (0, 1)], 1)
    folded = jnp.einsum("iat,jbu,tucf->abfcij", taps, taps, kernel).reshape(4 * features, -1)
    output = (folded @ _gather_windows(images, size, padding)).reshape(4, features, -1)
    pooled = first_maximum(output, (0,))

    def scaled(scale: Vector, offset: Vector) -> Array:
        columns = (None if vector is None else vector[:, None] for vector in (scale, offset))
        # A product with the identity transposes exactly and, unlike a transpose, is not fused into
        # the loops around it, which would make them jump through memory.
        swapped = lax.dot_general(
            scale_and_shift(pooled, *columns),
            jnp.eye(features, dtype=pooled.dtype),
            (((0,), (0,)), ((), ())),
            precision="highest",
        )
        return swapped.reshape(-1, height // 2, width // 2, features)

    return PooledMap(scaled, output.sum(2).sum(0), jnp.square(output).sum(2).sum(0), height * width)


def _gather_windows(images: Array, size: int, padding: Padding) -> Array:
    """Returns the (size + 1)^2 pixels under each 2x2 output block, `[channels taps, positions]`."""
    batch, height, width, channels = images.shape
    rows = height + sum(padding[0]) - size + 1
    columns = width + sum(padding[1]) - size + 1
    (top, bottom), (left, right) = padding
    extra = (size - 1) % 2  # the planes below need an even number of rows and columns
    padded = jnp.pad(images, ((0, 0), (top, bottom + extra), (left, right + extra), (0, 0)))
    planes = padded.reshape(
        batch, padded.shape[1] // 2, 2, padded.shape[2] // 2, 2, channels
    ).transpose(5, 2, 4, 0, 1, 3)
    windows = [
        planes[:, i % 2, j % 2, :, i // 2 : i // 2 + rows // 2, j // 2 : j // 2 + columns // 2]
        for i in range(size + 1)
        for j in range(size + 1)
    ]
    return jnp.stack(windows, 1).reshape(channels * (size + 1) ** 2, -1)


def maximum_tiled(images: Array, kernel: Array, padding: Padding) -> Array:
    """The maximum of four contiguous parts of a tile's row.

    What comes out lies as the next layer wants it; a third more multiplications than in
    `_pool_gathered` cost less than the swap of axes there. With gradients it is the other way.
    """
    height, width = output_shape(images, kernel, padding)
    corners = tile_corners(images, kernel, padding, _TILE)
    return first_maximum(corners, (1,)).reshape(-1, height // 2, width // 2, kernel.shape[3])
