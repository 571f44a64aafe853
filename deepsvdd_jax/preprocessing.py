"""From pixels to network input: contrast normalisation, whitening, scaling, principal components.

`fit_*` learns from the training normals and returns a NamedTuple of arrays; `apply_*` is a pure
function of that and images. numpy only: all of it runs once, on the host, before training.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import PreprocessingConfig

Floats = npt.NDArray[np.floating]

# Images are transformed this many at a time, so that float64 copies stay small.
_CHUNK = 4096


class Scaling(NamedTuple):
    """Network input = (values - shift) * scale; both `[1, 1, 1]` for images, `[features]` for
    tables, so that they broadcast against one example."""

    shift: Floats
    scale: Floats


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
    """Returns float32 images, uint8 pixels divided by 255."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)


def normalize_contrast(images: Floats, kind: str) -> Floats:
    """Takes each image's mean off and divides by its scale: global contrast normalisation.

    The L1 scale is the mean of |x| (the Theano code takes the sum; min-max scaling removes the
    difference), L2 the root of the sum of squares, `std` the standard deviation. A constant image
    becomes zeros.

    Args:
      images: `[n, ...]` in [0, 1].
      kind: `none`, `std`, `l1` or `l2`.

    Returns:
      float32 of the same shape.
    """
    if kind == "none":
        return images.astype(np.float32, copy=False)
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK].astype(np.float64)
        axes = tuple(range(1, part.ndim))
        part -= part.mean(axis=axes, keepdims=True)
        if kind == "l1":
            size = np.abs(part).mean(axis=axes, keepdims=True)
        else:
            size = np.sqrt(np.square(part).mean(axis=axes, keepdims=True))
            if kind == "l2":
                size *= np.sqrt(np.prod(part.shape[1:]))
        # A constant image leaves rounding errors of its mean, far below one grey level.
        constant = size < 1e-8
        result[start : start + _CHUNK] = np.where(constant, 0.0, part / np.where(constant, 1, size))
    return result


def fit_whitening(images: Floats, epsilon: float) -> Whitening:
    """Fits ZCA whitening: U (S + epsilon)^(-1/2) U^T of the covariance of flattened images.

    Args:
      images: `[n, ...]`, the training normals after contrast normalisation.
      epsilon: added to the eigenvalues.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    covariance = np.cov(flat, rowvar=False, bias=True).reshape(flat.shape[1], flat.shape[1])
    eigenvalues, vectors = np.linalg.eigh(covariance)
    scales = 1.0 / np.sqrt(np.maximum(eigenvalues, 0.0) + epsilon)
    return Whitening(mean, (vectors * scales) @ vectors.T)


def apply_whitening(whitening: Whitening, images: Floats) -> Floats:
    """Whitens images `[n, ...]`; float32 of the same shape."""
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        flat = part.reshape(len(part), -1).astype(np.float64)
        result[start : start + _CHUNK] = ((flat - whitening.mean) @ whitening.matrix).reshape(
            part.shape
        )
    return result


def fit_scaling(config: PreprocessingConfig, values: Floats) -> Scaling:
    """Fits the last step to the training normals `[n, ...]`.

    Min-max takes two scalars over all of them; standardising takes the mean and the deviation of
    every feature of a table. A constant range or feature is only shifted.
    """
    if config.standardize:
        shift, spread = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    else:
        ones = (1,) * (values.ndim - 1)
        low, high = (values.min(), values.max()) if config.min_max else (0.0, 1.0)
        shift, spread = np.full(ones, low, np.float64), np.full(ones, high - low, np.float64)
    # What is constant up to rounding must not be blown up.
    constant = spread <= 1e-7 * np.maximum(1.0, np.abs(shift))
    scale = 1.0 / np.where(constant, 1.0, spread)
    return Scaling(shift.astype(np.float32), scale.astype(np.float32))


def fit(config: PreprocessingConfig, images: npt.NDArray[np.generic]) -> Preprocessing:
    """Fits all steps to the training normals `[n, ...]`, uint8 or float."""
    values = normalize_contrast(unit_range(images), config.contrast)
    whitening = fit_whitening(values, config.zca_epsilon) if config.zca else None
    if whitening is not None:
        values = apply_whitening(whitening, values)
    return Preprocessing(config.contrast, whitening, fit_scaling(config, values))


def apply_unscaled(fitted: Preprocessing, images: npt.NDArray[np.generic]) -> Floats:
    """Applies all steps but the last, `[n, ...]` float32: what many runs share on a device."""
    values = normalize_contrast(unit_range(images), fitted.contrast)
    return values if fitted.whitening is None else apply_whitening(fitted.whitening, values)


def apply(fitted: Preprocessing, images: npt.NDArray[np.generic]) -> Floats:
    """Applies all steps to images `[n, ...]`: float32, network input. Test data is not clipped."""
    values = apply_unscaled(fitted, images)
    return (values - fitted.scaling.shift) * fitted.scaling.scale
