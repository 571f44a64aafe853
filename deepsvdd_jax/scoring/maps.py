"""Where in an image an anomaly is: maps of one value a pixel, higher = more anomalous.

Three sources: the low map of a fully convolutional network, enlarged to image size; the gradient of
any score with respect to the image; the drop of a score when a patch is replaced by the mean image.
A score here is a pure function `images [n, height, width, channels] -> [n]`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

Score = Callable[[Array], Array]

# Standard deviation of the Gaussian that enlarges a value, in sides of its receptive field.
_SPREAD = 0.25

# Standard deviation of the Gaussian that blurs a gradient, in the image's shorter side.
_BLUR = 1 / 32

# Side of an occluding patch, in the image's shorter side, and its steps, in its side.
_PATCH, _STEP = 1 / 8, 1 / 2

# Occluded images that are scored at once.
_OCCLUDED_AT_ONCE = 64

# The Gaussian ends where it is far below the rounding of float32.
_REACH = 6.0


class Grid(NamedTuple):
    """The receptive fields of the values of a low map, in pixels of the image, alike in both
    directions.

    Attributes:
      first: center of the receptive field of the first value; 0 is the center of the first pixel.
      stride: from one center to the next.
      receptive_field: side of the square that a value depends on.
    """

    first: float
    stride: int
    receptive_field: int


def enlarge(maps: Array, grid: Grid, sides: tuple[int, int]) -> Array:
    """Enlarges low maps to image size, `[n, height, width]` (Liznerski et al., ICLR 2021).

    Every value is multiplied by a Gaussian as wide as its receptive field, at the center of that,
    and overlapping Gaussians are added: a transposed convolution whose stride is the network's.
    Sigma is a quarter of the receptive field. A Gaussian's values have the sum stride^2, so that
    far from the borders a constant map keeps its value; it falls towards them, because no receptive
    field lies beyond.

    Args:
      maps: `[n, rows, columns]`.
      grid: of the network.
      sides: (height, width) of the images.
    """
    down, across = (
        _enlarging(count, grid, side) for count, side in zip(maps.shape[1:], sides, strict=True)
    )
    return _separable(maps, down, across)


def _enlarging(count: int, grid: Grid, side: int) -> npt.NDArray[np.float32]:
    """Returns the transposed convolution in one direction as a matrix, `[side, count]`."""
    centers = grid.first + grid.stride * np.arange(count)
    distances = np.arange(side)[:, None] - centers
    sigma = _SPREAD * grid.receptive_field
    weights = np.exp(-(distances**2) / (2.0 * sigma**2))
    weights[np.abs(distances) > grid.receptive_field / 2] = 0.0
    # Of a kernel that no border cuts: all pixels within half a receptive field of a center.
    offsets = np.arange(-grid.receptive_field, grid.receptive_field + 1) - grid.first % 1.0
    inside = offsets[np.abs(offsets) <= grid.receptive_field / 2]
    total = np.exp(-(inside**2) / (2.0 * sigma**2)).sum()
    return np.asarray(weights * (grid.stride / total), np.float32)


def gradient_maps(score: Score, images: Array) -> Array:
    """Returns |d score / d pixel| summed over channels and blurred, `[n, height, width]`.

    Args:
      score: of images, each by itself.
      images: float32 `[n, height, width, channels]`.
    """
    gradients = jax.grad(lambda values: jnp.sum(score(values)))(images)
    maps = jnp.sum(jnp.abs(gradients), axis=3)
    return blur(maps, max(1.0, _BLUR * min(images.shape[1:3])))


def blur(maps: Array, sigma: float) -> Array:
    """Blurs maps `[n, height, width]` by a Gaussian; beyond a border is nothing, so that near it
    the mean is over the pixels that are there.

    Args:
      maps: `[n, height, width]`.
      sigma: standard deviation in pixels, above 0.
    """
    down, across = (_blurring(side, sigma) for side in maps.shape[1:])
    return _separable(maps, down, across)


def _blurring(side: int, sigma: float) -> npt.NDArray[np.float32]:
    places = np.arange(side)
    distances = places[:, None] - places
    weights = np.exp(-(distances**2) / (2.0 * sigma**2))
    weights[np.abs(distances) > _REACH * sigma] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _separable(
    maps: Array, down: npt.NDArray[np.float32], across: npt.NDArray[np.float32]
) -> Array:
    with jax.default_matmul_precision("highest"):
        return jnp.einsum("iu,nuv,jv->nij", down, maps, across)


def occlusion_maps(score: Score, images: Array, mean_image: Array) -> Array:
    """Returns the drop of the score when a patch is replaced by that of the mean image, for each
    pixel the mean over the patches that cover it, `[n, height, width]`.

    Positive where the image is more anomalous than the mean image would be there. Patches have an
    eighth of the shorter side and overlap by half.

    Args:
      score: of images, each by itself.
      images: float32 `[n, height, width, channels]`.
      mean_image: `[height, width, channels]`, of normal images.
    """
    height, width = images.shape[1:3]
    patch = max(2, round(_PATCH * min(height, width)))
    step = max(1, round(_STEP * patch))
    rows, columns = (covering_starts(side, patch, step) for side in (height, width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    covered = jnp.asarray(_covered(rows, height, patch) * _covered(columns, width, patch).T)

    def is_inside(corner: Array) -> Array:
        down, across = jnp.arange(height) - corner[0], jnp.arange(width) - corner[1]
        within = [(offset >= 0) & (offset < patch) for offset in (down, across)]
        return within[0][:, None] & within[1][None]

    def of_image(image: Array) -> Array:
        whole = score(image[None])[0]

        def loss(corner: Array) -> Array:
            occluded = jnp.where(is_inside(corner)[:, :, None], mean_image, image)
            return whole - score(occluded[None])[0]

        losses = jax.lax.map(loss, corners, batch_size=min(_OCCLUDED_AT_ONCE, len(corners)))

        def add(total: Array, found: tuple[Array, Array]) -> tuple[Array, None]:
            corner, value = found
            return total + jnp.where(is_inside(corner), value, 0.0), None

        nothing = jnp.zeros((height, width), images.dtype)
        return jax.lax.scan(add, nothing, (jnp.asarray(corners), losses))[0] / covered

    return jax.lax.map(of_image, images)


def covering_starts(side: int, length: int, step: int) -> npt.NDArray[np.int64]:
    """Returns the starts of pieces of a length that cover a side, `step` apart, the last one at the
    end.

    Args:
      side: at least `length`.
      length: of a piece.
      step: at most `length`.
    """
    starts = np.arange(0, max(side - length, 0), step)
    return np.append(starts, max(side - length, 0))


def _covered(starts: npt.NDArray[np.int64], side: int, patch: int) -> npt.NDArray[np.float32]:
    """Returns how many patches cover each position of a side, `[side, 1]`."""
    offsets = np.arange(side)[:, None] - starts
    return np.sum((offsets >= 0) & (offsets < patch), axis=1, keepdims=True).astype(np.float32)
