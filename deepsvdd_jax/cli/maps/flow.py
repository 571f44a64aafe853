"""Scores and maps images piece by piece: a piece is a whole image or a tile of one."""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli import model_images
from deepsvdd_jax.cli.maps.pictures import Pictures
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.pieces import Box
from deepsvdd_jax.io.models import Model

Pixels = npt.NDArray[Any]
Map = npt.NDArray[np.float32]

# Most pieces of one call, and most bytes of them; fewer are filled up to a number that the devices
# share evenly.
MOST_PIECES, _BYTES_AT_ONCE = 4096, 1 << 25
_FILLED_TO = 256

# A larger map of one image lies in a file while it is put together.
LARGEST_IN_MEMORY = 1 << 28


class Tiling(NamedTuple):
    """How images are cut: squares of `size` pixels that overlap by `overlap`."""

    size: int
    overlap: int


class Piece(NamedTuple):
    """A part of an image as the model takes it: float32 or uint8 `[height, width, channels]`."""

    name: str
    sides: tuple[int, int]
    box: Box
    pixels: Pixels
    is_last: bool


class Found(NamedTuple):
    """The score and the map of an image.

    Attributes:
      name: of the image.
      sides: its (height, width).
      score: of the image, of tiles the highest.
      pieces: how many there were.
      map: float32 `[height, width]`, the highest value where pieces overlap; None without maps.
    """

    name: str
    sides: tuple[int, int]
    score: float
    pieces: int
    map: Map | None


def check_tiling(tile: int | None, overlap: int | None, model: Model) -> Tiling | None:
    """Returns how images are cut, None where they are not.

    Raises:
      ConfigError: numbers that do not suit each other, or the model.
    """
    if tile is None:
        if overlap is not None:
            raise ConfigError("--overlap has no effect here: it is of --tile")
        return None
    if len(model.image_shape) != 3:
        raise ConfigError("--tile: the model was trained on a table; tiles are of images")
    overlap = 0 if overlap is None else overlap
    if overlap >= tile:
        raise ConfigError(f"overlap is {overlap}; it must be below the tile's {tile} pixels")
    height, width, _ = model.image_shape
    if model_images.wanted(model).size is None and (height, width) != (tile, tile):
        raise ConfigError(
            f"tile is {tile}, but the model was trained on images of {height}x{width} pixels that "
            "were not resized; give tiles of that size, or fit with --image_size"
        )
    return Tiling(tile, overlap)


def boxes_of(sides: tuple[int, int], tiling: Tiling | None) -> list[Box]:
    """Returns the boxes of an image's pieces, row by row: the whole image, or tiles, the last ones
    at its end."""
    from deepsvdd_jax.scoring.maps import covering_starts

    if tiling is None:
        return [Box(0, 0, *sides)]
    size = tiling.size
    rows, columns = (covering_starts(side, size, size - tiling.overlap) for side in sides)
    return [Box(int(row), int(column), size, size) for row in rows for column in columns]


def pieces_of(pictures: Pictures, model: Model, tiling: Tiling | None) -> Iterator[Piece]:
    """Yields the pieces of all images, an image's one after the other.

    Raises:
      DataError: an image that is smaller than a tile, or that the model cannot take.
    """
    first: tuple[str, bool] | None = None
    for picture in pictures.opened():
        if tiling is not None and min(picture.sides) < tiling.size:
            height, width = picture.sides
            raise DataError(
                f"{picture.name}: {height}x{width} pixels, smaller than a tile of {tiling.size}; "
                "give a smaller --tile"
            )
        boxes = boxes_of(picture.sides, tiling)
        for box in boxes:
            pixels = picture.cut(box)
            if first is None:
                first = picture.name, pixels.dtype != np.uint8
                if model_images.has_other_depth(model, pixels):
                    print(model_images.depth_warning(model, picture.name), file=sys.stderr)
            _check_depth(picture.name, pixels, first)
            taken = _as_trained(picture.name, pixels, model)
            yield Piece(picture.name, picture.sides, box, taken, box is boxes[-1])


def _check_depth(name: str, pixels: Pixels, first: tuple[str, bool]) -> None:
    other, deep = first
    if deep != (pixels.dtype != np.uint8):
        more, eight = (other, name) if deep else (name, other)
        raise DataError(
            f"{more}: more than 8 bits a pixel, but {eight} has 8; save all images alike"
        )


def _as_trained(name: str, pixels: Pixels, model: Model) -> Pixels:
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    size = model_images.wanted(model).size
    if size is not None:
        pixels = resize_image(pixels, size)
    taken: Pixels = model_images.as_trained(model, name, pixels[None])[0]
    return taken


def follow(
    pieces: Iterator[Piece],
    score: Callable[[Pixels], npt.NDArray[np.floating]] | None,
    mapped: Callable[[Pixels], Map] | None,
    fill: bool = False,
    scratch: Path | None = None,
) -> Iterator[Found]:
    """Scores and maps pieces, some at once, and yields the result of each image.

    Args:
      pieces: of `pieces_of`.
      score: of pieces `[n, height, width, channels]`; None gives 0.
      mapped: their maps `[n, height, width]`; None makes none.
      fill: fill up the last call, so that one program serves all.
      scratch: folder for the map of an image that is too large for memory.
    """
    highest, number, whole = -np.inf, 0, None
    for chunk, count in _chunks(pieces, fill):
        pixels = np.stack([piece.pixels for piece in chunk])
        scores = np.zeros(count) if score is None else score(pixels)[:count]
        found = [None] * count if mapped is None else mapped(pixels)[:count]
        for piece, value, values in zip(chunk, scores, found, strict=False):
            highest, number = max(highest, float(value)), number + 1
            if values is not None:
                whole = _with_piece(whole, piece, values, scratch)
            if piece.is_last:
                yield Found(piece.name, piece.sides, highest, number, whole)
                highest, number, whole = -np.inf, 0, None


def _chunks(pieces: Iterator[Piece], fill: bool) -> Iterator[tuple[list[Piece], int]]:
    """Yields the pieces of one call, and how many of them are not fill."""
    first = next(pieces, None)
    if first is None:
        return
    at_once = max(1, min(MOST_PIECES, _BYTES_AT_ONCE // (4 * first.pixels.size)))
    pieces = itertools.chain([first], pieces)
    while chunk := list(itertools.islice(pieces, at_once)):
        missing = max(0, min(at_once, _FILLED_TO) - len(chunk)) if fill else 0
        yield chunk + chunk[-1:] * missing, len(chunk)


def _with_piece(whole: Map | None, piece: Piece, values: Map, scratch: Path | None) -> Map:
    """Returns an image's map with the values of one more piece."""
    top, left, height, width = piece.box
    enlarged = resized(values, (height, width))
    if (height, width) == piece.sides:
        return enlarged
    if whole is None:
        whole = _empty_map(piece.sides, scratch)
    place = whole[top : top + height, left : left + width]
    np.maximum(place, enlarged, out=place)
    return whole


def resized(values: Map, sides: tuple[int, int]) -> Map:
    """Returns a map at the size of its image."""
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    return resize_image(values[:, :, None], sides)[:, :, 0].astype(np.float32)


def _empty_map(sides: tuple[int, int], scratch: Path | None) -> Map:
    if 4 * sides[0] * sides[1] <= LARGEST_IN_MEMORY:
        return np.full(sides, -np.inf, np.float32)
    with tempfile.TemporaryFile(dir=scratch) as file:
        # The mapping outlives the file.
        whole: Map = np.memmap(file, np.float32, "w+", shape=sides)
    for row in whole:
        row[...] = -np.inf
    return whole


def mean_piece(pieces: Iterator[Piece]) -> npt.NDArray[np.float32]:
    """Returns the mean of pieces as the model takes them, 8-bit values divided by 255."""
    total: Any = 0.0
    count = 0
    for piece in pieces:
        unit = 255.0 if piece.pixels.dtype == np.uint8 else 1.0
        total, count = total + piece.pixels.astype(np.float64) / unit, count + 1
    if not count:
        raise DataError("no normal image can be read")
    return np.asarray(total / count, np.float32)
