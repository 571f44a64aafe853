"""Bounded reading of files, gzip streams and tar archives that may be truncated or hostile."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from deepsvdd_jax.datasets.dataset import DataError, one_line
from deepsvdd_jax.io.npz import read_bounded

MAX_ARCHIVE_BYTES = 4 << 30
MAX_MEMBER_BYTES = 256 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@contextlib.contextmanager
def data_errors(source: str, hint: str = "") -> Iterator[None]:
    """Turns what the operating system and the decompressors raise into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{source}: not found{hint}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: truncated or damaged ({one_line(error)}){hint}") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({one_line(error)}){hint}") from error


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to read its bytes (touches files).

    Raises:
      DataError: a pipe, a socket or a device, which might never end.
      OSError: no such file, or it cannot be read.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{os.fspath(path)}: no regular file but a pipe or a device")
    return open(path, "rb")


@contextlib.contextmanager
def open_plain_or_gzip(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, decompressed if it starts as gzip does, whatever its name (touches files)."""
    with open_regular(path) as raw:
        is_gzip = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast(BinaryIO, stream)


def read_file(path: Path, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """Reads a file, decompressed if it is gzip (touches files).

    Raises:
      DataError: missing, unreadable, damaged, or more than `limit` bytes.
    """
    with data_errors(str(path)), open_plain_or_gzip(path) as stream:
        data = read_bounded(stream, limit + 1)
    if len(data) > limit:
        raise DataError(f"{path}: more than {limit} bytes, larger than any file of this kind")
    return data


def folder_files(root: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields the wanted files of a folder, in sorted order (touches files).

    Args:
      root: the folder.
      wanted: predicate on a path relative to `root`, written with slashes.

    Yields:
      The relative path and the content.
    """
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if wanted(relative):
                yield relative, read_file(path)


def tar_files(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields the wanted files of a tar or tar.gz archive, in its order, in memory (touches files).

    Nothing is written to disk.

    Args:
      path: the archive.
      wanted: predicate on a member's path, without a leading './'.

    Yields:
      The member's path and content.

    Raises:
      DataError: a damaged archive, a member that is a link or device, is absolute or leaves the
        archive's folder, or sizes beyond `MAX_MEMBER_BYTES` and `MAX_ARCHIVE_BYTES`.
    """
    with _tar_errors(path), open_plain_or_gzip(path) as stream:
        bounded = cast(BinaryIO, _BoundedStream(stream, str(path)))
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for member in archive:
                name = _member_name(member, path)
                if member.isfile() and wanted(name):
                    yield name, _member_data(archive, member, path)


@contextlib.contextmanager
def _tar_errors(path: Path) -> Iterator[None]:
    try:
        with data_errors(str(path)):
            yield
    except DataError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not an intact tar archive ({one_line(error)})") from error


def _member_name(member: tarfile.TarInfo, path: Path) -> str:
    """Returns a member's path without a leading './', or refuses the archive."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        raise DataError(
            f"{path}: member {member.name!r} points outside the archive; refused, use the original"
        )
    if "\0" in member.name:
        raise DataError(f"{path}: member {member.name!r} is no file name; use the original archive")
    if not (member.isfile() or member.isdir()):
        raise DataError(
            f"{path}: member {member.name!r} is a link or a device; refused, use the original"
        )
    return "/".join(part for part in parts if part != ".")


def _member_data(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    source = f"{path}: member {member.name!r}"
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(f"{source} promises {member.size} bytes, allowed are {MAX_MEMBER_BYTES}")
    stream = archive.extractfile(member)
    data = read_bounded(stream, member.size) if stream is not None else b""
    if len(data) != member.size:
        raise DataError(f"{source} is truncated: {len(data)} of {member.size} bytes")
    return data


class _BoundedStream:
    """A seekable stream that refuses huge reads and huge positions (a header may promise both)."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream = stream
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise DataError(f"{self._source}: a header promises {size} bytes; refused")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > MAX_ARCHIVE_BYTES:
            raise DataError(
                f"{self._source}: more than {MAX_ARCHIVE_BYTES} bytes unpacked; refused"
            )
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def data_folders(data_dir: str | None, name: str) -> list[Path]:
    """Lists the folders that may hold the original archives of a data set (touches files).

    Returns:
      `<data_dir>/<name>` if it exists, then `data_dir` itself; nothing without a `data_dir`.

    Raises:
      DataError: `data_dir` is not a folder.
    """
    if data_dir is None:
        return []
    root = Path(data_dir)
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; --data_dir must hold the {name} data")
    return [folder for folder in (root / name, root) if folder.is_dir()]
