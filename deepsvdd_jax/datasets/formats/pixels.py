"""From an opened image file to an array of pixels.

Needs numpy and Pillow alone: an exported scorer carries this file, so that it reads images as
`score` does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

_GRAY_MODES = ("1", "L", "LA", "La")


class PixelError(ValueError):
    """Pixels that are not read; one line that says why, without the file's name."""


def pixels_of(image: Image.Image, channels: int | None = None) -> np.ndarray:
    """Returns the pixels of an image, uint8 `[height, width, channels]`.

    The orientation that a camera noted is applied. 16-bit gray values keep their upper eight bits.
    Transparent pixels are laid over black. Palette images become RGB.

    Args:
      image: opened with Pillow; of an animation the frame that it stands at counts.
      channels: 1 converts to gray, 3 to RGB; None keeps gray gray and makes all else RGB.

    Raises:
      PixelError: floating-point pixels, or integers of more than 16 bits.
    """
    plain = _eight_bits(ImageOps.exif_transpose(image))
    if channels is not None:
        plain = plain.convert("L" if channels == 1 else "RGB")
    array = np.array(plain)
    return array if array.ndim == 3 else array[..., None]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, bilinear and antialiased: Pillow's `BILINEAR`.

    When shrinking, the filter widens with the scale.

    Args:
      image: uint8 `[height, width, channels]` with 1 or 3 channels.
      size: (height, width) to resize to.

    Returns:
      uint8 `[*size, channels]`.
    """
    if image.shape[:2] == size:
        return image
    plain = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.array(plain.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized.reshape(*size, image.shape[2])


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to `L` or `RGB`."""
    if image.mode == "F":
        raise PixelError(
            "floating-point pixels have no fixed range; save it with 8 or 16 bits, or pass the"
            " pixels as an npz file"
        )
    if image.mode == "I" or image.mode.startswith("I;"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise PixelError(f"pixels from {values.min()} to {values.max()}, expected 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    target = "L" if image.mode in _GRAY_MODES else "RGB"
    if not image.has_transparency_data:
        return image.convert(target)
    layered = image.convert("RGBA")
    black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, layered).convert(target)
