"""Tiles of outputs, two rows by a few columns, as products of the windows under them."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.convolution.geometry import (
    Padding,
    block_taps,
    output_shape,
    padded,
    side_by_side,
)


def tile_corners(
    images: Array, kernel: Array, padding: Padding, tile: int, precision: str | None = None
) -> Array:
    """One product of the windows under two rows and a few columns of outputs, `[tiles, taps]`, with
    the kernel folded to `[taps, 2 tile features]`.

    Args:
      images, kernel, padding: as of `convolution.convolve_pool`; the height that comes out is even.
      tile: columns of a tile, even, a divisor of the width that comes out.
      precision: of what folds the kernel.

    Returns:
      `[tiles, 4, tile / 2 * features]`: the corners of the 2x2 windows, row by row.
    """
    size, _, _, features = kernel.shape
    height, width = output_shape(images, kernel, padding)
    tiles = (height // 2, width // tile)
    down, _ = block_taps(size, 0, 2, 1)
    across, _ = block_taps(size, 0, tile, 1)
    # Left columns of the pool's windows first, so that each corner of them is in one place.
    across = across[:, :, [*range(0, tile, 2), *range(1, tile, 2)]]
    folded = jnp.einsum("ipat,jqbu,tucf->ijpqcabf", down, across, kernel, precision=precision)
    windows = _tile_windows(images, padding, tile, tiles, (len(down), len(across)))
    output = windows.reshape(-1, windows.shape[3]) @ folded.reshape(-1, 2 * tile * features)
    return output.reshape(-1, 4, tile // 2 * features)


def _tile_windows(
    images: Array,
    padding: Padding,
    tile: int,
    tiles: tuple[int, int],
    blocks: tuple[int, int],
) -> Array:
    """Puts the blocks of 2 x `tile` pixels that each tile of outputs reads side by side,
    `[batch, *tiles, pixels channels]`."""
    batch, height, width, channels = images.shape
    rows, columns = (count + block - 1 for count, block in zip(tiles, blocks, strict=True))
    (top, _), (left, _) = padding
    below, right = 2 * rows - height - top, tile * columns - width - left
    wide = padded(images, ((top, below), (left, right)))
    in_blocks = wide.reshape(batch, rows, 2, columns, tile * channels).transpose(0, 1, 3, 2, 4)
    return side_by_side(in_blocks.reshape(batch, rows, columns, -1), blocks, tiles)
