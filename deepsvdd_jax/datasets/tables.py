"""Tabular data in csv files."""

from __future__ import annotations

import array
import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.archives import data_errors, open_plain_or_gzip
from deepsvdd_jax.datasets.dataset import (
    MAX_CLASSES,
    DataError,
    Dataset,
    every_fifth,
    labelled_dataset,
    one_line,
)

LABEL = "label"
MAX_CSV_CHARACTERS = 2 << 30
_MAX_LINE = 1 << 24
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def parse_csv(text: str, source: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Parses a comma-separated table with a header.

    Args:
      text: the whole file.
      source: its name, for messages.

    Returns:
      Features, float32 `[n, features]`; their column names; and the column `label`, int64 `[n]`, or
      None without such a column.

    Raises:
      DataError: no header, a column named twice, no rows, or a value that is missing, no finite
        number, or no class label, named by its line (the header is line 1) and column.
    """
    return _parse_lines(io.StringIO(text, newline=""), source)


def read_csv(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Reads a csv file in UTF-8, gzip or not, line by line (touches files); see `parse_csv`."""
    source = str(path)
    with data_errors(source), open_plain_or_gzip(Path(path)) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        return _parse_lines(_bounded_lines(text, source), source)


def _bounded_lines(text: io.TextIOBase, source: str) -> Iterator[str]:
    """Yields lines; refuses what a small compressed file can blow up to."""
    left = MAX_CSV_CHARACTERS
    while line := text.readline(_MAX_LINE):
        left -= len(line)
        if len(line) == _MAX_LINE or left < 0:
            raise DataError(
                f"{source}: more than {MAX_CSV_CHARACTERS} characters, or {_MAX_LINE} in a line;"
                " not a csv file, or too large for one"
            )
        yield line


def _parse_lines(
    lines: Iterable[str], source: str
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    reader = csv.reader(lines, strict=True)
    numbers = array.array("d")
    try:
        columns = _parse_header(next(reader, []), source)
        for row in reader:
            if row:
                numbers.extend(_parse_row(row, columns, f"{source}: line {reader.line_num}"))
    except csv.Error as error:
        raise DataError(f"{source}: line {reader.line_num}: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: not text in UTF-8 below line {reader.line_num}; not a csv file"
        ) from error
    if not numbers:
        raise DataError(f"{source}: no rows below the header")
    values = np.frombuffer(numbers).reshape(-1, len(columns))
    if LABEL not in columns:
        return values.astype(np.float32), tuple(columns), None
    position = columns.index(LABEL)
    features = np.delete(values, position, axis=1).astype(np.float32)
    names = (*columns[:position], *columns[position + 1 :])
    return features, names, values[:, position].astype(np.int64)


def load_csv(config: DataConfig) -> Dataset:
    """Loads a csv file, or a folder with `train.csv` and `test.csv` (touches files).

    A single file with a column `label` is split: every fifth row of a class is a test row
    (`dataset.every_fifth`); without that column all its rows are normal training rows and the test
    set is empty. In a folder `test.csv` needs the column (it may be left out as a whole); where
    `train.csv` has none its rows are normal, and a test label counts as anomalous unless it is 0.

    Returns:
      float32 rows `[n, features]`.

    Raises:
      DataError: as `parse_csv`; files that are missing or whose columns differ.
    """
    if config.data_dir is None:
        raise DataError(
            "csv: --data_dir is not given; it must name a csv file, or a folder with train.csv"
            " and test.csv"
        )
    root = Path(config.data_dir)
    return _load_parts(root, config) if root.is_dir() else _load_whole(root, config)


def _load_whole(path: Path, config: DataConfig) -> Dataset:
    features, _, labels = read_csv(path)
    if labels is None:
        return labelled_dataset(config.name, features, None, None, None)
    train, test = every_fifth(labels)
    return labelled_dataset(
        config.name, features[train], labels[train], features[test], labels[test]
    )


def _load_parts(root: Path, config: DataConfig) -> Dataset:
    x_train, train_columns, y_train = read_csv(root / "train.csv")
    test = root / "test.csv"
    if not test.is_file():
        return labelled_dataset(config.name, x_train, y_train, None, None)
    x_test, test_columns, y_test = read_csv(test)
    if y_test is None:
        raise DataError(f"{test}: the column {LABEL} is missing; 0 = normal, 1 = anomalous")
    if test_columns != train_columns:
        raise DataError(f"{test}: {_difference(test_columns, train_columns)}")
    return labelled_dataset(config.name, x_train, y_train, x_test, y_test)


def _difference(columns: Sequence[str], expected: Sequence[str]) -> str:
    if len(columns) != len(expected):
        return f"{len(columns)} feature columns, but train.csv has {len(expected)}"
    position = next(i for i, (a, b) in enumerate(zip(columns, expected, strict=True)) if a != b)
    return (
        f"feature column {position + 1} is {columns[position]!r}, but {expected[position]!r} in"
        " train.csv; names and order must agree"
    )


def _parse_header(row: Sequence[str], source: str) -> list[str]:
    columns = [name.strip() for name in row]
    if not columns or "" in columns:
        raise DataError(f"{source}: line 1 must be a header that names every column")
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        raise DataError(f"{source}: columns must be separated by commas")
    if all(_number(name) is not None for name in columns):
        raise DataError(f"{source}: line 1 holds numbers, expected a header with column names")
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{source}: the column {repeated!r} appears twice in the header")
    if columns == [LABEL]:
        raise DataError(f"{source}: no columns beside {LABEL!r}")
    return columns


def _parse_row(row: Sequence[str], columns: Sequence[str], source: str) -> list[float]:
    if len(row) != len(columns):
        raise DataError(f"{source}: {len(row)} values, but the header names {len(columns)} columns")
    return [_value(text, column, source) for text, column in zip(row, columns, strict=True)]


def _value(text: str, column: str, source: str) -> float:
    value = _number(text)
    if value is None:
        found = f"{text.strip()[:40]!r} is not a number" if text.strip() else "the value is missing"
        raise DataError(f"{source}, column {column!r}: {found}")
    if not math.isfinite(value) or abs(value) > _FLOAT32_MAX:
        raise DataError(f"{source}, column {column!r}: {value} is not a finite float32 number")
    if column == LABEL and not (0 <= value < MAX_CLASSES and value == int(value)):
        raise DataError(
            f"{source}, column {column!r}: {value}, expected whole numbers from 0 (normal) up to"
            f" {MAX_CLASSES - 1}"
        )
    return value


def _number(text: str) -> float | None:
    try:
        # Python also reads 1_000, which no other program means as a number.
        return None if "_" in text else float(text)
    except ValueError:
        return None
