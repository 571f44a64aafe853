"""Shapes, padding and constant index arrays that the forms of convolution share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]

Vector = Array | None


class PooledMap(NamedTuple):
    """A convolution's output after a 2x2 max-pool, with the sums over all of it.

    Attributes:
      scaled: `(scale, offset) -> [batch, height // 2, width // 2, features]`, the pooled output
        times scale plus offset, each `[features]` or None. It is a function because the map keeps
        the memory layout of the convolution: it is scaled in that layout, and axes are swapped
        last.
      total: `[features]`, the sum of the convolution's output before pooling.
      total_of_squares: `[features]`, likewise of its squares.
      count: how many outputs an image adds to each sum (a static number).
    """

    scaled: Callable[[Vector, Vector], Array]
    total: Array
    total_of_squares: Array
    count: int  # type: ignore[assignment]  # hides tuple.count


def same_padding(size: int) -> Padding:
    """Returns the zeros around an image, `((top, bottom), (left, right))`, that keep its size."""
    return (((size - 1) // 2, size // 2),) * 2


def upsample(images: Array) -> Array:
    """Repeats every pixel 2x2 times: `[batch, 2 height, 2 width, channels]`."""
    batch, height, width, channels = images.shape
    repeated = jnp.broadcast_to(images[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return repeated.reshape(batch, 2 * height, 2 * width, channels)


def output_shape(
    images: Array, kernel: Array, padding: Padding, upsampling: int = 1
) -> tuple[int, int]:
    """Returns the height and width of a convolution's output."""
    height, width = (
        side * upsampling + sum(pads) - taps + 1
        for side, taps, pads in zip(images.shape[1:3], kernel.shape[:2], padding, strict=True)
    )
    return height, width


def of_gradient(kernel: Array, padding: Padding) -> tuple[Array, Padding]:
    """Returns the kernel and the padding of the convolution that maps the gradient of a
    convolution's output to that of its images. The kernel need not be square."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    down, across = kernel.shape[0] - 1, kernel.shape[1] - 1
    (top, bottom), (left, right) = padding
    return flipped, ((down - top, down - bottom), (across - left, across - right))


def padded(images: Array, padding: Padding) -> Array:
    """Puts zeros around images. Unlike jnp.pad this takes negative padding, as of a cropped or a
    folded kernel."""
    pads = ((0, 0), *padding, (0, 0))
    return lax.pad(images, np.zeros((), images.dtype), [(*pad, 0) for pad in pads])


def side_by_side(images: Array, neighbours: tuple[int, int], windows: tuple[int, int]) -> Array:
    """Puts the first `neighbours` pixels of each window side by side, `[batch, *windows, neighbours
    channels]`."""
    (down, across), (height, width) = neighbours, windows
    return jnp.concatenate(
        [
            images[:, row : row + height, column : column + width]
            for row in range(down)
            for column in range(across)
        ],
        3,
    )


def pixel_taps(size: int, outputs: int, taps: int, pad: int, upsampling: int = 1) -> np.ndarray:
    """Returns 0/1 `[pixel, output, tap]`: which pixel each tap of each output reads, every pixel
    standing `upsampling` times in the image that is convolved."""
    pixel, output, tap = np.ogrid[:size, :outputs, :taps]
    return ((output + tap - pad) // upsampling == pixel).astype(np.float32)


def block_taps(size: int, pad: int, stored: int, upsampling: int) -> tuple[np.ndarray, int]:
    """Says which stored pixel each tap of each output pixel of a block reads, in one dimension.

    Images are stored as blocks of `stored` pixels and repeated `upsampling` times; the output
    comes in blocks of `stored * upsampling` pixels, one for each stored block.

    Returns:
      0/1 array `[block offset, pixel in stored block, pixel in output block, tap]`, and how many
      blocks of padding come before the first.
    """
    produced = stored * upsampling
    reads = [
        (pixel, tap, *divmod((pixel + tap - pad) // upsampling, stored))
        for pixel in range(produced)
        for tap in range(size)
    ]
    first = min(block for _, _, block, _ in reads)
    last = max(block for _, _, block, _ in reads)
    taps = np.zeros((last - first + 1, stored, produced, size), np.float32)
    for pixel, tap, block, inside in reads:
        taps[block - first, inside, pixel, tap] = 1.0
    return taps, -first


def plain_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    """XLA's convolution in canonical form, with the gradients that JAX derives."""
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
