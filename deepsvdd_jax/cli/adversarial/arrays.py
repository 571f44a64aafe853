"""Adversarials as files: arrays and a picture."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepsvdd_jax.cli.adversarial.attack import Adversarials, scaled
from deepsvdd_jax.io import atomic, npz
from deepsvdd_jax.io.npz import NpzError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARRAYS_NAME = "adversarials.npz"
PICTURE_NAME = "adversarials.png"
_PICTURES_A_ROW = 10


def save_adversarials(folder: str | os.PathLike[str], adversarials: Adversarials) -> None:
    """Writes `adversarials.npz` and `adversarials.png` into a folder (touches files).

    The folder is made where it is missing. Each file appears whole or not at all.
    """
    figure = draw_adversarials(adversarials)
    Path(folder).mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = adversarials._asdict()
    with atomic.writing(Path(folder) / ARRAYS_NAME) as file:
        np.savez(file, **arrays)
    with atomic.writing(Path(folder) / PICTURE_NAME) as file:
        figure.savefig(file, format="png")


def load_adversarials(folder: str | os.PathLike[str]) -> Adversarials:
    """Reads what `save_adversarials` wrote (touches files).

    Raises:
      ValueError: no file, a damaged one, or one with other arrays; one line.
    """
    path = Path(folder) / ARRAYS_NAME
    try:
        with path.open("rb") as file:
            arrays = npz.read_npz(file, Adversarials._fields)
        adversarials = Adversarials(*(arrays[name] for name in Adversarials._fields))
    except (OSError, NpzError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: no adversarial examples can be read ({reason})") from error
    _check_adversarials(path, adversarials)
    return adversarials


def draw_adversarials(adversarials: Adversarials) -> "Figure":
    """Returns a matplotlib figure: originals, adversarials, differences, distances below."""
    from matplotlib.figure import Figure

    count = len(adversarials.images)
    columns = min(count, _PICTURES_A_ROW)
    bands = math.ceil(count / columns)
    difference = scaled(adversarials.images) - scaled(adversarials.originals)
    gain = _difference_gain(difference)
    rows = (
        ("original", adversarials.originals),
        ("adversarial", adversarials.images),
        (f"difference ×{gain}", np.clip(0.5 + gain * difference, 0, 1)),
    )
    figure = Figure(figsize=(1.1 * columns + 1.5, 3.9 * bands + 0.6), layout="constrained")
    figure.suptitle("Boundary Attack examples made by this project, not those of Ruff et al. 2018")
    axes = figure.subplots(bands * len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for index in range(count):
        band, column = divmod(index, columns)
        for row, (name, pictures) in enumerate(rows):
            axis = axes[len(rows) * band + row, column]
            axis.imshow(pictures[index], interpolation="nearest")
            if column == 0:
                axis.set_ylabel(name)
        distance, predicted = adversarials.distances_l2[index], adversarials.predicted[index]
        axis.set_xlabel(f"L2 {distance:.2f}\nclass {predicted}")
    return figure


def _difference_gain(difference: np.ndarray) -> int:
    """Returns the factor that makes nearly all differences just fit around mid-grey."""
    typical = float(np.quantile(np.abs(difference), 0.995))
    return max(1, math.floor(0.5 / max(typical, 1 / 255)))


def _check_adversarials(path: Path, adversarials: Adversarials) -> None:
    shape = adversarials.images.shape
    expected = {
        "images": ("uint8", shape),
        "originals": ("uint8", shape),
        "original_indices": ("int64", shape[:1]),
        "distances_l2": ("float64", shape[:1]),
        "predicted": ("int64", shape[:1]),
        "success": ("bool", shape[:1]),
    }
    if len(shape) != 4 or shape[0] < 1 or shape[3] != 3:
        raise ValueError(f"{path}: images have shape {shape}, expected [count, height, width, 3]")
    for name, (dtype, wanted) in expected.items():
        array = getattr(adversarials, name)
        if (str(array.dtype), array.shape) != (dtype, wanted):
            raise ValueError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}, expected {dtype} {wanted}"
            )
