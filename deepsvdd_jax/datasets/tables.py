"""Tabular data in csv files."""

from __future__ import annotations

import array
import csv
import io
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import (
    MAX_CLASSES,
    DataError,
    Dataset,
    every_fifth,
    labelled_dataset,
    one_line,
    printable,
)
from deepsvdd_jax.datasets.formats.archives import data_errors, open_plain_or_gzip

LABEL = "label"
MAX_CSV_CHARACTERS = 2 << 30
_MAX_LINE = 1 << 24
_NO_FEATURES = frozenset(
    (
        *("label", "labels", "class", "classes", "target", "targets", "outcome", "y", "outlier"),
        *("anomaly", "anomalous", "is_anomaly", "is_outlier", "defect", "id", "ids", "uuid"),
        *("index", "idx", "row", "serial", "serial_number", "unnamed: 0", "time", "timestamp"),
        *("date", "datetime", "unix_time"),
    )
)
_logger = logging.getLogger(__name__)


class Columns(NamedTuple):
    """The roles of a table's columns.

    Attributes:
      label: column of the classes, 0 = normal; None takes the one named 'label', where it is.
      ignored: columns that are not looked at.
      identifier: column of the rows' names, any text.
      features: columns of the features, in this order; None takes all others, in the file's order.
      required: those of the columns above that must be there.
    """

    label: str | None = None
    ignored: tuple[str, ...] = ()
    identifier: str | None = None
    features: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()


_ANY = Columns()


class Table(NamedTuple):
    """A table of numbers.

    Attributes:
      features: float64 `[n, features]`.
      names: of the features.
      labels: int64 `[n]`, None without a column of labels.
      identifiers: `[n]`, empty without a column of them.
      unused: columns that are neither features nor have another role.
    """

    features: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None
    identifiers: tuple[str, ...]
    unused: tuple[str, ...]


def parse_table(text: str, source: str, columns: Columns = _ANY) -> Table:
    """Parses a comma-separated table with a header.

    Args:
      text: the whole file.
      source: its name, for messages.
      columns: their roles.

    Raises:
      DataError: no header, a column named twice or missing, no rows, or a value that is missing, no
        finite number, or no class label, named by its line (the header is line 1) and column.
    """
    return _parse_lines(io.StringIO(text, newline=""), source, columns)


def read_table(path: str | Path, columns: Columns = _ANY) -> Table:
    """Reads a csv file in UTF-8, gzip or not, line by line (touches files); see `parse_table`."""
    source = str(path)
    with data_errors(source), open_plain_or_gzip(Path(path)) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        return _parse_lines(_bounded_lines(text, source), source, columns)


def read_csv(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Reads features, their names and the column `label`, if there is one (touches files); see
    `read_table`."""
    table = read_table(path)
    return table.features, table.names, table.labels


def columns_of(config: DataConfig) -> Columns:
    """Returns the roles of the columns of a configured table; every named column must be there."""
    ignored = config.ignore_columns or ()
    named = (config.label_column, config.id_column, *ignored)
    required = tuple(name for name in named if name is not None)
    return Columns(config.label_column, ignored, config.id_column, None, required)


def _bounded_lines(text: io.TextIOBase, source: str) -> Iterator[str]:
    """Yields lines; refuses a small compressed file that unpacks to a huge one."""
    left = MAX_CSV_CHARACTERS
    while line := text.readline(_MAX_LINE):
        left -= len(line)
        if len(line) == _MAX_LINE or left < 0:
            raise DataError(
                f"{source}: more than {MAX_CSV_CHARACTERS} characters, or {_MAX_LINE} in a line;"
                " not a csv file, or too large for one"
            )
        yield line


def _parse_lines(lines: Iterable[str], source: str, columns: Columns) -> Table:
    reader = csv.reader(lines, strict=True)
    numbers, labels, identifiers = array.array("d"), array.array("q"), []
    try:
        header = _parse_header(next(reader, []), source)
        roles = _roles(header, columns, source)
        for row in reader:
            if not row:
                continue
            where = f"{source}: line {reader.line_num}"
            if len(row) != len(header):
                raise DataError(
                    f"{where}: {len(row)} values, but the header names {len(header)} columns"
                )
            numbers.extend(_value(row[i], header[i], where) for i in roles.features)
            if roles.label is not None:
                labels.append(_label(row[roles.label], header[roles.label], where))
            if roles.identifier is not None:
                identifiers.append(row[roles.identifier])
    except csv.Error as error:
        raise DataError(f"{source}: line {reader.line_num}: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: not text in UTF-8 below line {reader.line_num}; not a csv file"
        ) from error
    if not numbers:
        raise DataError(f"{source}: no rows below the header")
    return Table(
        np.frombuffer(numbers).reshape(-1, len(roles.features)),
        tuple(header[i] for i in roles.features),
        None if roles.label is None else np.array(labels, np.int64),
        tuple(identifiers),
        tuple(header[i] for i in roles.unused),
    )


def load_csv(config: DataConfig) -> Dataset:
    """Loads a csv file, or a folder with `train.csv` and `test.csv` (touches files).

    A single file with a column of labels is split: every fifth row of a class is a test row
    (`dataset.every_fifth`); without that column all its rows are normal training rows and the test
    set is empty. In a folder `test.csv` needs the column (it may be left out as a whole); where
    `train.csv` has none its rows are normal, and a test label counts as anomalous unless it is 0.
    Its other columns are those of `train.csv`, in any order.

    Args:
      config: `label_column` is `label` where it is None; `ignore_columns` are not looked at, and
        `id_column` names the rows.

    Returns:
      float64 rows `[n, features]`.

    Raises:
      DataError: as `parse_table`; files that are missing or whose columns differ.
    """
    if config.data_dir is None:
        raise DataError(
            "csv: --data_dir is not given; it must name a csv file, or a folder with train.csv"
            " and test.csv"
        )
    root = Path(config.data_dir)
    return _load_parts(root, config) if root.is_dir() else _load_whole(root, config)


def _load_whole(path: Path, config: DataConfig) -> Dataset:
    table = read_table(path, columns_of(config))
    _warn_of_features(path, table)
    features, labels = table.features, table.labels
    if labels is None:
        dataset = labelled_dataset(config.name, features, None, None, None)
        return dataset._replace(train_names=table.identifiers, feature_names=table.names)
    train, test = every_fifth(labels)
    dataset = labelled_dataset(
        config.name, features[train], labels[train], features[test], labels[test]
    )
    named = bool(table.identifiers)
    return dataset._replace(
        feature_names=table.names,
        train_names=tuple(table.identifiers[i] for i in train) if named else (),
        test_names=tuple(table.identifiers[i] for i in test) if named else (),
    )


def _load_parts(root: Path, config: DataConfig) -> Dataset:
    columns = columns_of(config)
    needed = tuple(name for name in columns.required if name != columns.label)
    train = read_table(root / "train.csv", columns._replace(required=needed))
    _warn_of_features(root / "train.csv", train)
    path = root / "test.csv"
    if not path.is_file():
        dataset = labelled_dataset(config.name, train.features, train.labels, None, None)
        return dataset._replace(train_names=train.identifiers, feature_names=train.names)
    label = columns.label or LABEL
    columns = columns._replace(required=(*needed, label), features=train.names)
    test = read_table(path, columns)
    if test.unused:
        raise DataError(f"{path}: the column {test.unused[0]!r} is not in train.csv")
    dataset = labelled_dataset(
        config.name, train.features, train.labels, test.features, test.labels
    )
    return dataset._replace(
        train_names=train.identifiers, test_names=test.identifiers, feature_names=train.names
    )


def _warn_of_features(path: Path, table: Table) -> None:
    """Logs one line on features whose names are usual for labels, identifiers or times."""
    suspects = [name for name in table.names if name.lower() in _NO_FEATURES]
    if suspects:
        _logger.warning(
            "%s: %s taken as %s; if not meant so: --label_column, --id_column, --ignore_columns",
            path,
            ", ".join(map(printable, suspects)),
            "features" if len(suspects) > 1 else "a feature",
        )


class _Roles(NamedTuple):
    """Positions of columns in a file."""

    features: tuple[int, ...]
    label: int | None
    identifier: int | None
    unused: tuple[int, ...]


def _roles(header: Sequence[str], columns: Columns, source: str) -> _Roles:
    positions = {name: position for position, name in enumerate(header)}
    for name in (*columns.required, *(columns.features or ())):
        if name not in positions:
            shown = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
            raise DataError(f"{source}: the column {name!r} is missing; there are {shown}")
    label = positions.get(LABEL if columns.label is None else columns.label)
    if label is not None and header[label] in columns.ignored:
        label = None
    identifier = None if columns.identifier is None else positions.get(columns.identifier)
    taken = {label, identifier, *(positions.get(name) for name in columns.ignored)}
    others = tuple(position for position in range(len(header)) if position not in taken)
    if columns.features is None:
        features = others
    else:
        features = tuple(positions[name] for name in columns.features)
    if not features:
        raise DataError(f"{source}: no columns beside {', '.join(map(repr, header))}")
    unused = tuple(position for position in others if position not in set(features))
    return _Roles(features, label, identifier, unused)


def _parse_header(row: Sequence[str], source: str) -> list[str]:
    columns = [name.strip() for name in row]
    if not columns:
        raise DataError(f"{source}: line 1 must be a header that names every column")
    if "" in columns:
        raise DataError(
            f"{source}: line 1 must be a header that names every column; column"
            f" {columns.index('') + 1} has no name (pandas writes its index so: index=False)"
        )
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        raise DataError(
            f"{source}: columns must be separated by commas, and numbers be written with a point"
        )
    if all(_number(name) is not None for name in columns):
        raise DataError(f"{source}: line 1 holds numbers, expected a header with column names")
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{source}: the column {repeated!r} appears twice in the header")
    return columns


def _value(text: str, column: str, source: str) -> float:
    value = _number(text)
    if value is None:
        raise DataError(
            f"{source}, column {column!r}: {text.strip()[:40]!r} is not a number, as"
            " 1.5; --ignore_columns or --id_column leaves a column out"
            if text.strip()
            else f"{source}, column {column!r}: the value is missing"
        )
    if not math.isfinite(value):
        raise DataError(f"{source}, column {column!r}: {value} is not a finite number")
    return value


def _label(text: str, column: str, source: str) -> int:
    value = _number(text)
    if value is None or not (0 <= value < MAX_CLASSES and value == int(value)):
        found = repr(text.strip()[:40]) if text.strip() else "the value is missing"
        raise DataError(
            f"{source}, column {column!r}: {found}, expected whole numbers from 0 (normal) up to"
            f" {MAX_CLASSES - 1}"
        )
    return int(value)


def _number(text: str) -> float | None:
    try:
        # Python also reads 1_000, which no other program means as a number.
        return None if "_" in text else float(text)
    except ValueError:
        return None
