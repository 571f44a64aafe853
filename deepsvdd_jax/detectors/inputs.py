"""Converts a user's images and tables to the numbers that preprocessing starts from."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.datasets import DataError

Images = npt.NDArray[Any]


def network_values(images: npt.ArrayLike) -> Images:
    """Returns images or a table as the numbers that preprocessing starts from.

    Integers in an image are grey levels of 0 .. 255 and are divided by 255 (uint8 later, to save
    memory); floats are taken as they are, in [0, 1] by custom. A table is taken as it is. What
    float32 would round stays in float64, so that it is scaled by its own digits.

    Args:
      images: `[n, height, width, channels]` or `[n, features]`, numpy or JAX array.

    Returns:
      uint8 images, float32, or float64 for float64 and for integers of more than 16 bits.

    Raises:
      DataError: no numbers, another number of axes, or values that are not finite.
    """
    values = np.asarray(images)
    if values.ndim not in (2, 4) or 0 in values.shape[1:]:
        raise DataError(
            f"samples of shape {values.shape[1:]}; an image is (height, width, channels), the row "
            "of a table (features,)"
        )
    if values.dtype.kind not in "buif":
        raise DataError(f"samples of type {values.dtype}; they must be numbers")
    if values.ndim == 4 and values.dtype == np.uint8:
        return values
    short = values.dtype.itemsize <= (4 if values.dtype.kind == "f" else 2)
    dtype = np.dtype(np.float32 if short else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: Images = values.astype(dtype, copy=False)
    if values.ndim == 4 and values.dtype.kind in "ui":
        numbers = numbers / dtype.type(255)
    check_finite(numbers)
    return numbers


def check_finite(numbers: Images, when: str = "", first: int = 0) -> None:
    """Refuses samples, counted from `first`, that hold NaN, infinity, or overflowed."""
    if numbers.dtype == np.uint8:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all values are, and less work than asking each of them; in float32
        # it may overflow all the same.
        if np.isfinite(numbers.sum()) or np.isfinite(numbers.sum(dtype=np.float64)):
            return
    bad = np.array([not np.isfinite(number).all() for number in numbers])
    if np.any(bad):
        raise DataError(
            f"{np.sum(bad)} of {len(bad)} samples hold NaN, infinity or a value too large for "
            f"float32{when and f', {when}'}, the first is sample {first + np.argmax(bad)}"
        )


def check_trainable(values: Images) -> None:
    if len(values) < 2:
        raise DataError(f"n_samples={len(values)}; at least 2 are needed for training")
    if np.all(values[1:] == values[:1]):
        raise DataError(f"all {len(values)} samples are equal; there is nothing to learn from them")
