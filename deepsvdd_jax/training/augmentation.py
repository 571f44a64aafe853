"""Random changes of training images, in the compiled step: pure functions of a key.

They work on the network's input, whatever its scaling: colours are changed by fractions of an
image's own range.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import AUGMENTATIONS

# Share of the shorter side that an image is shifted by at most.
SHIFT = 0.125

# Brightness and contrast change by this share of an image's range at most.
JITTER = 0.2

# Standard deviation of the noise, in standard deviations of an image.
NOISE = 0.1


# The entries of AUGMENTATIONS that move pixels.
_MOVES = ("shift", "flip")


def augment(names: tuple[str, ...], key: Array, images: Array) -> Array:
    """Returns changed images, each of them drawn for itself.

    Args:
      names: of the changes, any of `AUGMENTATIONS`, made in that order.
      key: draws all of them.
      images: float32 `[n, height, width, channels]`.
    """
    keys = jax.random.split(key, len(AUGMENTATIONS))
    for name, key_change in zip(AUGMENTATIONS, keys, strict=True):
        if name in names:
            images = _CHANGES[name](key_change, images)
    return images


def move(names: tuple[str, ...], key: Array, regions: Array) -> Array:
    """Returns regions of images, bool `[n, height, width]`, moved as `augment` moves the images
    with the same names and key."""
    moves = tuple(name for name in names if name in _MOVES)
    return augment(moves, key, regions[..., None])[..., 0]


def shift(key: Array, images: Array) -> Array:
    """Shifts by an eighth of the shorter side at most, the edge pixels repeated."""
    count, height, width, _ = images.shape
    most = max(1, round(SHIFT * min(height, width)))
    offsets = jax.random.randint(key, (2, count, 1), -most, most + 1)
    rows = jnp.clip(jnp.arange(height)[None] + offsets[0], 0, height - 1)
    columns = jnp.clip(jnp.arange(width)[None] + offsets[1], 0, width - 1)
    moved = jnp.take_along_axis(images, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(moved, columns[:, None, :, None], axis=2)


def flip(key: Array, images: Array) -> Array:
    """Mirrors left and right with probability 1/2."""
    flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def jitter(key: Array, images: Array) -> Array:
    """Changes the brightness of every channel and the contrast of the image by a fifth at most."""
    key_brightness, key_contrast = jax.random.split(key)
    count, _, _, channels = images.shape
    axes = (1, 2, 3)
    span = jnp.max(images, axes, keepdims=True) - jnp.min(images, axes, keepdims=True)
    mean = jnp.mean(images, axes, keepdims=True)
    brightness = jax.random.uniform(
        key_brightness, (count, 1, 1, channels), minval=-JITTER, maxval=JITTER
    )
    contrast = jax.random.uniform(
        key_contrast, (count, 1, 1, 1), minval=1.0 - JITTER, maxval=1.0 + JITTER
    )
    return mean + contrast * (images - mean) + brightness * span


def noise(key: Array, images: Array) -> Array:
    """Adds Gaussian noise of a tenth of an image's standard deviation."""
    deviation = jnp.std(images, (1, 2, 3), keepdims=True)
    return images + NOISE * deviation * jax.random.normal(key, images.shape)


_CHANGES: dict[str, Callable[[Array, Array], Array]] = {
    "shift": shift,
    "flip": flip,
    "jitter": jitter,
    "noise": noise,
}
