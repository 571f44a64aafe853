"""Data sets prepared by TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS stores its records in another order than the original archives.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset, one_line
from deepsvdd_jax.datasets.formats.archives import read_file

FILE_FORMAT = "array_record"


def default_data_dir() -> Path:
    """Returns TFDS's own default folder: `TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def find_prepared(root: Path, name: str) -> Path | None:
    """Finds the newest prepared version of a data set (touches files).

    Returns:
      `<root>/<name>/<version>`, or None if there is no such folder with a `dataset_info.json`.
    """
    infos = (root / name).glob("*/dataset_info.json")
    versions = [path.parent for path in infos if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)]
    return max(
        versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None
    )


def read_prepared(folder: Path, name: str, class_names: tuple[str, ...]) -> Dataset:
    """Reads a prepared data set (touches files); needs no TensorFlow.

    Args:
      folder: `<root>/<name>/<version>`, as `find_prepared` returns it.
      name: TFDS's name of the data set.
      class_names: names of its classes.

    Returns:
      uint8 images `[n, height, width, channels]`, in TFDS's order.

    Raises:
      DataError: prepared in another file format than array_record, damaged, or TFDS not installed.
    """
    _check_format(folder, name)
    tfds = _import_tfds()
    try:
        builder = tfds.builder(
            f"{name}:{folder.name}", data_dir=str(folder.parent.parent), file_format=FILE_FORMAT
        )
        train, test = (builder.as_data_source(split) for split in ("train", "test"))
        return read_sources(train, test, name, class_names, str(folder))
    except DataError:
        raise
    except Exception as error:  # TFDS and array_record raise nearly anything on damaged files.
        raise DataError(
            f"{folder}: TFDS cannot read it ({one_line(error)}); delete it and prepare it again"
        ) from error


def read_sources(
    train: Sequence[Any], test: Sequence[Any], name: str, class_names: tuple[str, ...], source: str
) -> Dataset:
    """Collects TFDS data sources of `{'image', 'label'}` examples into a data set.

    Args:
      train: data source of the training split.
      test: data source of the test split.
      name: name of the data set.
      class_names: names of its classes.
      source: where it comes from, for messages.

    Raises:
      DataError: images that are not uint8 of one shape, labels without a class, an empty split.
    """
    x_train, y_train = _collect(train, len(class_names), f"{source}: train")
    x_test, y_test = _collect(test, len(class_names), f"{source}: test")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{source}: training images {x_train.shape[1:]}, test images {x_test.shape[1:]}"
        )
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=class_names,
    )


def prepare(root: Path, name: str, archives: Path | None) -> None:
    """Lets TFDS download and prepare a data set as array_record (touches files and the network).

    Args:
      root: folder that receives `<name>/<version>/`.
      name: TFDS's name of the data set.
      archives: folder of original archives, which TFDS takes instead of downloading those whose
        checksum it knows; None: everything is downloaded.

    Raises:
      DataError: TensorFlow not installed, no network, a checksum that differs, no space.
    """
    for module in ("tensorflow", "importlib_resources"):
        if importlib.util.find_spec(module) is None:
            advice = "" if archives is None else f", or read {archives} without --prepare"
            raise DataError(
                f"{name}: preparing needs the package {module}: pip install 'deepsvdd_jax[tfds]'"
                f"{advice}"
            )
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=str(root), file_format=FILE_FORMAT)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=None if archives is None else str(archives), try_download_gcs=False
            )
        )
    except Exception as error:  # Network, checksums and disk each have exceptions of their own.
        raise DataError(
            f"{name}: TFDS could not prepare it in {root} ({one_line(error)}); check the network,"
            " or put the original archives into --data_dir"
        ) from error


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"reading a prepared TFDS tree fails ({one_line(error)}):"
            " pip install 'deepsvdd_jax[tfds]'"
        ) from error
    return tfds


def _check_format(folder: Path, name: str) -> None:
    path = folder / "dataset_info.json"
    try:
        info = json.loads(read_file(path))
        formats = [info.get("fileFormat") or "tfrecord", *info.get("alternativeFileFormats", ())]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({one_line(error)}); prepare {name} again") from error
    if FILE_FORMAT not in formats:
        raise DataError(
            f"{folder}: prepared as {formats[0]}, which cannot be read without TensorFlow; prepare"
            f" it again with file_format='{FILE_FORMAT}' in another --data_dir (--prepare does)"
        )


def _collect(source: Sequence[Any], classes: int, place: str) -> tuple[np.ndarray, np.ndarray]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for index in range(len(source)):
        example = source[index]
        images.append(np.asarray(example["image"]))
        labels.append(int(example["label"]))
    if not images:
        raise DataError(f"{place}: no examples; prepare it again")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape != images[0].shape:
            raise DataError(
                f"{place}: example {index} is {image.dtype} of shape {image.shape}, expected uint8"
                f" of shape {images[0].shape}"
            )
        if not 0 <= label < classes:
            raise DataError(f"{place}: label {label} in example {index}, not in 0 to {classes - 1}")
    return np.stack(images), np.array(labels, np.int64)
