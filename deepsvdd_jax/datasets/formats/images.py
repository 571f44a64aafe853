"""Image files of any common format, decoded to arrays with a bound on their size."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, one_line, printable
from deepsvdd_jax.datasets.formats.archives import MAX_MEMBER_BYTES, read_file
from deepsvdd_jax.io import memory

if TYPE_CHECKING:
    from PIL import Image

# Formats that are recognised by their first bytes, whatever the file's name is.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
# These run another program, unpack without a bound, or have no decoder in Pillow.
_NOT_READ = frozenset(("EPS", "FITS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "XVTHUMB"))
# Most bytes a pixel that Pillow's image, its conversions and the array take together.
_BYTES_PER_PIXEL = 16
SMALL_BYTES = 1 << 28
_PIXELS_LOCK = threading.RLock()
_logger = logging.getLogger(__name__)


@functools.cache
def _endings() -> dict[str, str]:
    """Returns the format of every ending that is read: all that Pillow decodes by itself."""
    from PIL import Image

    Image.init()
    known = {**Image.registered_extensions(), ".mpo": "JPEG"}
    return {
        ending: name
        for ending, name in known.items()
        if name in Image.OPEN and name not in _NOT_READ
    }


def is_image_name(name: str) -> bool:
    """Returns whether the ending of a file's name is that of an image format that is read."""
    return Path(name).suffix.lower() in _endings()


def formats_of(name: str) -> tuple[str, ...]:
    """Returns the formats that a file of this name may have: those recognised by their first bytes,
    and the one that its ending names."""
    named = _endings().get(Path(name).suffix.lower())
    return _FORMATS if named is None or named in _FORMATS else (*_FORMATS, named)


def decode_image(
    data: bytes,
    source: str,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    formats: tuple[str, ...] = _FORMATS,
    megapixels: int | None = None,
) -> np.ndarray:
    """Decodes one image file and resizes it.

    For its pixels see `pixels.pixels_of`, for resizing `pixels.resize_image`. Of an animation the
    first frame counts.

    Args:
      data: the whole file.
      source: its name, for messages.
      size: (height, width) to resize to; None keeps the size.
      channels: 1 converts to gray, 3 to RGB; None keeps gray gray and makes all else RGB.
      formats: Pillow's names of the formats that it may have, see `formats_of`.
      megapixels: most of them in an image; None is Pillow's bound against attacks, 89. More than
        that are allowed as far as memory is free.

    Returns:
      `[height, width, channels]`, uint8, or the values of more bits.

    Raises:
      DataError: damaged, of no known format, pixels that are not finite, or too many pixels.
    """
    return _decode(
        data, source, size, channels=channels, formats=formats, megapixels=megapixels
    ).pixels


class _Decoded(NamedTuple):
    """The first image of a file, whether it holds more, and whether Pillow cut its depth."""

    pixels: np.ndarray
    has_more: bool
    is_cut: bool


def _decode(
    data: bytes,
    source: str,
    size: tuple[int, int] | None,
    channels: int | None,
    formats: tuple[str, ...],
    megapixels: int | None,
) -> _Decoded:
    from PIL import Image

    from deepsvdd_jax.datasets.formats.pixels import pixels_of, resize_image

    with (
        image_errors(source),
        pixels_bounded(megapixels),
        Image.open(io.BytesIO(data), formats=formats) as image,
    ):
        _check_memory(image, source)
        image.load()
        array = pixels_of(image, channels)
        has_more = holds_more(image)
    pixels = array if size is None else resize_image(array, size)
    return _Decoded(pixels, has_more, is_deep_color_png(data))


@contextlib.contextmanager
def image_errors(source: str) -> Iterator[None]:
    """Turns every error of decoding an image file into a `DataError` of one line."""
    from PIL import Image, UnidentifiedImageError

    from deepsvdd_jax.datasets.formats.pixels import PixelError

    try:
        yield
    except DataError:
        raise
    except PixelError as error:
        raise DataError(f"{source}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{source}: damaged or not an image of a known format; replace or remove it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{source}: too many pixels ({one_line(error)}); --max_megapixels=N allows N million"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise DataError(
            f"{source}: damaged or not an image ({one_line(error)}); replace or remove it"
        ) from error


def is_deep_color_png(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits a channel with colour or transparency: Pillow returns only
    the upper 8 bits of those. The header is at a fixed place."""
    depth, kind = data[24:25], data[25:26]
    return data.startswith(b"\x89PNG\r\n\x1a\n") and depth == b"\x10" and kind in b"\x02\x04\x06"


def holds_more(image: Image.Image) -> bool:
    """Returns whether a file is known to hold more images than the one that is read."""
    try:
        # Photos carry further images, for example of depth.
        return image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
    except Exception:  # The first image is intact, whatever comes after it.
        return False


@contextlib.contextmanager
def pixels_bounded(megapixels: int | None) -> Iterator[None]:
    """Makes Pillow refuse images of more pixels; its bound holds for the whole process."""
    from PIL import Image

    own = contextlib.nullcontext() if megapixels is None else _PIXELS_LOCK
    with own, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        try:
            if megapixels is not None:
                Image.MAX_IMAGE_PIXELS = megapixels * 1_000_000
            yield
        finally:
            if megapixels is not None:
                Image.MAX_IMAGE_PIXELS = before


def _check_memory(image: Image.Image, source: str) -> None:
    needed = image.width * image.height * _BYTES_PER_PIXEL
    if needed <= SMALL_BYTES:
        return
    missing = memory.shortage(needed)
    if missing is not None:
        raise DataError(f"{source}: {image.width} x {image.height} pixels take up to {missing}")


def read_image(
    path: Path,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    megapixels: int | None = None,
) -> np.ndarray:
    """Reads one image file (touches files); see `decode_image`."""
    return _read(path, size, channels, megapixels).pixels


def _read(
    path: Path, size: tuple[int, int] | None, channels: int | None, megapixels: int | None
) -> _Decoded:
    # Room for four bytes a pixel.
    data = read_file(path, max(MAX_MEMBER_BYTES, 4_000_000 * (megapixels or 0)))
    return _decode(
        data,
        str(path),
        size,
        channels=channels,
        formats=formats_of(path.name),
        megapixels=megapixels,
    )


def iter_images(
    paths: Sequence[Path],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    batch_size: int = 256,
    skip_unreadable: bool = False,
    megapixels: int | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Streams images in batches, so that memory holds one batch (touches files).

    Takes the first image of a file that holds several; one logged line says so in the end.

    Args:
      paths: image files.
      size: (height, width) to resize to; None: all must agree with the first.
      channels: 1, 3, or None: all must agree with the first.
      batch_size: images a batch; the last batch may be smaller.
      skip_unreadable: leave out damaged files with a logged warning instead of failing. An image of
        another shape is an error all the same.
      megapixels: most of them in an image, see `decode_image`.

    Yields:
      The names, as given in `paths`, and `[batch, height, width, channels]`: uint8, or values of
      more bits as they are, uint16 or floats.

    Raises:
      DataError: a damaged file, or an image of another shape than the first, or of 8 bits where
        that has more.
    """
    if size is not None:
        _check_size(size, channels, min(batch_size, len(paths)))
    first: tuple[Path, tuple[int, ...]] | None = None
    deep = False
    names: list[str] = []
    batch: list[np.ndarray] = []
    several: list[Path] = []
    cut: list[Path] = []
    for path in paths:
        try:
            image, has_more, is_cut = _read(path, size, channels, megapixels)
        except DataError as error:
            if not skip_unreadable:
                raise
            _logger.warning("skipped %s", error)
            continue
        if first is None:
            first, deep = (path, image.shape), image.dtype != np.uint8
        elif image.shape != first[1]:
            raise DataError(
                f"{path}: {_shape_words(image.shape)}, but {first[0]} has {_shape_words(first[1])};"
                " pass --image_size and --channels to convert all images alike"
            )
        if deep != (image.dtype != np.uint8):
            more, eight = (first[0], path) if deep else (path, first[0])
            raise DataError(
                f"{more}: more than 8 bits a pixel, but {eight} has 8; save all images alike"
            )
        if has_more:
            several.append(path)
        if is_cut:
            cut.append(path)
        names.append(str(path))
        batch.append(image)
        if len(batch) == batch_size:
            yield names, np.stack(batch)
            names, batch = [], []
    if batch:
        yield names, np.stack(batch)
    tell_partly_read(several, cut)


def tell_partly_read(several: Sequence[Path], cut: Sequence[Path]) -> None:
    """Logs lines on files that hold several images, and on those whose depth is cut."""
    _tell(several, "hold several images", "the first of each is taken")
    _tell(
        cut,
        "are PNG of 16 bits a channel in colour or with transparency",
        "8 of them are read; save gray ones without transparency to keep all",
    )


def _tell(paths: Sequence[Path], what: str, consequence: str) -> None:
    """Logs one line on files of which a part is not read."""
    if paths:
        first = printable(str(paths[0])) + (", ..." if len(paths) > 1 else "")
        _logger.warning("%d files %s (%s); %s", len(paths), what, first, consequence)


def _check_size(size: tuple[int, int], channels: int | None, count: int) -> None:
    # An image is resized first by rows, in float32, then by columns.
    needed = math.prod(size) * (channels or 1) * (count + 4)
    missing = memory.shortage(needed)
    if missing is not None:
        raise DataError(f"image_size {size[0]},{size[1]}: {count} images take at least {missing}")


def _shape_words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}x{width} pixels (height x width) and {channels} channel(s)"
