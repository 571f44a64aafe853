"""Stop signs against adversarial ones as a data set (paper, section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepsvdd_jax.cli.adversarial.configs import STOP_CLASS
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.datasets import DataError, Dataset

with lazily():
    from deepsvdd_jax.cli.adversarial import arrays

if TYPE_CHECKING:
    from deepsvdd_jax.cli.adversarial.attack import Adversarials


DATASET = "gtsrb_adversarial"


def arrays_path(folder: Path) -> Path:
    return folder / "adversarials" / arrays.ARRAYS_NAME


def stop_problem(signs: Dataset, found: Adversarials | None) -> Dataset:
    """Returns the data set whose training images are the stop signs of the training set, and whose
    test images those of the test set, then the adversarials as one more class (paper, 4.3)."""
    stop = STOP_CLASS
    train = signs.x_train[signs.y_train == stop]
    test = signs.x_test[signs.y_test == stop]
    images = test[:0] if found is None else found.images
    return Dataset(
        name=DATASET,
        x_train=train,
        y_train=np.full(len(train), stop, np.int64),
        x_test=np.concatenate([test, images]),
        y_test=np.concatenate(
            [np.full(len(test), stop), np.full(len(images), len(signs.class_names))]
        ).astype(np.int64),
        class_names=(*signs.class_names, "adversarial stop"),
    )


def with_adversarials(signs: Dataset, folder: Path) -> Dataset:
    """Returns the problem with the adversarials of a results folder (reads them); without any the
    data as they are.

    Raises:
      DataError: a file of adversarials that is damaged.
    """
    if not arrays_path(folder).exists():
        return signs
    try:
        return stop_problem(signs, arrays.load_adversarials(arrays_path(folder).parent))
    except ValueError as error:
        raise DataError(str(error)) from None
