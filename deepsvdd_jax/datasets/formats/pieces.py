"""Cuts pieces out of an image file, which may be larger than memory.

Pillow maps uncompressed gray files (PGM, BMP, TIFF) into memory and reads only the pieces; it holds
the whole image of any other file in memory while that is open.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError
from deepsvdd_jax.datasets.formats.archives import MAX_MEMBER_BYTES, read_file
from deepsvdd_jax.datasets.formats.images import (
    formats_of,
    holds_more,
    image_errors,
    is_deep_color_png,
    pixels_bounded,
)
from deepsvdd_jax.io import memory

if TYPE_CHECKING:
    from PIL import Image

# Smaller files are read whole: a mapping gains nothing.
MAPPED_FROM = 1 << 26

# Formats of which Pillow maps files that it opens by name.
_MAPPED_MODES = ("L", "P", "RGBX", "RGBA", "CMYK", "I;16", "I;16L", "I;16B")

_BYTES_PER_PIXEL = 8
_ORIENTATION = 0x0112


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class OpenImage(NamedTuple):
    """An open image file.

    Attributes:
      source: its name, for messages.
      sides: (height, width), upright.
      image: upright, of Pillow.
      channels: 1, 3, or None: see `images.decode_image`.
      megapixels: most of them in an image.
      has_more: whether the file holds more images than this one.
      is_cut: whether Pillow cut its depth.
    """

    source: str
    sides: tuple[int, int]
    image: Image.Image
    channels: int | None
    megapixels: int | None
    has_more: bool
    is_cut: bool

    def cut(self, box: Box | None = None) -> np.ndarray:
        """Returns the pixels of a box within the image, None of all of it, as `read_image` does.

        Raises:
          DataError: damaged, or pixels that are not finite.
        """
        from deepsvdd_jax.datasets.formats.pixels import pixels_of

        top, left, height, width = box or Box(0, 0, *self.sides)
        with image_errors(self.source), pixels_bounded(self.megapixels):
            part = self.image.crop((left, top, left + width, top + height))
            return pixels_of(part, self.channels)

    def reduced(self, sides: tuple[int, int]) -> np.ndarray:
        """Returns the image at a smaller size, for viewing; raises as `cut`."""
        from PIL import Image

        from deepsvdd_jax.datasets.formats.pixels import pixels_of

        deep = self.image.mode.startswith("I;")
        method = Image.Resampling.NEAREST if deep else Image.Resampling.BILINEAR
        with image_errors(self.source), pixels_bounded(self.megapixels):
            return pixels_of(self.image.resize((sides[1], sides[0]), method), self.channels)


@contextlib.contextmanager
def open_image(
    path: Path,
    channels: int | None = None,
    megapixels: int | None = None,
    mapped_from: int = MAPPED_FROM,
) -> Iterator[OpenImage]:
    """Opens one image file (touches files).

    Args:
      path: of the file.
      channels: 1, 3 or None, see `images.decode_image`.
      megapixels: most of them in an image, see there.
      mapped_from: bytes of a file from which on it is mapped, if it can be.

    Raises:
      DataError: no image, or one that takes more memory than is free.
    """
    from PIL import Image, ImageOps

    source, formats = str(path), formats_of(path.name)
    try:
        is_large = path.is_file() and path.stat().st_size >= mapped_from
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    data = b""
    if not is_large:
        data = read_file(path, max(MAX_MEMBER_BYTES, 4_000_000 * (megapixels or 0)))
    with contextlib.ExitStack() as stack:
        with image_errors(source), pixels_bounded(megapixels):
            opened = Image.open(path if is_large else io.BytesIO(data), formats=formats)
            image: Image.Image = stack.enter_context(opened)
            if not (is_large and _is_mapped(image)):
                _check_memory(image, source)
            image.load()
            # A file may say only after its pixels how the camera was held.
            is_turned = image.getexif().get(_ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose(image) if is_turned else image
            has_more = holds_more(image)
        yield OpenImage(
            source=source,
            sides=(upright.height, upright.width),
            image=upright,
            channels=channels,
            megapixels=megapixels,
            has_more=has_more,
            is_cut=is_deep_color_png(data[:32]),
        )


def _is_mapped(image: Image.Image) -> bool:
    """Returns whether Pillow maps a file that it opened by name."""
    tiles: list[Any] = getattr(image, "tile", [])
    if len(tiles) != 1 or tiles[0][0] != "raw" or image.mode not in _MAPPED_MODES:
        return False
    arguments = tiles[0][3]
    return (arguments if isinstance(arguments, str) else arguments[0]) == image.mode


def _check_memory(image: Image.Image, source: str) -> None:
    missing = memory.shortage(image.width * image.height * _BYTES_PER_PIXEL)
    if missing is not None:
        raise DataError(f"{source}: {image.width} x {image.height} pixels take up to {missing}")
