"""What the tests of several modules make and read alike."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt


def texture(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Returns gray stripes across an image, with noise."""
    random = np.random.default_rng(seed)
    rows = 100 + 40 * np.sin(np.arange(height) / 2)[:, None]
    return (rows + random.normal(0, 8, (height, width))).clip(0, 255).astype(np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Reads a csv file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
