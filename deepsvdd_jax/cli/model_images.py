"""Image files as a saved model takes them: its size, channels and range of pixels.

Every command that scores image files reads them by these functions, so that one file has one score.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io.models import Model


class Wanted(NamedTuple):
    """The form that image files are converted to.

    Attributes:
      size: (height, width) to resize to; None keeps the size.
      channels: 1, 3, or None, which keeps what is found.
      pixel_range: lowest and highest pixel of the training images; None for images of 8 bits.
    """

    size: tuple[int, int] | None
    channels: int | None
    pixel_range: tuple[float, float] | None


def wanted(model: Model) -> Wanted:
    """Returns the form of the images that a model was trained on."""
    made_alike = model.summary.get("data", {})
    height, width, _ = model.image_shape
    size = (height, width) if made_alike.get("image_size") else None
    return Wanted(size, made_alike.get("channels"), made_alike.get("pixel_range"))


def has_other_depth(model: Model, images: npt.NDArray[Any]) -> bool:
    """Whether images have more bits than a model without a range takes, or 8 bits where the model's
    range is that of more."""
    trained = wanted(model).pixel_range
    if trained is None:
        return images.dtype != np.uint8
    return images.dtype == np.uint8 and trained[1] > 255


def depth_warning(model: Model, name: str) -> str:
    """Returns the line on images of which `has_other_depth` holds."""
    trained = wanted(model).pixel_range
    if trained is None:
        return f"{name}: more than 8 bits a pixel, of which the model takes the upper 8 of 16"
    low, high = trained
    return (
        f"{name}: 8 bits a pixel, and the model was trained on pixels from {low:g} to {high:g}: "
        "its scores mean nothing unless the pixels lie there too"
    )


def as_trained(model: Model, name: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns images `[n, height, width, channels]` in units of the model's range of pixels.

    Args:
      model: that will score them.
      name: of the first, for messages.
      images: as read from their files, with the size and channels of `wanted`.

    Raises:
      DataError: pixels that the model cannot take, or images of another shape.
    """
    from deepsvdd_jax.datasets.formats.pixels import PixelError, unit_pixels

    try:
        found = unit_pixels(images, wanted(model).pixel_range)
    except PixelError as error:
        raise DataError(f"{name}: {error}") from None
    if found.shape[1:] != model.image_shape:
        raise DataError(
            f"{name}: an image of shape {found.shape[1:]}, but the model was trained on "
            f"{model.image_shape}; fit with --image_size (and --channels) to have all resized"
        )
    return found
