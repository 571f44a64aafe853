"""The embedded default: scikit-learn's 8x8 digits, no file and no network."""

from __future__ import annotations

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import Dataset, every_fifth


def load_digits(config: DataConfig) -> Dataset:
    """Loads the 1,797 digits of scikit-learn's `load_digits` (touches the installed package only).

    The intensities 0 to 16 become uint8 0 to 255 (v * 255 / 16, rounded). The split is fixed: every
    fifth image of a class, in file order, is a test image.

    Returns:
      1,442 training and 355 test images, uint8 `[n, 8, 8, 1]`.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    train, test = every_fifth(labels)
    names = tuple(str(digit) for digit in range(10))
    return Dataset(
        name=config.name,
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        class_names=names,
    )
