"""Arrays in one file with a checksum."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from deepsvdd_jax.io import atomic, npz
from deepsvdd_jax.io.npz import NpzError

# Exceptions that values from a damaged or foreign file can raise.
DAMAGES = (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError)


class ModelError(ValueError):
    """A model folder that cannot be read or written; the message names the file."""


def arrays_in(path: Path, data: bytes) -> dict[str, npt.NDArray[Any]]:
    try:
        return npz.read_npz(io.BytesIO(data), kinds=npz.NUMBERS + npz.TEXT)
    except NpzError as error:
        raise ModelError(f"{path}: damaged: {error}") from error


_ARCHIVE_MAGIC = b"DSVDD1\r\n"
_DIGEST_BYTES = 32


def write_archive(path: Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Writes named arrays into one file, atomically and with a checksum (touches files).

    Raises:
      OSError: it cannot be written; the former file stays.
    """
    data = npz.npz_bytes(arrays)
    atomic.write_bytes(path, _ARCHIVE_MAGIC + hashlib.sha256(data).digest() + data)


def read_archive(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads what `write_archive` wrote (touches files).

    Raises:
      ModelError: the file is missing, cut, or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    start = len(_ARCHIVE_MAGIC) + _DIGEST_BYTES
    digest, data = content[len(_ARCHIVE_MAGIC) : start], content[start:]
    if not content.startswith(_ARCHIVE_MAGIC) or hashlib.sha256(data).digest() != digest:
        raise ModelError(f"{path}: damaged: its checksum is wrong")
    return arrays_in(path, data)
