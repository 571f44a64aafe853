"""Anomalies made from normal images, for whoever has no others: pure functions of a key.

Each returns the changed images and the mask of what was changed, bool `[n, height, width]`. They
work on the network's input: colours are drawn from an image's own range.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# Most shapes on an image.
_MOST_RECTANGLES = 4
_MOST_LINES = 2


class Defects(NamedTuple):
    """Images `[n, height, width, channels]` and what was changed, bool `[n, height, width]`."""

    images: Array
    regions: Array


def defects(kind: str, key: Array, images: Array) -> Defects:
    """Puts anomalies of a kind on every image.

    Args:
      kind: `confetti` (small rectangles), `cutpaste` (a patch of another image), `lines` (thin
        scratches), or `mix` (one of the three for each image).
      key: draws them.
      images: float32 `[n, height, width, channels]`.
    """
    if kind != "mix":
        return _KINDS[kind](key, images)
    key_kind, *keys = jax.random.split(key, 1 + len(_KINDS))
    made = [make(one, images) for make, one in zip(_KINDS.values(), keys, strict=True)]
    chosen = jax.random.randint(key_kind, (images.shape[0],), 0, len(made))
    rows = jnp.arange(images.shape[0])
    return Defects(
        jnp.stack([one.images for one in made])[chosen, rows],
        jnp.stack([one.regions for one in made])[chosen, rows],
    )


def confetti(key: Array, images: Array) -> Defects:
    """Puts one to four small rectangles on an image, of random position, size, rotation and colour,
    with blurred edges (FCDD's confetti noise). Each is about 0.5 to 1 % of the image or less."""
    return _shapes(key, images, _MOST_RECTANGLES, (0.04, 0.12), (0.04, 0.12))


def lines(key: Array, images: Array) -> Defects:
    """Puts one or two thin straight lines on an image, of random position, length, direction and
    colour, as scratches and cracks are."""
    return _shapes(key, images, _MOST_LINES, (0.2, 0.7), (0.008, 0.025))


def cutpaste(key: Array, images: Array) -> Defects:
    """Replaces a rectangle by the same-sized rectangle of another image, taken elsewhere (Li et al.
    2021, CutPaste, with a patch of another normal image)."""
    count, height, width, _ = images.shape
    key_size, key_to, key_from, key_other = jax.random.split(key, 4)
    sizes = jax.random.uniform(key_size, (2, count), minval=0.1, maxval=0.3)
    tall = jnp.maximum(jnp.round(sizes[0] * height), 2.0)
    wide = jnp.maximum(jnp.round(sizes[1] * width), 2.0)
    room = jnp.stack([height - tall, width - wide])
    top, left = jnp.floor(jax.random.uniform(key_to, (2, count)) * (room + 1.0))
    source = jnp.floor(jax.random.uniform(key_from, (2, count)) * (room + 1.0))
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    regions = in_rows[:, :, None] & in_columns[:, None, :]
    # Rolled, an image has its patch where it is to be pasted.
    from_rows = (rows + (source[0] - top)[:, None].astype(jnp.int32)) % height
    from_columns = (columns + (source[1] - left)[:, None].astype(jnp.int32)) % width
    # Every image but itself: an offset of 1 to n - 1 places.
    offset = jax.random.randint(key_other, (count,), 1, max(count, 2))
    others = images[(jnp.arange(count) + offset) % count]
    moved = jnp.take_along_axis(others, from_rows[:, :, None, None], axis=1)
    moved = jnp.take_along_axis(moved, from_columns[:, None, :, None], axis=2)
    return Defects(jnp.where(regions[..., None], moved, images), regions)


def _shapes(
    key: Array,
    images: Array,
    most: int,
    lengths: tuple[float, float],
    widths: tuple[float, float],
) -> Defects:
    """Puts one to `most` rotated rectangles on every image; sides are shares of its shorter."""
    count, height, width, channels = images.shape
    side = min(height, width)
    key_count, key_place, key_length, key_width, key_turn, key_colour = jax.random.split(key, 6)
    shape = (most, count)
    centers = jax.random.uniform(key_place, (2, *shape)) * jnp.array(
        [height - 1, width - 1], jnp.float32
    ).reshape(2, 1, 1)
    long = side * jax.random.uniform(key_length, shape, minval=lengths[0], maxval=lengths[1])
    thin = side * jax.random.uniform(key_width, shape, minval=widths[0], maxval=widths[1])
    turn = jax.random.uniform(key_turn, shape, maxval=jnp.pi)
    low = jnp.min(images, (1, 2), keepdims=True)
    high = jnp.max(images, (1, 2), keepdims=True)
    shades = jax.random.uniform(key_colour, (most, count, 1, 1, channels))
    wanted = jax.random.randint(key_count, (count,), 1, most + 1)

    def put(number: int, made: Defects) -> Defects:
        down = jnp.arange(height)[None, :, None] - centers[0, number][:, None, None]
        across = jnp.arange(width)[None, None, :] - centers[1, number][:, None, None]
        cosine, sine = (f(turn[number])[:, None, None] for f in (jnp.cos, jnp.sin))
        along, off = cosine * across + sine * down, cosine * down - sine * across
        # At least a pixel wide; the edge falls off over a pixel.
        half = jnp.maximum(jnp.stack([long[number], thin[number]]), 1.0)[:, :, None, None] / 2.0
        edge = jnp.minimum(half[0] - jnp.abs(along), half[1] - jnp.abs(off)) + 0.5
        there = (number < wanted)[:, None, None]
        cover = jnp.where(there, jnp.clip(edge, 0.0, 1.0), 0.0)
        colour = low + shades[number] * (high - low)
        mixed = made.images + cover[..., None] * (colour - made.images)
        return Defects(mixed, made.regions | (cover > 0.5))

    made = Defects(images, jnp.zeros((count, height, width), bool))
    for number in range(most):
        made = put(number, made)
    return made


_KINDS: dict[str, Callable[[Array, Array], Defects]] = {
    "confetti": confetti,
    "cutpaste": cutpaste,
    "lines": lines,
}
