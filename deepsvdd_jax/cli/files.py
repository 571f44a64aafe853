"""Text, JSON and csv files of commands, written whole or not at all."""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from deepsvdd_jax.io import atomic


class ResultsError(ValueError):
    """A results folder that cannot be used; the message names it and says why."""


class WriteError(OSError):
    """A file of a results folder that could not be written; the message names it."""


Row = dict[str, str]


class TableWriter(Protocol):
    """A csv writer."""

    def writerow(self, row: Iterable[object], /) -> object: ...

    def writerows(self, rows: Iterable[Iterable[object]], /) -> object: ...


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a sweep (touches files).

    Raises:
      ResultsError: it is missing, or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: damaged: {error}; restore it or give another --out") from None
    if not isinstance(values, dict):
        raise ResultsError(f"{path}: damaged: not an object; restore it or give another --out")
    return values


def format_value(value: object) -> str:
    """Returns a cell: floats with all digits that tell them apart, None and NaN empty."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    """Returns the rows of a csv file, every cell by `format_value`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([format_value(cell) for cell in line] for line in lines)
    return buffer.getvalue()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object (touches files); raises WriteError."""
    write_text(path, json.dumps(values, indent=2))


def write_table(path: Path, lines: Iterable[Iterable[object]]) -> None:
    """Writes a csv file from its lines, the header first (touches files); raises WriteError."""
    write_text(path, csv_text(lines))


def remove(path: Path) -> None:
    """Removes a file if it is there (touches files); raises WriteError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot remove {path}: {error.strerror or error}") from None


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads a csv file that `write_table` wrote (touches files).

    Raises:
      ResultsError: it is missing or damaged, or has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file, strict=True))
        if header != list(columns):
            raise ValueError(f"its columns are {','.join(header)[:80]}")
        return [dict(zip(header, line, strict=True)) for line in lines]
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from None
    except (csv.Error, ValueError) as error:
        raise ResultsError(f"{path}: damaged: {error}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically (touches files); raises WriteError."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically (touches files).

    Raises:
      WriteError: it cannot be written; the former file stays.
    """
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def new_table(path: Path) -> Iterator[TableWriter]:
    """Gives a csv writer into a draft, which becomes the file in the end (touches files).

    The bytes of a name that is not UTF-8 are written as \\xff.

    Raises:
      ResultsError: no draft can be written beside the file.
      WriteError: the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(atomic.writing(path))
        except OSError as error:
            raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
        try:
            yield csv.writer(_UnixLines(file))
            # The last rows, still buffered, may find the disk full.
            stack.close()
        except WriteError:
            raise
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


class _UnixLines:
    """Ends rows with a line feed alone. A csv writer that is set to do so leaves a carriage return
    within a name unquoted, and readers then end the row there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        line = row.removesuffix("\r\n") + "\n"
        self._file.write(line.encode("utf-8", errors="backslashreplace"))
