"""One's own arrays in an npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import (
    DataError,
    Dataset,
    class_labels,
    every_fifth,
    labelled_dataset,
)
from deepsvdd_jax.datasets.formats.archives import data_errors, open_regular
from deepsvdd_jax.io import npz
from deepsvdd_jax.io.npz import NpzError

_KEYS = ("x_train", "y_train", "x_test", "y_test", "x", "y")


def parse_npy(data: bytes, source: str) -> np.ndarray:
    """Parses an npy file of plain numbers; never unpickles.

    Args:
      data: the whole file.
      source: its name, for messages.

    Returns:
      The array: booleans, integers or floats.

    Raises:
      DataError: not npy, another type (objects, text, dates, complex), or another length than the
        header promises.
    """
    try:
        return npz.parse_npy(data)
    except NpzError as error:
        raise DataError(f"{source}: {error}") from error


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the known arrays of an npz file (touches files); see `npz.read_npz`.

    Returns:
      Those of x_train, y_train, x_test, y_test, x and y that are there; others are not read.

    Raises:
      DataError: no npz file, a damaged or oversized member, an array that is not of plain numbers.
    """
    source = str(path)
    try:
        with data_errors(source), open_regular(path) as stream:
            arrays = npz.read_npz(stream, _KEYS)
    except NpzError as error:
        raise DataError(f"{source}: {error}; write it with numpy.savez") from error
    if not arrays:
        raise DataError(f"{source}: none of the arrays {', '.join(_KEYS)} is in it")
    return arrays


def feature_array(array: np.ndarray, source: str) -> np.ndarray:
    """Brings images or rows to the form of a `Dataset`.

    Args:
      array: `[n, height, width, channels]`, `[n, height, width]` or `[n, features]`.
      source: the file and array, for messages.

    Returns:
      Images `[n, height, width, channels]`, uint8 as they are, other whole numbers as grey levels
      of 0 .. 255 divided by 255, everything else as floats; or rows, floats `[n, features]`. Floats
      are float64 where float32 would round what is given, else float32.

    Raises:
      DataError: another number of dimensions, an empty array, channels that come first, a value
        that is NaN or infinite.
    """
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise DataError(
            f"{source}: shape {array.shape}, expected (n, height, width, channels),"
            " (n, height, width) or (n, features), none of them 0"
        )
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] > 4:
        raise DataError(
            f"{source}: shape {array.shape} has the channels first, expected them last;"
            " use numpy.moveaxis(x, 1, -1)"
        )
    if array.dtype != np.uint8 or array.ndim == 2:
        short = array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2)
        with np.errstate(over="ignore"):
            values = array.astype(np.float32) if short else array.astype(np.float64)
        if array.ndim > 2 and array.dtype.kind in "ui":
            values = np.divide(values, 255, dtype=values.dtype)
        _check_finite(values, array, source)
        array = values
    return array[..., None] if array.ndim == 3 else array


def read_samples(path: str | Path) -> np.ndarray:
    """Reads samples without labels from an npz file: `x`, else `x_test`, else `x_train` (touches
    files); see `feature_array`."""
    arrays = read_npz(path)
    for key in ("x", "x_test", "x_train"):
        if key in arrays:
            return feature_array(arrays[key], f"{path}: {key}")
    raise DataError(f"{path}: holds {', '.join(arrays)}; expected x, x_test or x_train")


def load_npz(config: DataConfig) -> Dataset:
    """Loads one's own arrays from the npz file `data_dir` (touches files).

    The file holds `x_train`, `x_test` and `y_test`, and optionally `y_train`; without `y_train`
    every training row is normal and `y_test` counts 0 as normal and anything else as anomalous.
    `x_test` and `y_test` may be left out together: the test set is then empty. Or the file holds
    `x` and `y`: then every fifth row of a class is a test row (`dataset.every_fifth`).

    Returns:
      Images `[n, height, width, channels]`, uint8 or floats, or floats `[n, features]`.

    Raises:
      DataError: as `read_npz` and `feature_array`; arrays that are missing or do not fit together.
    """
    if config.data_dir is None:
        raise DataError("npz: --data_dir is not given; it must name an npz file")
    arrays = read_npz(config.data_dir)
    if "x_train" in arrays:
        return _load_parts(arrays, config)
    if "x" in arrays and "y" in arrays:
        return _load_whole(arrays, config)
    raise DataError(
        f"{config.data_dir}: holds {', '.join(arrays)}; expected x_train, x_test and y_test"
        " (y_train is optional), or x and y"
    )


def _load_parts(arrays: dict[str, np.ndarray], config: DataConfig) -> Dataset:
    source = str(config.data_dir)
    if ("x_test" in arrays) != ("y_test" in arrays):
        missing = "y_test" if "x_test" in arrays else "x_test"
        raise DataError(f"{source}: {missing} is missing; x_test and y_test belong together")
    x_train = feature_array(arrays["x_train"], f"{source}: x_train")
    y_train = x_test = y_test = None
    if "y_train" in arrays:
        y_train = class_labels(arrays["y_train"], len(x_train), f"{source}: y_train")
    if "x_test" in arrays:
        x_test = feature_array(arrays["x_test"], f"{source}: x_test")
        bytes_and_floats = (x_test.dtype == np.uint8) != (x_train.dtype == np.uint8)
        if x_test.shape[1:] != x_train.shape[1:] or bytes_and_floats:
            raise DataError(
                f"{source}: a row of x_test is {x_test.dtype} of shape {x_test.shape[1:]}, one of"
                f" x_train {x_train.dtype} of shape {x_train.shape[1:]}; they must agree"
            )
        labels = arrays["y_test"]
        if y_train is None and labels.dtype.kind in "buif":
            labels = labels != 0
        y_test = class_labels(labels, len(x_test), f"{source}: y_test")
    return labelled_dataset(config.name, x_train, y_train, x_test, y_test)


def _load_whole(arrays: dict[str, np.ndarray], config: DataConfig) -> Dataset:
    source = str(config.data_dir)
    x = feature_array(arrays["x"], f"{source}: x")
    y = class_labels(arrays["y"], len(x), f"{source}: y")
    train, test = every_fifth(y)
    return labelled_dataset(config.name, x[train], y[train], x[test], y[test])


def _check_finite(values: np.ndarray, original: np.ndarray, source: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"{source}: {original[index]} at index {index}, expected finite values;"
            " remove or replace it"
        )
