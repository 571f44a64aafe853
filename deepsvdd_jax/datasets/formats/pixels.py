"""From an opened image file to an array of pixels.

Needs numpy and Pillow alone: an exported scorer carries this file, so that it reads images as
`score` does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

_GRAY_MODES = ("1", "L", "LA", "La")


class PixelError(ValueError):
    """Pixels that cannot be used; one line says why, without the file's name."""


def pixels_of(image: Image.Image, channels: int | None = None) -> np.ndarray:
    """Returns the pixels of an image, `[height, width, channels]`: uint8, or the values of a gray
    image of more bits, uint16 or floats; see `unit_pixels`.

    The orientation that a camera noted is applied. Transparent pixels are laid over black. Palette
    images become RGB.

    Args:
      image: opened with Pillow; of an animation the frame that it stands at counts.
      channels: 1 converts to gray, 3 to RGB; None keeps gray gray and makes all else RGB.

    Raises:
      PixelError: pixels that are NaN or infinite.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode == "I" or upright.mode.startswith("I;"):
        deep = _deep_pixels(upright)
        return np.repeat(deep, 3, axis=2) if channels == 3 else deep
    plain = _eight_bits(upright)
    if channels is not None:
        plain = plain.convert("L" if channels == 1 else "RGB")
    array = np.array(plain)
    return array if array.ndim == 3 else array[..., None]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, bilinear and antialiased: Pillow's `BILINEAR`.

    When shrinking, the filter widens with the scale.

    Args:
      image: `[height, width, channels]`, of uint8 with 1 or 3 channels.
      size: (height, width) to resize to.

    Returns:
      `[*size, channels]`, uint8 of uint8, else float64.
    """
    if image.shape[:2] == size:
        return image
    if image.dtype != np.uint8:
        return _resize_values(image, size)
    plain = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.array(plain.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized.reshape(*size, image.shape[2])


def _resize_values(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    values = image.astype(np.float64)
    # From the middle of their range on, so that float32 need not round a large offset.
    middle = values.min() / 2 + values.max() / 2
    parts = [
        Image.fromarray((part - middle).astype(np.float32)) for part in np.moveaxis(values, 2, 0)
    ]
    resized = [part.resize((size[1], size[0]), Image.Resampling.BILINEAR) for part in parts]
    return np.stack([np.array(part, np.float64) for part in resized], axis=2) + middle


def unit_pixels(
    pixels: np.ndarray, pixel_range: tuple[float, float] | list[float] | None
) -> np.ndarray:
    """Returns pixels `[..., height, width, channels]` in units of a range, float32: 0 at its lower
    end and 1 at its upper one, not clipped.

    Without a range uint8 stays as it is; values of 16 bits keep their upper eight, as models that
    know of no range were trained.

    Raises:
      PixelError: other values without a range.
    """
    if pixel_range is not None:
        low, high = pixel_range
        return ((pixels.astype(np.float64) - low) / (high - low)).astype(np.float32)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.min() < 0 or pixels.max() > 0xFFFF or pixels.dtype != np.uint16:
        raise PixelError(
            f"pixels from {pixels.min():g} to {pixels.max():g}, and the model was trained on 8 bits"
        )
    return (pixels >> 8).astype(np.uint8)


def _deep_pixels(image: Image.Image) -> np.ndarray:
    """Returns the values of a gray image of more than 8 bits, `[height, width, 1]`."""
    values = np.asarray(image)[..., None]
    if not np.isfinite(values).all():
        raise PixelError("pixels that are NaN or infinite")
    if values.dtype.kind != "f" and values.min() >= 0 and values.max() <= 0xFFFF:
        return values.astype(np.uint16)
    return values.astype(np.float32 if values.dtype == np.float32 else np.float64)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts an image of 8 bits to `L` or `RGB`."""
    target = "L" if image.mode in _GRAY_MODES else "RGB"
    if not image.has_transparency_data:
        return image.convert(target)
    layered = image.convert("RGBA")
    black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, layered).convert(target)
