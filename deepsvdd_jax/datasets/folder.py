"""Loads a folder of images; `layout` describes the layouts that are understood."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import DataError, Dataset, every_fifth, printable
from deepsvdd_jax.datasets.files import describe_left_out, find_images
from deepsvdd_jax.datasets.formats.images import iter_images
from deepsvdd_jax.datasets.layout import (
    DIRECT,
    NORMAL_NAMES,
    Layout,
    every_image,
    sort_paths,
    understand,
)
from deepsvdd_jax.io import memory

_SHOWN_FOLDERS = 5
_SHOWN_LETTERS = 60
_logger = logging.getLogger(__name__)


def load_folder(config: DataConfig) -> Dataset:
    """Loads the images below `data_dir` with their classes (touches files); see `layout`.

    The images directly in `train/` are class 0, 'normal', as are those of `test/normal/`,
    `test/good/` and `test/ok/`; every other folder of `test/` is a class of its own, 1, 2, ... in
    sorted order. Where `train/` holds class folders, or there is no `train/`, the classes are the
    sorted names of all class folders. Without a test part every fifth image of a class is a test
    image (`dataset.every_fifth`), and all of the defects beside `good/` are.

    Args:
      config: `image_size` and `channels` convert all images; where they are None all images must
        agree.

    Returns:
      Images `[n, height, width, channels]`, sorted by path, and their file names relative to
      `train/` and `test/`, or to the folder. uint8; float32 in units of `Dataset.pixel_range` where
      this is configured or files have more than 8 bits a pixel.

    Raises:
      DataError: missing or empty folders, images without a class, a damaged image, images of
        different shapes.
    """
    if config.data_dir is None:
        raise DataError("folder: --data_dir is not given; it must name a folder of images")
    root = Path(config.data_dir)
    layout = read_layout(root)
    _check_classes(layout, root)
    tell_left_out(layout)
    train, test = _labelled(layout)
    paths = [root / path for path, _ in (*train, *test)]
    images = _read_all(paths, config)
    count = len(train)
    pixel_range = range_of_pixels(config, images[:count])
    images = in_range(images, pixel_range)
    test_names = tuple(name_in_part(layout, path) for path, _ in test)
    tell_repeated(images[:count], images[count:], test_names)
    return Dataset(
        name=config.name,
        x_train=images[:count],
        y_train=np.array([label for _, label in train], np.int64),
        x_test=images[count:],
        y_test=np.array([label for _, label in test], np.int64),
        class_names=layout.classes,
        test_names=test_names,
        train_names=tuple(name_in_part(layout, path) for path, _ in train),
        pixel_range=pixel_range,
    )


def load_every_image(config: DataConfig) -> np.ndarray:
    """Returns all images of a folder but masks, `[n, height, width, channels]`, whatever its
    folders are called (touches files); in units of `config.pixel_range` where that is given.

    Raises:
      DataError: see `load_folder`, or images of 8 bits where the range is of more.
    """
    root = Path(str(config.data_dir))
    layout = read_layout(root)
    paths, left_out = every_image(layout)
    tell_left_out(layout._replace(left_out=left_out))
    images = _read_all([root / path for path in paths], config)
    pixel_range = range_of_pixels(config, images)
    if pixel_range is not None and images.dtype == np.uint8 and pixel_range[1] > 255:
        low, high = pixel_range
        raise DataError(f"{root}: 8 bits a pixel, beside images of {low:g} to {high:g}")
    return in_range(images, pixel_range)


def _read_all(paths: Sequence[Path], config: DataConfig) -> np.ndarray:
    """Reads images `[n, height, width, channels]`, unless memory is too small for all of them."""
    read = iter_images(paths, config.image_size, config.channels, megapixels=config.max_megapixels)
    batches: list[np.ndarray] = []
    for _, batch in read:
        if not batches:
            # Memory holds the batches first, then also the array that joins them.
            needed = 2 * len(paths) * batch[0].nbytes
            missing = memory.shortage(needed)
            if missing is not None:
                height, width, channels = batch.shape[1:]
                raise DataError(
                    f"{config.data_dir}: {len(paths)} images of {height} x {width} x {channels}"
                    f" take {missing}; give a smaller --image_size"
                )
        batches.append(batch)
    return np.concatenate(batches)


def range_of_pixels(config: DataConfig, train: np.ndarray) -> tuple[float, float] | None:
    """Returns the pixel values that become 0 and 1: those configured, else the smallest and the
    largest of training images with more than 8 bits a pixel; logs one line.

    Raises:
      DataError: all of these pixels are equal.
    """
    if config.pixel_range is not None:
        return config.pixel_range
    if train.dtype == np.uint8:
        return None
    low, high = float(train.min()), float(train.max())
    if low == high:
        raise DataError(f"{config.data_dir}: all pixels of the training images are {low:g}")
    _logger.warning(
        "more than 8 bits a pixel: %g to %g of the training images become 0 to 1"
        " (--pixel_range=LOW,HIGH states another range)",
        *(low, high),
    )
    return low, high


def in_range(images: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Returns images in units of a range, see `pixels.unit_pixels`, without copying all at once."""
    from deepsvdd_jax.datasets.formats.pixels import unit_pixels

    if pixel_range is None:
        return images
    result = np.empty(images.shape, np.float32)
    for place, image in zip(result, images, strict=True):
        place[...] = unit_pixels(image, pixel_range)
    return result


def read_layout(root: Path) -> Layout:
    """Finds and sorts the images below a folder (touches files).

    Raises:
      DataError: no folder, or one without images, or see `layout.understand` and `check_parts`.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {_no_folder(root)}")
    found = find_images(root)
    if not found.images:
        tail = f"; {describe_left_out(found.left_out)}" if found.left_out else ""
        raise DataError(f"{root}: no images in it{tail}")
    layout = understand(found.images, str(root))
    return layout._replace(left_out=(*found.left_out, *layout.left_out))


def check_parts(layout: Layout, root: Path) -> None:
    """Refuses images whose class the folder does not tell.

    Raises:
      DataError: images directly in `test/`, or beside class folders in `train/`.
    """
    if not layout.has_parts:
        return
    if DIRECT in layout.train:
        first, others = layout.train[DIRECT][0], [name for name in layout.train if name != DIRECT]
        raise DataError(
            f"{root}: the training part holds images ({first}, ...) and class folders"
            f" ({others[0]}, ...); use one or the other"
        )
    if DIRECT in layout.test:
        raise DataError(
            f"{root}: {layout.test[DIRECT][0]}: a test image without a class; put it into"
            " test/normal/ or test/<class>/"
        )


def tell_left_out(layout: Layout) -> None:
    """Logs one line on the files that are left out, if there are any."""
    if layout.left_out:
        _logger.warning("%s", describe_left_out(layout.left_out))


def tell_repeated(train: np.ndarray, test: np.ndarray, test_names: Sequence[str]) -> None:
    """Logs one line where test images are training images too."""
    seen = {_digest(image) for image in train}
    names = [name for name, image in zip(test_names, test, strict=True) if _digest(image) in seen]
    if names:
        _logger.warning(
            "%d of %d test images are training images too (%s%s): figures are too good",
            len(names),
            len(test),
            printable(names[0]),
            ", ..." if len(names) > 1 else "",
        )


def name_in_part(layout: Layout, path: str) -> str:
    """Returns an image's path below `train/` or `test/`, where the folder has these."""
    parts = path.split("/")
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() in ("train", "test")]
    if not (layout.has_parts and places):
        return path
    return "/".join(parts[places[0] + 1 :])


def describe_places(paths: Iterable[str]) -> str:
    """Returns where images lie and how many: `good (476), defects/crack (57)`."""
    counts: dict[str, int] = {}
    for path in paths:
        place = path.rpartition("/")[0]
        counts[place] = counts.get(place, 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])
    shown = [
        f"{'the folder itself' if not place else _shortened(printable(place))} ({count})"
        for place, count in most[:_SHOWN_FOLDERS]
    ]
    if len(most) > _SHOWN_FOLDERS:
        shown.append(f"{len(most) - _SHOWN_FOLDERS} more folders")
    return ", ".join(shown)


def _shortened(place: str) -> str:
    return place if len(place) <= _SHOWN_LETTERS else f"...{place[-_SHOWN_LETTERS:]}"


def _no_folder(path: Path) -> str:
    if not path.exists():
        return "no such folder"
    endings = [ending.lower() for ending in path.suffixes]
    for name in ("csv", "npz"):
        if f".{name}" in endings:
            return f"a file, not a folder of images; add --dataset={name}"
    return "a file, not a folder of images"


def _check_classes(layout: Layout, root: Path) -> None:
    check_parts(layout, root)
    if layout.has_parts:
        return
    if DIRECT in layout.train:
        raise DataError(
            f"{root}: {layout.train[DIRECT][0]}: an image without a class, beside class folders"
        )
    if len(layout.classes) < 2:
        raise DataError(
            f"{root}: nothing tells its images apart; expected train/ and test/<class>/,"
            f" {NORMAL_NAMES[1]}/ beside folders of defects, or a folder for each class"
        )


def _labelled(layout: Layout) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Returns training and test images with the numbers of their classes, sorted by path."""
    numbers = {name: number for number, name in enumerate(layout.classes)}
    train = _with_numbers(layout.train.items(), numbers)
    test = _with_numbers(layout.test.items(), numbers)
    if layout.has_parts:
        return train, test
    kept, held_out = every_fifth(np.array([label for _, label in train]))
    test = sorted((*test, *(train[i] for i in held_out)), key=lambda item: item[0].split("/"))
    return [train[i] for i in kept], test


def _with_numbers(
    part: Iterable[tuple[str, Sequence[str]]], numbers: dict[str, int]
) -> list[tuple[str, int]]:
    labels = {path: numbers[name] for name, paths in part for path in paths}
    return [(path, labels[path]) for path in sort_paths(labels)]


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
