"""Types that loaders share, and helpers for labels and splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deepsvdd_jax.configs import DataConfig

MAX_CLASSES = 10_000


class DataError(ValueError):
    """Unusable input data: one line that names the file, what is wrong, and what would be right."""

    def __init__(self, message: str) -> None:
        # File names and headers from outside may hold line breaks.
        super().__init__(" ".join(message.splitlines()))


def printable(name: str) -> str:
    """Returns a file name in which control characters and bytes that are not text are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


class Dataset(NamedTuple):
    """A labelled data set in memory, in the order of its files.

    Attributes:
      name: the name it was loaded under.
      x_train: images, uint8 (0 to 255) or float `[n, height, width, channels]`, or tabular rows,
        float `[n, features]`; float64 where float32 would round what the source holds.
      y_train: int64 `[n]`, indices into `class_names`.
      x_test: like `x_train`; empty where the source has no test part.
      y_test: int64, indices into `class_names`.
      class_names: one name a class.
      test_names: names of the test images or rows where the source has them, else empty.
      train_names: names of the training images or rows where the source has them, else empty.
      feature_names: columns of a table where the source names them, else empty.
      pixel_range: the values that became 0 and 1, of image files with more than 8 bits.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    test_names: tuple[str, ...] = ()
    train_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    pixel_range: tuple[float, float] | None = None


Loader = Callable[[DataConfig], Dataset]


def one_line(error: BaseException) -> str:
    """Returns an exception's message on a single line, shortened to 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def every_fifth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows 80/20 by a rule that needs no random numbers.

    Within each class, in file order, rows 5, 10, 15, ... (counting from 1) are test rows, all
    others training rows.

    Args:
      labels: int `[n]`.

    Returns:
      Training and test indices, int64, each in file order.
    """
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def class_labels(values: np.ndarray, count: int, source: str) -> np.ndarray:
    """Checks class labels and returns them as int64.

    Args:
      values: whole numbers of any numeric type, `[count]`.
      count: number of rows that the labels belong to.
      source: the file and array, for messages.

    Raises:
      DataError: another shape or length, a fraction, a negative or an absurdly large label.
    """
    if values.shape != (count,):
        raise DataError(
            f"{source}: labels have shape {values.shape}, expected ({count},): one label a row"
        )
    if values.dtype.kind not in "buif":
        raise DataError(f"{source}: labels are of type {values.dtype}, expected whole numbers")
    bad = np.flatnonzero(~((values >= 0) & (values < MAX_CLASSES) & (values == np.floor(values))))
    if bad.size:
        raise DataError(
            f"{source}: label {values[bad[0]]} at index {bad[0]}, expected whole numbers that"
            f" count classes from 0 and stay below {MAX_CLASSES}"
        )
    return values.astype(np.int64)


def labelled_dataset(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray | None,
    x_test: np.ndarray | None,
    y_test: np.ndarray | None,
) -> Dataset:
    """Assembles a data set from arrays whose labels may be missing.

    Without `y_train` every training row is normal (class 0), and a test label counts as normal
    where it is 0 and as anomalous (class 1) everywhere else. Without a test part the test arrays
    are empty.

    Args:
      name: name of the data set.
      x_train: `[n, ...]`.
      y_train: int64 `[n]` or None.
      x_test: `[m, ...]` or None.
      y_test: int64 `[m]`; None only together with `x_test`.
    """
    if x_test is None or y_test is None:
        x_test, y_test = x_train[:0], np.zeros(0, np.int64)
    if y_train is None:
        y_train = np.zeros(len(x_train), np.int64)
        y_test = (y_test != 0).astype(np.int64)
        class_names: tuple[str, ...] = ("normal", "anomalous")
    else:
        count = 1 + int(max(y_train.max(initial=0), y_test.max(initial=0)))
        class_names = tuple(str(label) for label in range(count))
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=class_names,
    )
