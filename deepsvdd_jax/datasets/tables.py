"""Tabular data in csv files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.archives import read_file
from deepsvdd_jax.datasets.dataset import (
    MAX_CLASSES,
    DataError,
    Dataset,
    every_fifth,
    labelled_dataset,
    one_line,
)

LABEL = "label"
MAX_CSV_BYTES = 8 << 30
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
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _parse_header(next(reader, []), source)
        rows = [
            _parse_row(row, columns, f"{source}: line {reader.line_num}") for row in reader if row
        ]
    except csv.Error as error:
        raise DataError(f"{source}: line {reader.line_num}: {one_line(error)}") from error
    if not rows:
        raise DataError(f"{source}: no rows below the header")
    values = np.array(rows, np.float64)
    if LABEL not in columns:
        return values.astype(np.float32), tuple(columns), None
    position = columns.index(LABEL)
    features = np.delete(values, position, axis=1).astype(np.float32)
    names = (*columns[:position], *columns[position + 1 :])
    return features, names, values[:, position].astype(np.int64)


def read_csv(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Reads a csv file in UTF-8, gzip or not (touches files); see `parse_csv`."""
    data = read_file(Path(path), MAX_CSV_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not text in UTF-8; not a csv file"
        ) from error
    return parse_csv(text, str(path))


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
