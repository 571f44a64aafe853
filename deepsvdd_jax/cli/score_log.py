"""A scores file that grows: rows are appended whole, survive a kill, and are never written twice.

A restarted command needs only the file itself: it holds the samples that were scored, in order, and
their scores.
"""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np

from deepsvdd_jax.cli import files

COLUMNS = ("name", "score", "p_value", "anomalous", "drift")

# A further column with the drift alarm's level of evidence, where that is not the usual one.
ALARM = "drift_alarm"


class LoggedRow(NamedTuple):
    """A row of the file.

    Attributes:
      name: of the sample.
      score: higher is more anomalous.
      p_value: empty where the model has no calibration scores.
      anomalous: 1 or 0.
      drift: capital of the drift alarm after this sample; empty where there is none.
      more: cells of the further columns.
    """

    name: str
    score: float
    p_value: str
    anomalous: int
    drift: str
    more: tuple[str, ...] = ()


class ScoreLog:
    """A file of scores that one process appends to; made by `open_log`."""

    def __init__(self, path: Path, descriptor: int, rows: list[LoggedRow]) -> None:
        self.path = path
        self.rows = rows
        self._descriptor = descriptor

    def append(self, rows: Sequence[LoggedRow]) -> None:
        """Appends rows, all of them or none (touches files).

        Raises:
          WriteError: they cannot be written, for example on a full disk; the file is as before, and
            the same rows can be tried again.
        """
        size = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, _csv_bytes(rows))
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise files.WriteError(f"{self.path}: {error.strerror or error}") from None
        self.rows.extend(rows)


@contextlib.contextmanager
def open_log(path: Path, more: Sequence[str] = ()) -> Iterator[ScoreLog]:
    """Opens a scores file to append to, or makes one (touches files).

    Cuts off half a row at its end, which a kill in the middle of a write leaves.

    Args:
      path: of the file.
      more: columns after `COLUMNS`.

    Yields:
      The log, with the rows that are there.

    Raises:
      ResultsError: it cannot be written, another process appends to it, or it is another file.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise files.ResultsError(
            f"{path}: another command appends to it; stop that one, or give another --out"
        ) from None
    except OSError as error:
        raise files.ResultsError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield from _opened(path, (*COLUMNS, *more))
    finally:
        lock.release()


def is_log(path: Path) -> bool:
    """Returns whether a file is one that grows, even if its first row is cut (touches files)."""
    header = ",".join(COLUMNS).encode()
    with path.open("rb") as file:
        start = file.read(len(header))
    return header.startswith(start)


def first_row(path: Path) -> dict[str, str]:
    """Returns the first row of a file by column; empty where there is none (touches files)."""
    try:
        with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
            found = next(csv.DictReader(file), {})
    except (OSError, csv.Error):
        return {}
    return {column: cell for column, cell in found.items() if column and cell}


def _opened(path: Path, columns: tuple[str, ...]) -> Iterator[ScoreLog]:
    if path.exists() and not path.is_file():
        raise files.ResultsError(f"{path}: not a file; --out names a csv file")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise files.ResultsError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        content = path.read_bytes()
        whole = content[: whole_rows(content)]
        rows = _read_rows(path, whole, columns) if whole else []
        if not whole:
            if not is_log(path):
                raise _another_file(path, columns)
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, files.csv_text([columns]).encode())
        elif len(whole) < len(content):
            os.ftruncate(descriptor, len(whole))
        yield ScoreLog(path, descriptor, rows)
    finally:
        os.close(descriptor)


def whole_rows(content: bytes) -> int:
    """Returns how many bytes at the start of a csv file are whole rows: up to the last line feed
    that is not within quotes."""
    values = np.frombuffer(content, np.uint8)
    outside = np.cumsum(values == ord('"')) % 2 == 0
    ends = np.flatnonzero((values == ord("\n")) & outside)
    return int(ends[-1]) + 1 if len(ends) else 0


def _read_rows(path: Path, content: bytes, columns: tuple[str, ...]) -> list[LoggedRow]:
    text = content.decode("utf-8", errors="backslashreplace")
    reader = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(reader)) != columns:
        raise _another_file(path, columns)
    rows = []
    for cells in reader:
        try:
            name, score, p_value, anomalous, capital, *more = cells
            row = LoggedRow(
                name=name,
                score=float(score),
                p_value=p_value,
                anomalous=int(anomalous),
                drift=capital,
                more=tuple(more),
            )
            if len(cells) != len(columns):
                raise ValueError
        except ValueError:
            raise files.ResultsError(
                f"{path}, line {reader.line_num}: not a row of {','.join(columns)}; give another "
                "--out, or remove the line"
            ) from None
        rows.append(row)
    return rows


def _another_file(path: Path, columns: tuple[str, ...]) -> files.ResultsError:
    return files.ResultsError(
        f"{path}: another file is there, and nothing is written over it; its first line should be "
        f"{','.join(columns)}"
    )


def written_name(name: str) -> str:
    """Returns a sample's name as it stands in the file: text in UTF-8 without carriage returns."""
    text = name.encode("utf-8", errors="backslashreplace").decode("utf-8")
    # A csv writer whose rows end with a line feed leaves a carriage return unquoted.
    return text.replace("\r", "\\r")


def _csv_bytes(rows: Iterable[LoggedRow]) -> bytes:
    cells = ((written_name(row.name), *row[1:-1], *row.more) for row in rows)
    return files.csv_text(cells).encode("utf-8")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
