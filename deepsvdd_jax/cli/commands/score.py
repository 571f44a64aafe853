"""Scores new data with a saved model.

    python -m experiments.score --model=parts.model --data_dir=new_parts --out=scores.csv

`--data_dir` is a folder of images, an image, an npz file (array `x`, else `x_test`, else `x_train`)
or a csv file. Images are read, resized as the training images were, and scored in batches: a folder
may be larger than memory. Of a folder with `train/` and `test/` only the test part is scored; masks
are not scored. Columns of a table are found by the names that the model was trained on. Writes
`name,score,p_value,anomalous`, one row a sample, in the order of names or rows. The name of a row
is that of `--id_column`, or else its number. Higher scores are more anomalous. A normal sample has
a p-value of at most a with probability a; it is empty if no data were held out in training. The
file appears when it is complete.

`--maps=DIR` writes a map of the anomaly in each image, `--tile=SIZE` cuts large images into tiles;
see docs/maps.md.
"""

import csv
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import bars, environment, files, model_images, paths, settings, thresholds
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps import run as maps
from deepsvdd_jax.cli.maps import wishes
from deepsvdd_jax.cli.maps.wishes import Wish
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import Columns, DataError, folder
from deepsvdd_jax.datasets.dataset import printable
from deepsvdd_jax.datasets.formats.images import is_image_name
from deepsvdd_jax.datasets.layout import Layout, images_to_score
from deepsvdd_jax.datasets.tables import LABEL
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import metrics

with lazily():
    from deepsvdd_jax import detectors
    from deepsvdd_jax.cli.maps import masks as map_masks
    from deepsvdd_jax.cli.maps import pictures

COLUMNS = ("name", "score", "p_value", "anomalous")
ROWS_AT_ONCE = 4096

Batches = Iterator[tuple[list[str], npt.NDArray[Any]]]


class Reading(NamedTuple):
    """Settings for reading image files: whether to leave out damaged ones, and how many million
    pixels one may have, None for the usual bound."""

    skip_unreadable: bool = False
    megapixels: int | None = None


class Source(NamedTuple):
    """Samples to score: their number, and batches of names and samples."""

    total: int
    batches: Batches


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder of a saved model")
    flags.DEFINE_string("data_dir", None, "folder of images, image, npz file or csv file")
    settings.define_column_flags()
    settings.define_pixel_flags()
    flags.DEFINE_string("out", "scores.csv", "file to write")
    thresholds.define_flags()
    settings.define_unreadable_flag()
    wishes.define_flags()


def main() -> None:
    """Reads the flags, scores, writes the file, prints how many samples are anomalous."""
    values = flags.FLAGS
    settings.require(values, "model", "data_dir")
    saved = paths.to_read("model", values.model)
    data = paths.to_read("data_dir", values.data_dir)
    read = [saved] if data.is_dir() else [saved, data]
    out = paths.file_to_write("out", values.out, "table of scores", is_scores, read)
    environment.use_platform(values.platform, values.compilation_cache)
    model = models.load_model(saved)
    wish = wishes.wish(values, model, out, [saved, data])
    if wish is not None:
        thresholds.tell_of_cross_calibration(model)
        print(score_with_maps(wish, model, data, table_columns(values, model), out))
        return
    model = thresholds.with_threshold(model, values.false_alarm_rate, values.threshold)
    reading = Reading(values.skip_unreadable, values.max_megapixels)
    source = open_source(data, model, reading, table_columns(values, model))
    scored, alarms = write_scores(out, model, source)
    skipped = source.total - scored
    print(
        f"{values.out}: {scored} samples, {alarms} anomalous "
        f"({thresholds.rule(model)})"
        + (f", {skipped} unreadable files left out" if skipped else "")
    )


def score_with_maps(wish: Wish, model: Model, path: Path, columns: Columns, out: Path) -> str:
    """Scores images with maps or in tiles (touches files); returns lines on the result.

    Raises:
      DataError: see `open_source`, or a file of other things than images.
    """
    if len(model.image_shape) != 3:
        raise ConfigError("maps and tiles are of images; the model was trained on a table")
    endings = [ending.lower() for ending in path.suffixes]
    if endings[-1:] == [".npz"]:
        if wish.masks is not None:
            raise ConfigError("--masks are of image files; give a folder of images")
        samples = datasets.read_samples(path)
        if samples.ndim != 4:
            raise DataError(f"{path}: holds rows of a table, which have no maps and no tiles")
        return maps.run(wish, model, pictures.of_array(samples), None, out)
    layout = None
    if path.is_dir():
        names, layout = find_images(path)
        root = path
    elif is_image_name(path.name):
        names, root = (path.name,), path.parent
    else:
        # It raises the error for this path.
        open_source(path, model, Reading(), columns)
        raise DataError(f"{path}: no images, of which maps and tiles are")
    masks = None
    if wish.maps is not None:
        if wish.masks is not None:
            masks = map_masks.from_folder(wish.masks, names)
        elif layout is not None:
            masks = map_masks.from_layout(root, layout, names)
    channels = model_images.wanted(model).channels
    images = pictures.of_files(root, names, channels, wish.megapixels, wish.skip_unreadable)
    return maps.run(wish, model, images, masks, out)


def is_scores(path: Path) -> bool:
    """Returns whether a file is a table of scores (touches files)."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return set(COLUMNS) <= set(next(csv.reader(file), ()))
    except csv.Error:
        return False


def table_columns(values: flags.FlagValues, model: Model) -> Columns:
    """Returns the roles of the columns of a csv file, by the flags or else as in training."""
    trained = model.summary.get("data", {})
    label = values.label_column or trained.get("label_column") or LABEL
    ignored = values.ignore_columns or trained.get("ignore_columns") or ()
    given = (values.label_column, values.id_column, *(values.ignore_columns or ()))
    return Columns(
        ignored=(label, *ignored),
        identifier=values.id_column or trained.get("id_column"),
        features=model.feature_names or None,
        required=tuple(name for name in given if name is not None),
    )


def open_source(path: Path, model: Model, reading: Reading, columns: Columns) -> Source:
    """Finds the samples of a path (touches files).

    Args:
      path: a folder or file.
      model: that will score them.
      reading: how image files are read.
      columns: of a csv file.

    Raises:
      DataError: the path does not exist, or does not suit the model.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    endings = [ending.lower() for ending in path.suffixes]
    is_table = not path.is_dir() and ".csv" in endings and endings[-1:] != [".npz"]
    if columns.required and not is_table:
        raise ConfigError(f"{path}: no csv file, so that it has no column {columns.required[0]!r}")
    if not (path.is_dir() or is_image_name(path.name)):
        _refuse_for_arrays(path, reading)
    if path.is_dir():
        return _open_folder(path, model, reading)
    if endings[-1:] == [".npz"]:
        samples = datasets.read_samples(path)
        return Source(len(samples), _rows(samples))
    if is_table:
        return _open_csv(path, model, columns)
    if is_image_name(path.name):
        return _open_images(path.parent, [path], model, reading)
    raise DataError(f"{path}: by its ending no image, npz file or csv file")


def _refuse_for_arrays(path: Path, reading: Reading) -> None:
    """Refuses flags of image files where a file of rows or arrays is read."""
    given = {
        "skip_unreadable": reading.skip_unreadable,
        "max_megapixels": reading.megapixels is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(
                f"--{name} has no effect here: it is of image files, and {path} is none"
            )


def find_images(path: Path) -> tuple[tuple[str, ...], Layout]:
    """Returns the images of a folder to score, and its layout (touches files); prints how many lie
    where, and what is left out."""
    layout = folder.read_layout(path)
    names, left_out = images_to_score(layout)
    places = folder.describe_places(names)
    masks = f"; masks: of {len(layout.masks)} images" if layout.masks else ""
    print(f"{path}: {len(names)} images: {places}{masks}", file=sys.stderr)
    folder.tell_left_out(layout._replace(left_out=left_out))
    return names, layout


def _open_folder(path: Path, model: Model, reading: Reading) -> Source:
    names, _ = find_images(path)
    return _open_images(path, [path / name for name in names], model, reading)


def _open_images(root: Path, paths: list[Path], model: Model, reading: Reading) -> Source:
    if len(model.image_shape) != 3:
        raise DataError(f"{paths[0]}: an image, but the model was trained on a table")
    wanted = model_images.wanted(model)
    batches = datasets.iter_images(
        paths,
        wanted.size,
        wanted.channels,
        skip_unreadable=reading.skip_unreadable,
        megapixels=reading.megapixels,
    )
    return Source(len(paths), _as_trained(batches, root, model))


def _as_trained(batches: Batches, root: Path, model: Model) -> Batches:
    """Yields names below `root`, and images as the model takes them."""
    is_reported = False
    for names, images in batches:
        if not is_reported and model_images.has_other_depth(model, images):
            is_reported = True
            print(model_images.depth_warning(model, names[0]), file=sys.stderr)
        shown = [Path(name).relative_to(root).as_posix() for name in names]
        yield shown, model_images.as_trained(model, names[0], images)


def _open_csv(path: Path, model: Model, columns: Columns) -> Source:
    table = datasets.read_table(path, columns)
    if len(model.image_shape) != 1:
        raise DataError(f"{path}: a table, but the model was trained on images")
    if table.unused:
        shown = ", ".join(map(printable, table.unused[:10]))
        print(f"{path}: columns that the model was not trained on: {shown}", file=sys.stderr)
    if columns.identifier and not table.identifiers:
        print(f"{path}: no column {columns.identifier!r}; rows are numbered", file=sys.stderr)
    return Source(len(table.features), _rows(table.features, table.identifiers))


def _rows(samples: npt.NDArray[Any], names: Sequence[str] = ()) -> Batches:
    for start in range(0, len(samples), ROWS_AT_ONCE):
        rows = range(start, min(start + ROWS_AT_ONCE, len(samples)))
        yield [names[row] if names else str(row) for row in rows], samples[rows.start : rows.stop]


def write_scores(path: Path, model: Model, source: Source) -> tuple[int, int]:
    """Scores and writes batch by batch into a draft, renamed in the end (touches files).

    Returns:
      The number of samples, and the number of anomalous ones.

    Raises:
      DataError: a sample that cannot be read or does not suit the model; nothing is written.
      WriteError: the file cannot be written.
    """
    scored = alarms = 0
    differences = _Differences()
    with (
        files.new_table(path) as writer,
        bars.progress_bar("score", source.total, "sample") as bar,
    ):
        writer.writerow(COLUMNS)
        for names, samples in source.batches:
            # Equal scores are checked over all batches: one batch may hold samples of one kind.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", detectors.CollapseWarning)
                judged = detectors.judge(model, samples)
            scores, anomalous = judged.scores, judged.anomalous
            differences.add(samples, scores)
            p_values = thresholds.cells_of(judged.p_values, len(scores))
            cells = (names, scores.tolist(), p_values, anomalous.astype(int))
            writer.writerows(zip(*cells, strict=True))
            scored, alarms = scored + len(scores), alarms + int(anomalous.sum())
            bar.update(len(scores))
    if differences.are_in_samples_alone():
        print(
            f"all {scored} scores are equal though the samples differ: the model tells nothing"
            " apart; train it again with a lower learning rate, and look at its data",
            file=sys.stderr,
        )
    return scored, alarms


class _Differences:
    """Notes whether samples and scores differ over batches; holds a sample and two scores."""

    def __init__(self) -> None:
        self._first: npt.NDArray[Any] | None = None
        self._samples_differ = False
        self._extremes: list[float] = []

    def add(self, samples: npt.NDArray[Any], scores: npt.NDArray[np.float32]) -> None:
        if not len(scores):
            return
        if self._first is None:
            self._first = samples[:1].copy()
        self._samples_differ = self._samples_differ or bool(np.any(samples != self._first))
        every = [*self._extremes, float(scores.min()), float(scores.max())]
        self._extremes = [min(every), max(every)]

    def are_in_samples_alone(self) -> bool:
        return self._samples_differ and metrics.are_all_equal(self._extremes)
