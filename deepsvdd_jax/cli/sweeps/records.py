"""What a finished run leaves in a sweep's folder: its row, scores and history."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.files import (
    ResultsError,
    Row,
    WriteError,
    csv_text,
    format_value,
    write_bytes,
    write_table,
    write_text,
)
from deepsvdd_jax.io import archives, npz

SUMMARY_COLUMNS = (
    *("dataset", "normal_class", "method", "objective", "runs"),
    *("auroc_mean", "auroc_std", "auroc_ensemble", "auroc_untrained_mean"),
)


class RunName(NamedTuple):
    """What tells one run of a sweep from another."""

    method: str
    normal_class: int
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.method}-class{self.normal_class}-seed{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A finished run: a row of `runs.csv`, its fields in the order of the columns.

    None, as NaN, is an empty cell: a figure that has no meaning for the run.

    Attributes:
      dataset: its name.
      protocol: what is normal, see `SplitConfig`.
      normal_class: the class that counts as normal.
      method: that made the scores.
      objective: of a deep method.
      seed: of the run.
      auroc: over the test set, in [0, 1].
      average_precision: likewise.
      fpr95: share of normal samples above the threshold that finds 95 % of the anomalies.
      auroc_untrained: of the same network before any training.
      threshold: above which a score is anomalous; the next four are at it.
      accuracy: share of test samples called rightly.
      precision: of those called anomalous, the share that is.
      recall: of the anomalies, the share called so.
      f1: harmonic mean of the two.
      epochs: that were trained.
      train_seconds: its share of the time of its program.
      collapsed: whether the network maps all inputs to nearly one point.
      failed_epoch: in which the run failed.
      failure: why it has no scores.
      selection: how a baseline's settings were chosen.
      test_minimum: of the scores of the test set; likewise the next three.
      test_maximum: see `test_minimum`.
      test_mean: see `test_minimum`.
      test_median: see `test_minimum`.
      train_minimum: of the scores of the training set.
      train_maximum: see `train_minimum`.
      outside: fraction of the training samples outside the radius that training ended with.
    """

    dataset: str
    protocol: str
    normal_class: int
    method: str
    objective: str | None = None
    seed: int
    auroc: float | None = None
    average_precision: float | None = None
    fpr95: float | None = None
    auroc_untrained: float | None = None
    threshold: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    epochs: int | None = None
    train_seconds: float | None = None
    collapsed: bool | None = None
    failed_epoch: int | None = None
    failure: str | None = None
    selection: str | None = None
    test_minimum: float | None = None
    test_maximum: float | None = None
    test_mean: float | None = None
    test_median: float | None = None
    train_minimum: float | None = None
    train_maximum: float | None = None
    outside: float | None = None

    @property
    def name(self) -> RunName:
        """Which run it is."""
        return RunName(self.method, self.normal_class, self.seed)

    def to_row(self) -> Row:
        """Returns its cells as text, by column."""
        return {column: format_value(getattr(self, column)) for column in RUN_COLUMNS}


_FIELDS = dataclasses.fields(Record)
RUN_COLUMNS = tuple(field.name for field in _FIELDS)

# Columns of a row that hold words; the others hold numbers, some of them shares.
_WORDS = tuple(field.name for field in _FIELDS if field.type in ("str", "str | None"))
_SHARES = ("auroc", "auroc_untrained")

# What reading the files of a run that are not whole can raise.
_DAMAGES = (OSError, AttributeError, *archives.DAMAGES)


def record_of(dataset: str, protocol: str, name: RunName, figures: Mapping[str, Any]) -> Record:
    """Returns the record of a run; of its figures those that have no column are left out."""
    known = {column: value for column, value in figures.items() if column in RUN_COLUMNS}
    return Record(dataset=dataset, protocol=protocol, **name._asdict(), **known)


def check_there(folder: Path) -> None:
    """Refuses to write to a sweep's folder that has vanished, which would be made anew with next to
    nothing in it (touches files).

    Raises:
      WriteError: the folder has no `config.json`.
    """
    if not (folder / "config.json").exists():
        raise WriteError(f"cannot write {folder}: it has vanished, or its config.json has")


def read_rows(folder: Path) -> dict[RunName, Row]:
    """Reads the rows of finished runs from `rows/` (touches files).

    A run whose row, scores or history is damaged or missing does not count; a line on stderr says
    so, and the sweep runs it again.
    """
    rows: dict[RunName, Row] = {}
    for path in sorted((folder / "rows").glob("*.json")):
        try:
            name, row = _read_row(folder, path)
        except _DAMAGES as error:
            reason = " ".join(str(error).split())
            print(f"{path}: damaged ({reason}); {path.stem} runs again", file=sys.stderr)
            continue
        rows[name] = row
    return rows


def named(row: Row, path: Path) -> RunName:
    """Returns the run of a row that was read from a file.

    Raises:
      ResultsError: a cell of the row is no number, or an AUROC is none.
    """
    try:
        return _name_of(row)
    except ValueError as error:
        raise ResultsError(f"{path}: damaged: {error}") from None


def _name_of(row: Row) -> RunName:
    """Returns the run of a row; raises ValueError where a figure is no number, or no AUROC."""
    for column in RUN_COLUMNS:
        if column not in _WORDS and row[column] and not _is_number(row[column], column in _SHARES):
            raise ValueError(f"{column} is {row[column][:40]!r}")
    return RunName(row["method"], int(row["normal_class"]), int(row["seed"]))


def _is_number(cell: str, is_share: bool) -> bool:
    try:
        number = float(cell)
    except ValueError:
        return False
    return 0 <= number <= 1 or not is_share


def _files_of(name: RunName) -> tuple[str, str]:
    """Returns where a run's history and scores lie in the folder."""
    return f"history/{name.stem}.csv", f"scores/{name.stem}.npz"


def read_named_rows(folder: Path, names: Iterable[RunName]) -> dict[RunName, Row]:
    """Reads the rows of some runs (touches files); those that are not there, or not whole, are left
    out."""
    rows: dict[RunName, Row] = {}
    for name in names:
        with contextlib.suppress(*_DAMAGES):
            rows[name] = _read_row(folder, _row_path(folder, name))[1]
    return rows


def model_folder(folder: Path, name: RunName) -> Path:
    """Returns where a sweep's folder keeps the model of a run."""
    return folder / "models" / name.stem


def _row_path(folder: Path, name: RunName) -> Path:
    return folder / "rows" / f"{name.stem}.json"


def _read_row(folder: Path, path: Path) -> tuple[RunName, Row]:
    """Reads a finished run; raises one of `_DAMAGES` where a file of it is missing or damaged."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    row = {column: str(kept["row"][column]) for column in RUN_COLUMNS}
    name = _name_of(row)
    if name.stem != path.stem:
        raise ValueError(f"it is the row of {name.stem}")
    for file, checksum in kept["files"].items():
        if file not in _files_of(name):
            raise ValueError(f"{file!r} is no file of this run")
        _check_file(folder / file, checksum)
    return name, row


def _check_file(path: Path, checksum: str) -> None:
    if not path.exists():
        raise ValueError(f"{path.parent.name}/{path.name} is missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{path.parent.name}/{path.name} has changed")


def write_run(
    folder: Path,
    rows: dict[RunName, Row],
    record: Record,
    scores: Mapping[str, npt.NDArray[Any]] | None,
    history: Mapping[str, npt.NDArray[Any]] | None,
) -> None:
    """Writes a finished run (touches files): scores and history first, its row last.

    Args:
      folder: of the sweep.
      rows: of all finished runs; the new one is added.
      record: of the run.
      scores: arrays of the scores file; None for a run that failed.
      history: equally long columns; None for a method without epochs.

    Raises:
      WriteError: a file cannot be written, or the folder has vanished; what was there before stays.
    """
    check_there(folder)
    files: dict[str, bytes] = {}
    name = record.name
    history_file, scores_file = _files_of(name)
    if history is not None:
        table = csv_text([list(history), *zip(*history.values(), strict=True)])
        files[history_file] = table.encode("utf-8")
    if scores is not None:
        files[scores_file] = npz.npz_bytes(scores)
    for file, data in files.items():
        write_bytes(folder / file, data)
    rows[name] = record.to_row()
    sums = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    kept = {"row": rows[name], "files": sums}
    write_text(_row_path(folder, name), json.dumps(kept, indent=1))


def write_runs(folder: Path, rows: Mapping[RunName, Row]) -> None:
    """Writes `runs.csv` from the rows of finished runs (touches files)."""
    ordered = [rows[key] for key in sorted(rows)]
    lines = ([row[name] for name in RUN_COLUMNS] for row in ordered)
    write_table(folder / "runs.csv", [RUN_COLUMNS, *lines])


def read_scores(folder: Path, name: RunName) -> dict[str, npt.NDArray[Any]]:
    """Reads a run's scores file (touches files)."""
    path = folder / _files_of(name)[1]
    try:
        with path.open("rb") as file:
            return _checked_scores(npz.read_npz(file))
    except OSError as error:
        raise ResultsError(
            f"{path}: {error.strerror or error}; delete it to run it again"
        ) from None
    except ValueError as error:
        raise ResultsError(f"{path}: damaged: {error}; delete it to run it again") from error


def _checked_scores(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a scores file; raises ValueError if one is missing or of no use."""
    for name in ("scores", "distances", "labels", "tested", "train_mean"):
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        wanted = () if name == "train_mean" else arrays["scores"].shape
        if arrays[name].shape != wanted or arrays[name].ndim > 1:
            raise ValueError(f"{name} has the shape {arrays[name].shape}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds values that are not finite")
    return arrays


def read_history(folder: Path, name: RunName) -> dict[str, npt.NDArray[Any]]:
    """Reads a run's history by columns, numbers but for `phase` (touches files); empty where it
    has none."""
    path = folder / _files_of(name)[0]
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file))
        columns = zip(header, zip(*lines, strict=True), strict=True) if lines else ()
        return {
            column: np.array(
                cells if column == "phase" else [float(cell or "nan") for cell in cells]
            )
            for column, cells in columns
        }
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from None
    except (csv.Error, ValueError) as error:
        raise ResultsError(f"{path}: damaged: {error}; delete it to do without") from None
