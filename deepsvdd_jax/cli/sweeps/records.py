"""What a finished run leaves in a sweep's folder: its row, scores and history."""

import contextlib
import csv
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

RUN_COLUMNS = (
    *("dataset", "protocol", "normal_class", "method", "objective", "seed"),
    *("auroc", "average_precision", "fpr95", "auroc_untrained"),
    *("threshold", "accuracy", "precision", "recall", "f1"),
    *("epochs", "train_seconds", "collapsed"),
    *("failed_epoch", "failure", "selection"),
    *("test_minimum", "test_maximum", "test_mean", "test_median"),
    *("train_minimum", "train_maximum", "outside"),
)
SUMMARY_COLUMNS = (
    *("dataset", "normal_class", "method", "objective", "runs"),
    *("auroc_mean", "auroc_std", "auroc_ensemble", "auroc_untrained_mean"),
)

# Columns of a row that hold words; the others hold numbers.
_SHARES = ("auroc", "auroc_untrained")
_WORDS = ("dataset", "protocol", "method", "objective", "failure", "selection")


class RunName(NamedTuple):
    """What tells one run of a sweep from another."""

    method: str
    normal_class: int
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.method}-class{self.normal_class}-seed{self.seed}"


# What reading the files of a run that are not whole can raise.
_DAMAGES = (OSError, AttributeError, *archives.DAMAGES)


def identity(dataset: str, protocol: str, name: RunName) -> dict[str, Any]:
    """Returns the cells of a row that say which run it is."""
    return {"dataset": dataset, "protocol": protocol} | name._asdict()


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
    name: RunName,
    values: Mapping[str, Any],
    scores: Mapping[str, npt.NDArray[Any]] | None,
    history: Mapping[str, npt.NDArray[Any]] | None,
) -> None:
    """Writes a finished run (touches files): scores and history first, its row last.

    Args:
      folder: of the sweep.
      rows: of all finished runs; the new one is added.
      name: of the run.
      values: the row's; what is None or NaN stays empty.
      scores: arrays of the scores file; None for a run that failed.
      history: equally long columns; None for a method without epochs.

    Raises:
      WriteError: a file cannot be written, or the folder has vanished; what was there before stays.
    """
    check_there(folder)
    files: dict[str, bytes] = {}
    history_file, scores_file = _files_of(name)
    if history is not None:
        table = csv_text([list(history), *zip(*history.values(), strict=True)])
        files[history_file] = table.encode("utf-8")
    if scores is not None:
        files[scores_file] = npz.npz_bytes(scores)
    for file, data in files.items():
        write_bytes(folder / file, data)
    rows[name] = {column: format_value(values.get(column)) for column in RUN_COLUMNS}
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
