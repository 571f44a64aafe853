"""npy and npz files of arrays, read without pickle and within bounds: an array's header is compared
with the bytes that are there before memory is asked for."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.io import memory

MAX_BYTES = 8 << 30
NUMBERS = "buif"
"""Kinds of numpy types: booleans, integers, floats."""
TEXT = "U"

# Only a crafted header is longer than this (numpy's own default).
_MAX_HEADER_BYTES = 10_000
_CHUNK = 1 << 20


class NpzError(ValueError):
    """Bytes that are not intact arrays of an allowed type; one line says why."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_bounded(stream: _Readable, limit: int) -> bytes:
    """Reads at most `limit` bytes in pieces, so that memory follows what is really there."""
    return bytes(_read_at_most(stream, limit))


def _read_at_most(stream: _Readable, limit: int, start: bytes = b"") -> bytearray:
    """Returns `start` followed by at most `limit` more bytes."""
    data = bytearray(start)
    limit += len(start)
    while len(data) < limit:
        piece = stream.read(min(_CHUNK, limit - len(data)))
        if not piece:
            break
        data += piece
    return data


def npz_bytes(arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """Returns named arrays as the bytes of an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(values) for name, values in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(
    stream: IO[bytes], names: Collection[str] | None = None, kinds: str = NUMBERS
) -> dict[str, npt.NDArray[Any]]:
    """Reads arrays of an npz file.

    Args:
      stream: the file, open for reading; it must be seekable.
      names: of the arrays to read, where they are there; None reads all.
      kinds: of numpy types that are allowed.

    Returns:
      The arrays by name, in the order of `names` or of the file.

    Raises:
      NpzError: no npz file, or a member that is damaged, oversized, or not an array of such a type.
      OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            there = {name.removesuffix(".npy"): name for name in archive.namelist()}
            wanted = there if names is None else [name for name in names if name in there]
            arrays: dict[str, npt.NDArray[Any]] = {}
            left = MAX_BYTES
            for name in wanted:
                arrays[name] = _read_member(archive, there[name], name, left, kinds)
                left -= arrays[name].nbytes
            return arrays
    except NpzError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        # On damaged or foreign archives zipfile raises these beside its own error.
        NotImplementedError,
        RuntimeError,
        ValueError,
        KeyError,
        OverflowError,
    ) as error:
        raise NpzError(f"not an intact npz file ({_one_line(error)})") from error


def parse_npy(data: bytes, kinds: str = NUMBERS) -> npt.NDArray[Any]:
    """Parses a whole npy file.

    Raises:
      NpzError: not npy, an array of another type, or another length than the header promises.
    """
    return _read_npy(io.BytesIO(data), len(data), MAX_BYTES, kinds)


def _read_member(
    archive: zipfile.ZipFile, member: str, name: str, limit: int, kinds: str
) -> npt.NDArray[Any]:
    info = archive.getinfo(member)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NpzError(f"{name}: packed in a way that numpy never writes")
    try:
        with archive.open(info) as stream:
            return _read_npy(stream, info.file_size, limit, kinds)
    except NpzError as error:
        raise NpzError(f"{name}: {error}") from error


def _read_npy(stream: IO[bytes], size: int, limit: int, kinds: str) -> npt.NDArray[Any]:
    head = read_bounded(stream, _MAX_HEADER_BYTES)
    shape, fortran_order, dtype, header_bytes = _npy_header(head)
    if dtype.hasobject:
        raise NpzError("pickled objects are refused; save an array of plain numbers")
    if dtype.kind not in kinds:
        raise NpzError(f"type {dtype}, expected booleans, whole numbers or floats")
    promised = math.prod(shape) * dtype.itemsize
    if promised != size - header_bytes:
        raise NpzError(
            f"the header promises {promised} bytes of shape {shape}, the file holds"
            f" {size - header_bytes}; truncated or damaged"
        )
    if promised > limit:
        raise NpzError(f"{promised} bytes, at most {MAX_BYTES} are read of a file")
    # Checked before unpacking; whoever uses the array takes at least as much memory again.
    missing = memory.shortage(2 * promised)
    if missing is not None:
        raise NpzError(f"an array of shape {shape} takes {missing}")
    data = _read_at_most(stream, size + 1 - len(head), head[header_bytes:])
    if len(data) != promised:
        raise NpzError(f"{len(data)} bytes where {promised} are promised; damaged")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return values.astype(dtype.newbyteorder("="), order="C", copy=False)


def _npy_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns shape, Fortran order, type and the header's length."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = readers[version](stream, _MAX_HEADER_BYTES)
    except Exception as error:  # numpy evaluates the header as Python text: anything may come.
        raise NpzError(f"not an npy array ({_one_line(error)})") from error
    if any(side < 0 for side in shape):
        raise NpzError(f"not an npy array (shape {shape})")
    return shape, fortran_order, dtype, stream.tell()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
