"""Anomalies made from normal images, where no others are known: pure functions of a key.

Each returns the changed images and the mask of changed pixels, bool `[n, height, width]`. They work
on the network's input: colours are drawn from an image's own range. Small defects suit maps and
surfaces; changes of the whole image suit photos of things, whose parts and position a network then
has to know.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import SYNTHETIC_MIXTURES

# Most shapes on an image.
_MOST_RECTANGLES = 4
_MOST_LINES = 2
_MOST_BLOBS = 3

# Straight pieces of a crack, and how far one turns from the last at most, in radians.
_CRACK_PIECES = 8
_CRACK_TURN = 0.7

# A blob's or crack's shade is as many deviations of its image off the mean, and covers so much.
_CONTRASTS = (1.0, 4.0)
_OPACITIES = (0.4, 1.0)


class Defects(NamedTuple):
    """Images `[n, height, width, channels]` and the mask of changed pixels, bool `[n, height,
    width]`."""

    images: Array
    regions: Array


def defects(kind: str, key: Array, images: Array) -> Defects:
    """Puts anomalies of a kind on every image.

    Args:
      kind: `confetti` (small rectangles), `cutpaste` (a patch of another image), `lines` (thin
        scratches), `mix` (one of these three for each image), `blobs` (soft spots), `cracks`
        (thin and crooked), `surface` (one of these five for each image); or of the whole image
        `rotate` (by right angles), `shuffle` (its quarters change places), `recolor`, `whole`
        (one of these three for each image).
      key: draws them.
      images: float32 `[n, height, width, channels]`.
    """
    if kind not in SYNTHETIC_MIXTURES:
        return _KINDS[kind](key, images)
    kinds = SYNTHETIC_MIXTURES[kind]
    key_kind, *keys = jax.random.split(key, 1 + len(kinds))
    made = [_KINDS[name](one, images) for name, one in zip(kinds, keys, strict=True)]
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
    # Rolling an image moves its patch to the position where it is pasted.
    from_rows = (rows + (source[0] - top)[:, None].astype(jnp.int32)) % height
    from_columns = (columns + (source[1] - left)[:, None].astype(jnp.int32)) % width
    # Every image but itself: an offset of 1 to n - 1 places.
    offset = jax.random.randint(key_other, (count,), 1, max(count, 2))
    others = images[(jnp.arange(count) + offset) % count]
    moved = jnp.take_along_axis(others, from_rows[:, :, None, None], axis=1)
    moved = jnp.take_along_axis(moved, from_columns[:, None, :, None], axis=2)
    return Defects(jnp.where(regions[..., None], moved, images), regions)


def blobs(key: Array, images: Array) -> Defects:
    """Puts one to three spots on an image, darker or lighter than its mean, with uneven outlines
    and soft edges, as holes, stains and chips are; some lie at a border and are cut by it."""
    count, height, width, _ = images.shape
    side = min(height, width)
    key_count, key_place, key_axes, key_turn, key_bumps, key_shade = jax.random.split(key, 6)
    shape = (_MOST_BLOBS, count, 1, 1)
    reach = jax.random.uniform(key_place, (2, *shape), minval=-0.15, maxval=1.15)
    centers = jnp.clip(reach, 0.0, 1.0) * jnp.array([height - 1, width - 1]).reshape(2, 1, 1, 1, 1)
    axes = jax.random.uniform(key_axes, (2, *shape), minval=0.02, maxval=0.1) * side
    axes = jnp.maximum(axes, 1.5)
    turn = jax.random.uniform(key_turn, shape, maxval=jnp.pi)
    # The outline's radius has waves of two to four periods, each up to a fifth of it.
    waves = jnp.arange(2, 5).reshape(3, 1, 1, 1, 1)
    sizes, phases = jax.random.uniform(key_bumps, (2, 3, *shape))
    wanted = jax.random.randint(key_count, (count,), 1, _MOST_BLOBS + 1)
    down = jnp.arange(height)[None, None, :, None] - centers[0]
    across = jnp.arange(width)[None, None, None, :] - centers[1]
    cosine, sine = jnp.cos(turn), jnp.sin(turn)
    along, off = (
        (cosine * across + sine * down) / axes[0],
        (cosine * down - sine * across) / axes[1],
    )
    angles = jnp.arctan2(off, along)
    bumps = 0.2 * sizes * jnp.sin(waves * angles[None] + 2.0 * jnp.pi * phases)
    inside = 1.0 + jnp.sum(bumps, axis=0) - jnp.hypot(along, off)
    cover = jnp.clip(2.0 * inside, 0.0, 1.0)
    there = jnp.arange(_MOST_BLOBS)[:, None] < wanted[None]
    return _shaded(key_shade, images, jnp.max(cover * there[:, :, None, None], axis=0))


def cracks(key: Array, images: Array) -> Defects:
    """Puts a thin crooked line on an image, darker or lighter than its mean."""
    count, height, width, _ = images.shape
    side = min(height, width)
    key_place, key_turn, key_length, key_width, key_shade = jax.random.split(key, 5)
    sides = jnp.array([height - 1, width - 1]).reshape(2, 1)
    begin = jax.random.uniform(key_place, (2, count)) * sides
    turns = jax.random.uniform(key_turn, (_CRACK_PIECES, count), minval=-1.0)
    scale = jnp.full((_CRACK_PIECES, 1), _CRACK_TURN).at[0].set(jnp.pi)
    directions = jnp.cumsum(turns * scale, axis=0)
    length = side * jax.random.uniform(key_length, (count,), minval=0.01, maxval=0.06)
    half = side * jax.random.uniform(key_width, (count,), minval=0.002, maxval=0.01)
    half = jnp.maximum(half, 0.5)[:, None, None]
    rows = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    columns = jnp.arange(width, dtype=jnp.float32)[None, None, :]

    def add(carry: tuple[Array, Array], direction: Array) -> tuple[tuple[Array, Array], None]:
        start, distance = carry
        step = length[None] * jnp.stack([jnp.sin(direction), jnp.cos(direction)])
        (row, column), (down, across) = (part[:, :, None, None] for part in (start, step))
        share = ((rows - row) * down + (columns - column) * across) / jnp.square(
            length[:, None, None]
        )
        share = jnp.clip(share, 0.0, 1.0)
        from_piece = jnp.hypot(rows - row - share * down, columns - column - share * across)
        return (start + step, jnp.minimum(distance, from_piece)), None

    nowhere = jnp.full((count, height, width), jnp.inf, jnp.float32)
    (_, distance), _ = jax.lax.scan(add, (begin, nowhere), directions)
    return _shaded(key_shade, images, jnp.clip(half + 0.5 - distance, 0.0, 1.0))


def _shaded(key: Array, images: Array, cover: Array) -> Defects:
    """Blends an image with a shade off its own mean, within its own range, by `cover` `[n, height,
    width]` in [0, 1] times an opacity."""
    key_contrast, key_sign, key_opacity = jax.random.split(key, 3)
    shape = (images.shape[0], 1, 1, 1)
    contrast = jax.random.uniform(key_contrast, shape, minval=_CONTRASTS[0], maxval=_CONTRASTS[1])
    sign = jnp.where(jax.random.bernoulli(key_sign, 0.5, shape), 1.0, -1.0)
    opacity = jax.random.uniform(key_opacity, shape, minval=_OPACITIES[0], maxval=_OPACITIES[1])
    axes = (1, 2)
    low, high = (f(images, axes, keepdims=True) for f in (jnp.min, jnp.max))
    mean, deviation = (f(images, axes, keepdims=True) for f in (jnp.mean, jnp.std))
    shade = jnp.clip(mean + sign * contrast * deviation, low, high)
    mixed = images + opacity * cover[..., None] * (shade - images)
    return Defects(mixed, cover > 0.0)


def rotate(key: Array, images: Array) -> Defects:
    """Turns a square image by 90, 180 or 270 degrees, for things that have an upright position
    (Golan and El-Yaniv 2018 have a network tell such images apart; here each is an anomaly)."""
    count, height, width, _ = images.shape
    turned = jnp.stack([jnp.rot90(images, turns, axes=(1, 2)) for turns in (1, 2, 3)])
    chosen = jax.random.randint(key, (count,), 0, 3)
    return Defects(turned[chosen, jnp.arange(count)], jnp.ones((count, height, width), bool))


def shuffle(key: Array, images: Array) -> Defects:
    """Exchanges the quarters of an image crosswise; the same change for every image and key."""
    del key
    count, height, width, _ = images.shape
    moved = jnp.roll(images, (height // 2, width // 2), axis=(1, 2))
    return Defects(moved, jnp.ones((count, height, width), bool))


def recolor(key: Array, images: Array) -> Defects:
    """Gives an image other colours: its channels change places in turn, or light and dark do within
    its own range, which is all that can be done to a gray image."""
    count, height, width, channels = images.shape
    low = jnp.min(images, (1, 2, 3), keepdims=True)
    high = jnp.max(images, (1, 2, 3), keepdims=True)
    moved = [jnp.roll(images, places, axis=3) for places in range(1, channels)]
    changed = jnp.stack([*moved, low + high - images])
    chosen = jax.random.randint(key, (count,), 0, len(changed))
    return Defects(changed[chosen, jnp.arange(count)], jnp.ones((count, height, width), bool))


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
    "blobs": blobs,
    "cracks": cracks,
    "rotate": rotate,
    "shuffle": shuffle,
    "recolor": recolor,
}
