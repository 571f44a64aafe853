"""CIFAR-10 in its binary version (https://www.cs.toronto.edu/~kriz/cifar.html).

A record is one label byte and 3,072 pixel bytes: the red, green and blue plane of 32 rows each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset
from deepsvdd_jax.datasets.formats.archives import read_file, tar_files

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_FOLDER = "cifar-10-batches-bin"
_ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-binary.tar")
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_META = "batches.meta.txt"
_RECORD_BYTES = 1 + 3 * 32 * 32


def parse_cifar_records(data: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Parses one batch file of CIFAR-10.

    Args:
      data: the whole file.
      source: its name, for messages.

    Returns:
      Images, uint8 `[n, 32, 32, 3]`, and labels, int64 `[n]`.

    Raises:
      DataError: no whole number of records, no record at all, or a label above 9.
    """
    if len(data) == 0 or len(data) % _RECORD_BYTES:
        raise DataError(
            f"{source}: {len(data)} bytes, expected a positive multiple of {_RECORD_BYTES}"
            " (1 label byte and 3072 pixel bytes); truncated or not the binary version of CIFAR-10"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() > 9:
        index = int(np.argmax(labels > 9))
        raise DataError(
            f"{source}: label {labels[index]} in record {index}, expected 0 to 9;"
            " not the binary version of CIFAR-10"
        )
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int64)


def parse_cifar_names(data: bytes, source: str) -> tuple[str, ...]:
    """Parses `batches.meta.txt`, ten class names, one a line.

    Raises:
      DataError: not text, or not ten names.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not text, expected ten class names, one a line") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != 10:
        raise DataError(f"{source}: {len(names)} class names, expected ten, one a line")
    return names


def read_cifar10_folder(folder: Path, name: str) -> Dataset | None:
    """Reads CIFAR-10 from its archive or from the unpacked batches (touches files).

    Args:
      folder: holds `cifar-10-binary.tar.gz`, or `cifar-10-batches-bin/`, or the batches themselves.
      name: name of the data set.

    Returns:
      uint8 images `[n, 32, 32, 3]` in file order; None if nothing of CIFAR-10 is there.

    Raises:
      DataError: a batch missing, truncated, or foreign.
    """
    for archive in _ARCHIVES:
        if (folder / archive).is_file():
            return _assemble(_archive_files(folder / archive), str(folder / archive), name)
    for unpacked in (folder / _FOLDER, folder):
        files = _unpacked_files(unpacked)
        if files:
            return _assemble(files, str(unpacked), name)
    return None


def _is_part(path: str) -> bool:
    return path.rsplit("/", 1)[-1] in (*_TRAIN, _TEST, _META)


def _archive_files(path: Path) -> dict[str, bytes]:
    return {member.rsplit("/", 1)[-1]: data for member, data in tar_files(path, _is_part)}


def _unpacked_files(folder: Path) -> dict[str, bytes]:
    paths = [folder / part for part in (*_TRAIN, _TEST, _META)]
    return {path.name: read_file(path) for path in paths if path.is_file()}


def _assemble(files: dict[str, bytes], source: str, name: str) -> Dataset:
    for part in (*_TRAIN, _TEST):
        if part not in files:
            raise DataError(f"{source}: {part} is missing; fetch {_ARCHIVES[0]} again")
    batches = [parse_cifar_records(files[part], f"{source}: {part}") for part in _TRAIN]
    x_test, y_test = parse_cifar_records(files[_TEST], f"{source}: {_TEST}")
    class_names: tuple[str, ...] = CLASS_NAMES
    if _META in files:
        class_names = parse_cifar_names(files[_META], f"{source}: {_META}")
    return Dataset(
        name=name,
        x_train=np.concatenate([images for images, _ in batches]),
        y_train=np.concatenate([labels for _, labels in batches]),
        x_test=x_test,
        y_test=y_test,
        class_names=class_names,
    )
