"""The idx format of MNIST, Fashion-MNIST and KMNIST.

http://yann.lecun.com/exdb/mnist/: two zero bytes, a type byte, the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from deepsvdd_jax.datasets.dataset import DataError, Dataset
from deepsvdd_jax.datasets.formats.archives import data_errors, open_plain_or_gzip
from deepsvdd_jax.io.npz import read_bounded

MAX_IDX_BYTES = 1 << 30
_MAGIC_BYTES = 4
_UNSIGNED_BYTES = b"\x00\x00\x08"

CLASS_NAMES = {
    "mnist": tuple(str(digit) for digit in range(10)),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


def parse_idx(data: bytes, source: str) -> np.ndarray:
    """Parses an uncompressed idx file of unsigned bytes.

    Args:
      data: the whole file.
      source: its name, for messages.

    Returns:
      uint8, of the shape that the header states, with 1 to 4 dimensions.

    Raises:
      DataError: a foreign magic number, no values, or another length than the header promises.
    """
    shape = _parse_shape(data, source)
    offset = _header_bytes(len(shape))
    promised = math.prod(shape)
    if len(data) - offset != promised:
        relation = "truncated" if len(data) - offset < promised else "too long"
        raise DataError(
            f"{source}: {relation}: the header promises {promised} bytes of shape {shape},"
            f" the file holds {len(data) - offset}{'' if relation == 'truncated' else ' or more'};"
            " fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape).copy()


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file, gzip or not (touches files).

    Never holds more than the header promises or the file really contains, whichever is less.

    Raises:
      DataError: as `parse_idx`; an unreadable or damaged file; more than `MAX_IDX_BYTES`.
    """
    source = str(path)
    with data_errors(source, "; fetch it again"), open_plain_or_gzip(path) as stream:
        header = read_bounded(stream, _MAGIC_BYTES)
        if len(header) == _MAGIC_BYTES:
            header += read_bounded(stream, _header_bytes(header[3]) - _MAGIC_BYTES)
        promised = math.prod(_parse_shape(header, source))
        if promised > MAX_IDX_BYTES:
            raise DataError(
                f"{source}: the header promises {promised} bytes, at most {MAX_IDX_BYTES} allowed"
            )
        return parse_idx(header + read_bounded(stream, promised + 1), source)


def read_idx_folder(folder: Path, name: str) -> Dataset | None:
    """Reads a data set of MNIST's form from its four files, gzip or not (touches files).

    Args:
      folder: holds `train-images-idx3-ubyte[.gz]` (or `train-images.idx3-ubyte[.gz]`), and so on.
      name: a key of `CLASS_NAMES`.

    Returns:
      uint8 images `[n, 28, 28, 1]` in file order; None if none of the four files is there.

    Raises:
      DataError: some of the four files missing, or any of them unusable.
    """
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    paths = [_find(folder, stem) for stem in stems]
    if not any(paths):
        return None
    for stem, path in zip(stems, paths, strict=True):
        if path is None:
            raise DataError(f"{folder / stem}-ubyte.gz: not found beside the other {name} archives")
    found = [path for path in paths if path is not None]
    x_train, y_train = _read_pair(found[0], found[1])
    x_test, y_test = _read_pair(found[2], found[3])
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=CLASS_NAMES[name],
    )


def _header_bytes(dimensions: int) -> int:
    return _MAGIC_BYTES + 4 * dimensions


def _parse_shape(data: bytes, source: str) -> tuple[int, ...]:
    if len(data) < _MAGIC_BYTES:
        raise DataError(f"{source}: truncated: {len(data)} bytes, not even an idx header")
    dimensions = data[3]
    if data[:3] != _UNSIGNED_BYTES or not 1 <= dimensions <= 4:
        raise DataError(
            f"{source}: not an idx file of unsigned bytes: it starts with {data[:4].hex()},"
            " expected 00000801 (labels) or 00000803 (images)"
        )
    end = _header_bytes(dimensions)
    if len(data) < end:
        raise DataError(f"{source}: truncated inside its header of {end} bytes")
    shape = struct.unpack(f">{dimensions}I", data[_MAGIC_BYTES:end])
    # An empty array may state any other sizes, and numpy refuses some of them.
    if 0 in shape:
        raise DataError(f"{source}: empty: its header states shape {shape}; fetch it again")
    return shape


def _find(folder: Path, stem: str) -> Path | None:
    names = (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte")
    for name in names:
        for suffix in (".gz", ""):
            path = folder / (name + suffix)
            if path.is_file():
                return path
    return None


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split: uint8 `[n, 28, 28, 1]` and int64 `[n]`."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: shape {images.shape}, expected images (n, 28, 28)")
    if labels.ndim != 1:
        raise DataError(f"{labels_path}: shape {labels.shape}, expected labels (n,)")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of"
            f" {images_path.name}; the two files belong to different data sets"
        )
    if labels.max() > 9:
        raise DataError(f"{labels_path}: label {labels.max()}, expected 0 to 9")
    return images[..., None], labels.astype(np.int64)
