"""The most normal and the most anomalous images of a class."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import Pictures
from deepsvdd_jax.cli.sweeps import records
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html
from deepsvdd_jax.viz.plots import Tiles

Array = npt.NDArray[Any]

RANKED_IMAGES = 32

# A montage's tile is drawn at half an inch; larger images only make the page heavier.
_TILE_SIDE = 64

_COMMAND = "python -m experiments.report"


def ranked_images(sweep: FinishedSweep, drawn: Pictures) -> list[Html]:
    blocked = no_images(sweep)
    if blocked is not None or sweep.data is None:
        return [blocked or pages.paragraph(sweep.no_data)]
    method = sweep.methods[0]
    blocks = [pages.paragraph(_IMAGES_TEXT.format(method=method, count=RANKED_IMAGES))]
    for label in sweep.classes:
        for name in sweep.finished(method, label)[:1]:
            blocks.append(_class_images(sweep, sweep.data, drawn, name))
    return blocks


_IMAGES_TEXT = (
    "The {count} test images with the lowest and the {count} with the highest scores of {method}, "
    "first seed, in the order of the score, each with its true class below. A tick: the threshold "
    "calls it rightly; a frame and a cross: wrongly."
)


def _class_images(sweep: FinishedSweep, data: Dataset, drawn: Pictures, name: RunName) -> Html:
    stored = records.read_scores(sweep.folder, name)
    indices = np.asarray(sweep.test_indices(data, name.normal_class))
    called = stored["scores"] > sweep.threshold(name)
    wrong = called != stored["labels"].astype(bool)
    order = np.argsort(stored["scores"], kind="stable")
    order = order[stored["tested"][order]]
    pictures = []
    for kind, chosen in (
        ("normal", order[:RANKED_IMAGES]),
        ("anomalous", order[::-1][:RANKED_IMAGES]),
    ):
        places = indices[chosen]
        shown = Tiles(
            _displayable(data.x_test[places]),
            [data.class_names[label] for label in data.y_test[places]],
            wrong[chosen],
        )
        title = sweep.title(name.normal_class)
        alt = f"The {len(chosen)} most {kind} test images, normal: {title}"
        figure = plots.montage_figure(shown)
        label = f"most {kind} · {int(wrong[chosen].sum())} of {len(chosen)} called wrongly"
        picture = drawn.photo(f"most-{kind}-{name.stem}", alt, figure)
        pictures.append(picture._replace(label=label))
    return pages.figure(pictures, "", f"Normal: {sweep.title(name.normal_class)}")


def _displayable(images: Array) -> Array:
    """Returns images small enough for tiles, uint8 or in [0, 1]."""
    # For a tile of half an inch every second, third, ... pixel suffices.
    step = -(-max(images.shape[1:3]) // _TILE_SIDE)
    small = images[:, ::step, ::step]
    if small.dtype == np.uint8 or (small.min() >= 0 and small.max() <= 1):
        return small
    low, high = float(small.min()), float(small.max())
    return (small - low) / ((high - low) or 1.0)


def no_images(sweep: FinishedSweep) -> Html | None:
    """Returns the reason why there are no images, None if there are some."""
    if sweep.data is None:
        reason = f"The images cannot be shown: {sweep.no_data}. With the data at hand:"
        return pages.missing(reason, f"{_COMMAND} --out={sweep.folder} --data_dir=FOLDER")
    if sweep.data.x_test.ndim != 4:
        return pages.paragraph("The data are tables: there are no images to show.")
    channels = sweep.data.x_test.shape[3]
    if channels not in (1, 3):
        return pages.paragraph(
            f"Images of {channels} channels, neither grey nor RGB, are not shown."
        )
    return None
