"""German traffic signs (GTSRB) in the benchmark's own layout.

https://benchmark.ini.rub.de/gtsrb_dataset.html: `GTSRB/Final_Training/Images/000CC/*.ppm` with
`GT-000CC.csv`, and `GTSRB/Final_Test/Images/*.ppm` with `GT-final_test.csv`.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import DataError, Dataset, one_line
from deepsvdd_jax.datasets.formats.archives import data_folders, folder_files, tar_files
from deepsvdd_jax.datasets.formats.images import decode_image

DEFAULT_SIZE = (32, 32)
CLASS_NAMES = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at the next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general caution",
    "curve to the left",
    "curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals crossing",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight or right",
    "straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)
_TRAIN = "Final_Training/Images/"
_TEST = "Final_Test/Images/"
_COLUMNS = ("Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
_PART = re.compile(r"(?:^|/)(Final_(?:Training|Test)/Images/.*)$")
_TABLE = re.compile(
    r"Final_Training/Images/(\d{5})/GT-\1\.csv|Final_Test/Images/GT-final_test\.csv"
)

_Files = Callable[[Callable[[str], bool]], Iterator[tuple[str, bytes]]]


class Annotation(NamedTuple):
    """One row of a GTSRB table.

    Attributes:
      name: file name of the image, without a folder.
      size: width and height of the image that the box was drawn on.
      box: first column, first row, last column, last row of the sign, all inclusive.
      label: class, 0 to 42.
    """

    name: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    label: int


def parse_gtsrb_annotations(text: str, source: str) -> list[Annotation]:
    """Parses a GTSRB table: `;`-separated, with a header.

    Needs the columns Filename, Width, Height, Roi.X1, Roi.Y1, Roi.X2, Roi.Y2 and ClassId, in any
    order; X counts columns of pixels and Y rows.

    Raises:
      DataError: a column missing, a value that is no whole number, a box that is empty or
        leaves the image, a class outside 0 to 42, a file name with a folder in it.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";")
    try:
        columns = reader.fieldnames or []
        for column in ("Filename", *_COLUMNS):
            if column not in columns:
                raise DataError(
                    f"{source}: column {column} is missing; expected Filename;{';'.join(_COLUMNS)}"
                )
        return [_annotation(row, f"{source}: line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise DataError(f"{source}: not a table ({one_line(error)})") from error


def crop_sign(image: np.ndarray, annotation: Annotation) -> np.ndarray:
    """Crops an image to its annotated box, scaled to the image's own size, at least one pixel.

    Args:
      image: `[height, width, channels]`.
      annotation: its row of the table.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = annotation.box
    left, right = _scaled_range(x1, x2 + 1, width / annotation.size[0])
    top, bottom = _scaled_range(y1, y2 + 1, height / annotation.size[1])
    return image[top:bottom, left:right]


def load_gtsrb(config: DataConfig) -> Dataset:
    """Loads GTSRB from `<data_dir>/gtsrb` or `data_dir`, unpacked or in tars (touches files).

    Every image is cropped to its annotated box, both ends inclusive, and resized to
    `config.image_size`, 32x32 by default (bilinear, antialiased; see `pixels.resize_image`). Where
    an image is of another size than its table says, the box is scaled with it and rounded to whole
    pixels: copies of the data exist whose images are shrunk and whose tables are the original ones.

    Returns:
      uint8 RGB images `[n, height, width, 3]`, sorted by their names, which are like
      '00014/00000_00003.ppm' and '00007.ppm'.

    Raises:
      DataError: no data found, an image or a table missing or damaged.
    """
    if config.data_dir is None:
        raise DataError("gtsrb: --data_dir is not given; it must hold the GTSRB archive or folder")
    folders = data_folders(config.data_dir, config.name)
    for folder in folders:
        dataset = _read_sources(_sources(folder), str(folder), config)
        if dataset is not None:
            return dataset
    raise DataError(
        f"{folders[0]}: no GTSRB found; expected GTSRB/Final_Training/Images/ and"
        " GTSRB/Final_Test/Images/, unpacked or in a .tar.gz or .tar archive"
    )


def _scaled_range(start: int, stop: int, scale: float) -> tuple[int, int]:
    first = int(start * scale + 0.5)
    last = int(stop * scale + 0.5)
    return (first, last) if first < last else (int(start * scale), int(start * scale) + 1)


def _annotation(row: dict[str, str | None], source: str) -> Annotation:
    name = row["Filename"] or ""
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise DataError(f"{source}: Filename is {name!r}, expected a plain file name")
    numbers = [_whole_number(row[column], column, source) for column in _COLUMNS]
    width, height, x1, y1, x2, y2, label = numbers
    if not (x1 <= x2 < width and y1 <= y2 < height):
        raise DataError(
            f"{source}: the box {(x1, y1, x2, y2)} is empty or leaves the image, expected"
            f" X1 <= X2 < {width} and Y1 <= Y2 < {height}"
        )
    if label >= len(CLASS_NAMES):
        raise DataError(f"{source}: ClassId is {label}, expected 0 to {len(CLASS_NAMES) - 1}")
    return Annotation(name, (width, height), (x1, y1, x2, y2), label)


def _whole_number(text: str | None, column: str, source: str) -> int:
    if text is None or not re.fullmatch(r"[0-9]{1,6}", text.strip()):
        raise DataError(f"{source}: {column} is {(text or '')[:40]!r}, expected a whole number")
    return int(text.strip())


def _sources(folder: Path) -> list[tuple[str, _Files]]:
    """Lists where GTSRB's files may be: an unpacked folder, else every tar archive."""
    for root in (folder / "GTSRB", folder):
        if (root / _TRAIN).is_dir():
            return [(str(root), functools.partial(folder_files, root))]
    archives = sorted(path for path in folder.iterdir() if path.name.endswith((".tar.gz", ".tar")))
    return [(str(path), functools.partial(tar_files, path)) for path in archives]


def _part(path: str) -> str:
    """Returns the path from `Final_Training` or `Final_Test` on, or '' for a foreign file."""
    match = _PART.search(path)
    return match.group(1) if match else ""


def _read_sources(
    sources: list[tuple[str, _Files]], place: str, config: DataConfig
) -> Dataset | None:
    """Reads the tables first and the images second: a table may follow its images in an archive."""
    annotations: dict[str, Annotation] = {}
    for source, files in sources:
        annotations |= _read_tables(files, source)
    if not annotations:
        return None
    images: dict[str, np.ndarray] = {}
    for source, files in sources:
        images |= _read_images(files, source, annotations, config.image_size or DEFAULT_SIZE)
    x_train, y_train, train_names = _assemble(_TRAIN, annotations, images, place)
    x_test, y_test, test_names = _assemble(_TEST, annotations, images, place)
    return Dataset(
        name=config.name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=CLASS_NAMES,
        test_names=test_names,
        train_names=train_names,
    )


def _read_tables(files: _Files, source: str) -> dict[str, Annotation]:
    annotations = {}
    for path, data in files(lambda path: bool(_TABLE.fullmatch(_part(path)))):
        folder = _part(path).rsplit("/", 1)[0]
        text = data.decode("utf-8-sig", errors="replace")
        for annotation in parse_gtsrb_annotations(text, f"{source}: {path}"):
            annotations[f"{folder}/{annotation.name}"] = annotation
    return annotations


def _read_images(
    files: _Files, source: str, annotations: dict[str, Annotation], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    from deepsvdd_jax.datasets.formats.pixels import resize_image, unit_pixels

    images = {}
    for path, data in files(lambda path: _part(path) in annotations):
        image = unit_pixels(decode_image(data, f"{source}: {path}", channels=3), None)
        images[_part(path)] = resize_image(crop_sign(image, annotations[_part(path)]), size)
    return images


def _assemble(
    prefix: str, annotations: dict[str, Annotation], images: dict[str, np.ndarray], place: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    paths = sorted(path for path in annotations if path.startswith(prefix))
    if not paths:
        raise DataError(f"{place}: no table with rows under GTSRB/{prefix}; the data is incomplete")
    for path in paths:
        if path not in images:
            raise DataError(f"{place}: {path} is missing, though its table lists it")
    labels = np.array([annotations[path].label for path in paths], np.int64)
    names = tuple(path.removeprefix(prefix) for path in paths)
    return np.stack([images[path] for path in paths]), labels, names
