"""From pixels to network input: contrast normalisation, whitening, scaling, principal components.

`fit_*` learns from the training normals and returns a NamedTuple of arrays; `apply_*` is a pure
function of that and images. numpy only: all of it runs once, on the host, before training.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import PreprocessingConfig

Floats = npt.NDArray[np.floating]

# So many images are transformed at a time, so that float64 copies stay small.
CHUNK = 4096

# An epsilon this many times the largest eigenvalue leaves nothing to whiten.
_MOST_EPSILON = 1e3

# Values that differ by less than this many roundings of their type are the same number.
_ROUNDINGS = 2

# Beyond these, float32 values lose more than a thousandth of a standard deviation before they are
# scaled, or leave the range of normal float32 numbers.
_MOST_SHIFT, _MOST_SCALE = 1e3, 1e30

# Columns that a message names, of many.
_NAMED_COLUMNS = 5


class Scaling(NamedTuple):
    """Network input = (values - shift) * scale; both `[1, 1, 1]` for images, `[features]` for
    tables, so that they broadcast against one example.

    In float32 it may be applied to float32 values anywhere; in float64 it belongs to values of the
    user's own type, and is applied on the host.
    """

    shift: Floats
    scale: Floats


def scaled(values: Any, shift: Any, scale: Any) -> Any:
    """Returns network input of values `[n, ...]`: numpy or jax arrays, as all three are."""
    return (values - shift[None]) * scale[None]


class Whitening(NamedTuple):
    """Whitened = (x - mean) @ matrix on flattened images; `[pixels]` and `[pixels, pixels]`."""

    mean: Floats
    matrix: Floats


class Preprocessing(NamedTuple):
    """What was learned from the training normals; `contrast` is a setting, kept beside it."""

    contrast: str
    whitening: Whitening | None
    scaling: Scaling


def unit_range(images: npt.NDArray[np.generic]) -> Floats:
    """Returns uint8 pixels divided by 255, in float32; float64 values as they are, others as
    float32."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if images.dtype == np.float64:
        return images.astype(np.float64, copy=False)
    return images.astype(np.float32, copy=False)


def normalize_contrast(images: Floats, kind: str) -> Floats:
    """Subtracts each image's mean and divides by its scale: global contrast normalisation.

    The L1 scale is the mean of |x| (the Theano code takes the sum; min-max scaling removes the
    difference), L2 the root of the sum of squares, `std` the standard deviation. An image that is
    constant, up to the rounding of its type, becomes zeros.

    Args:
      images: `[n, ...]`, in any unit.
      kind: `none`, `std`, `l1` or `l2`.

    Returns:
      float32 of the same shape; with `none` the images as they are.
    """
    if kind == "none":
        return images
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].astype(np.float64)
        axes = tuple(range(1, part.ndim))
        constant = is_constant(part, axes, images.dtype)
        part -= part.mean(axis=axes, keepdims=True)
        if kind == "l1":
            size = np.abs(part).mean(axis=axes, keepdims=True)
        else:
            size = np.sqrt(np.square(part).mean(axis=axes, keepdims=True))
            if kind == "l2":
                size *= np.sqrt(np.prod(part.shape[1:]))
        result[start : start + CHUNK] = np.where(constant, 0.0, part / np.where(constant, 1, size))
    return result


def is_constant(
    values: Floats, axes: int | tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[np.bool_]:
    """Returns whether values are equal along axes, which stay with length 1, up to the rounding of
    the type that they were given in."""
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    size = np.maximum(np.abs(low), np.abs(high))
    # Halves, since the difference of two numbers of a type may be beyond its range.
    return np.asarray(high / 2 - low / 2 <= _ROUNDINGS / 2 * np.finfo(dtype).eps * size)


class WhiteningWarning(UserWarning):
    """zca_epsilon is so large for the images' unit that whitening does not whiten."""


def fit_whitening(images: Floats, epsilon: float) -> Whitening:
    """Fits ZCA whitening: U (S + epsilon)^(-1/2) U^T of the covariance of flattened images.

    Args:
      images: `[n, ...]`, the training normals after contrast normalisation.
      epsilon: added to the eigenvalues, in the images' own unit.

    Warns:
      WhiteningWarning: epsilon is far above all eigenvalues.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    covariance = np.cov(flat, rowvar=False, bias=True).reshape(flat.shape[1], flat.shape[1])
    eigenvalues, vectors = np.linalg.eigh(covariance)
    if eigenvalues[-1] * _MOST_EPSILON < epsilon:
        warnings.warn(
            f"zca_epsilon is {epsilon:g}, but the largest variance of the images is "
            f"{eigenvalues[-1]:.3g}: whitening changes nothing but their scale; normalise the "
            "contrast before it, or lower zca_epsilon",
            WhiteningWarning,
            stacklevel=2,
        )
    scales = 1.0 / np.sqrt(np.maximum(eigenvalues, 0.0) + epsilon)
    return Whitening(mean, (vectors * scales) @ vectors.T)


def apply_whitening(whitening: Whitening, images: Floats) -> Floats:
    """Whitens images `[n, ...]`; float32 of the same shape."""
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        flat = part.reshape(len(part), -1).astype(np.float64)
        result[start : start + CHUNK] = ((flat - whitening.mean) @ whitening.matrix).reshape(
            part.shape
        )
    return result


def fit_scaling(config: PreprocessingConfig, values: Floats) -> Scaling:
    """Fits the last step to the training normals `[n, ...]`.

    Min-max takes two scalars over all of them; standardising takes the mean and the deviation of
    every feature of a table, in float64. A range or feature that is constant up to the rounding of
    its type (`is_constant`) is only shifted.

    Returns:
      float64 for a table that is standardised and for values in float64, else float32.
    """
    exact = config.standardize or values.dtype == np.float64
    if config.standardize:
        shift, width = _mean_and_deviation(values)
        constant = is_constant(values, 0, values.dtype)[0]
    else:
        ones = (1,) * (values.ndim - 1)
        low, high = (values.min(), values.max()) if config.min_max else (0.0, 1.0)
        with np.errstate(over="ignore"):
            shift, width = np.full(ones, low, np.float64), np.full(ones, high - low, np.float64)
        constant = config.min_max & is_constant(values, tuple(range(values.ndim)), values.dtype)
        constant = constant.reshape(ones)
    with np.errstate(divide="ignore", over="ignore"):
        scale = 1.0 / width
    # A division by the range of a constant would blow up its rounding.
    scale = np.where(constant | ~np.isfinite(scale), 1.0, scale)
    dtype = np.float64 if exact else np.float32
    return Scaling(shift.astype(dtype), scale.astype(dtype))


def _mean_and_deviation(values: Floats) -> tuple[Floats, Floats]:
    """Returns mean and standard deviation of the columns of a table, float64 `[features]`, to the
    rounding of its values: their own offset and unit are taken off first."""
    table = values.astype(np.float64)
    # Powers of two, by which a division is exact.
    unit = np.ldexp(1.0, np.clip(np.frexp(np.abs(table).max(axis=0))[1], -1000, 1000))
    table /= unit
    first = table[0].copy()
    table -= first
    return (first + table.mean(axis=0)) * unit, table.std(axis=0) * unit


def constant_columns(values: Floats) -> npt.NDArray[np.bool_]:
    """Returns which columns of a table `[n, features]` standardising only shifts; see
    `is_constant`."""
    return is_constant(values, 0, values.dtype)[0]


def describe_constant(values: Floats, names: Sequence[str] = ()) -> str | None:
    """Returns one line that names the columns of a training table which are constant; None where
    there are none.

    Args:
      values: `[n, features]`.
      names: of the columns; numbers from 0 where there are none.
    """
    found = np.flatnonzero(constant_columns(values))
    if not len(found):
        return None
    named = [repr(names[i]) if len(names) else str(i) for i in found[:_NAMED_COLUMNS]]
    rest = f" and {len(found) - len(named)} more" if len(found) > len(named) else ""
    word, verb = ("column", "is") if len(found) == 1 else ("columns", "are")
    rounded = [i for i in found if values[:, i].min() != values[:, i].max()]
    why = f" to the rounding of {values.dtype}" if rounded else ""
    return (
        f"{word} {', '.join(named)}{rest} {verb} constant{why} in the training data: shifted, not"
        " scaled"
    )


def fits_float32(scaling: Scaling) -> bool:
    """Whether float32 can apply a scaling without loss: no shift of a thousand deviations, no unit
    near the ends of float32."""
    scale = np.abs(scaling.scale)
    inside = (np.abs(scaling.shift) * scale < _MOST_SHIFT) & (scale < _MOST_SCALE)
    return bool(np.all(inside & (scale > 1 / _MOST_SCALE)))


def fit(config: PreprocessingConfig, images: npt.NDArray[np.generic]) -> Preprocessing:
    """Fits all steps to the training normals `[n, ...]`, uint8 or float."""
    values = normalize_contrast(unit_range(images), config.contrast)
    whitening = fit_whitening(values, config.zca_epsilon) if config.zca else None
    if whitening is not None:
        values = apply_whitening(whitening, values)
    return Preprocessing(config.contrast, whitening, fit_scaling(config, values))


def apply_unscaled(fitted: Preprocessing, images: npt.NDArray[np.generic]) -> Floats:
    """Applies all steps but the last, `[n, ...]`: float32, or float64 as the images are."""
    values = normalize_contrast(unit_range(images), fitted.contrast)
    return values if fitted.whitening is None else apply_whitening(fitted.whitening, values)


def apply(fitted: Preprocessing, images: npt.NDArray[np.generic]) -> Floats:
    """Applies all steps to images `[n, ...]`: float32, network input. Test data is not clipped."""
    values, scaling = apply_on_host(fitted, images)
    inputs: Floats = scaled(values, *scaling)
    return inputs


def no_scaling(shape: tuple[int, ...]) -> Scaling:
    """Returns the scaling of values that are network input already."""
    return Scaling(np.zeros(shape, np.float32), np.ones(shape, np.float32))


def apply_on_host(fitted: Preprocessing, images: npt.NDArray[np.generic]) -> tuple[Floats, Scaling]:
    """Applies the steps that have to be done on the host.

    Returns:
      float32 `[n, ...]`, and the scaling that is left to apply in float32: none if it is in
      float64.
    """
    values, scaling = apply_unscaled(fitted, images), fitted.scaling
    if scaling.shift.dtype == np.float32:
        return values.astype(np.float32, copy=False), scaling
    with np.errstate(over="ignore", invalid="ignore"):
        values = scaled(values, *scaling).astype(np.float32)
    return values, no_scaling(scaling.shift.shape)
