"""The row, scores and history of a finished run in a sweep's folder."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli import files
from deepsvdd_jax.cli.files import ResultsError, Row, WriteError, csv_text
from deepsvdd_jax.cli.rows import TypedRow
from deepsvdd_jax.io import archives, npz


class RunName(NamedTuple):
    """The name of a run in a sweep."""

    method: str
    normal_class: int
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.method}-class{self.normal_class}-seed{self.seed}"


class QualifiedName(NamedTuple):
    """What tells a run from those of other sweeps that train with it.

    Attributes:
      name: of the run in its sweep.
      sweep: the name of its sweep's folder; empty for a sweep that trains alone.
    """

    name: RunName
    sweep: str = ""

    @property
    def path(self) -> str:
        """Where it belongs, for messages."""
        return f"{self.sweep}/{self.name.stem}" if self.sweep else self.name.stem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(TypedRow):
    """A finished run: a row of `runs.csv`, its fields in the order of the columns.

    None and NaN are empty cells: figures that have no meaning for the run.

    Attributes:
      dataset: its name.
      protocol: see `SplitConfig`.
      normal_class: the class that counts as normal.
      method: its name.
      objective: of a deep method.
      seed: of the run.
      auroc: over the test set, in [0, 1].
      average_precision: likewise.
      fpr95: share of normal samples above the threshold that finds 95 % of the anomalies.
      auroc_untrained: of the same network before any training.
      threshold: above which a score is anomalous; the next four are at it.
      accuracy: share of test samples called rightly.
      precision: share of the samples called anomalous that are.
      recall: share of the anomalies that are called so.
      f1: harmonic mean of the two.
      epochs: that were trained.
      train_seconds: its share of the time of its program.
      collapsed: whether the network maps all inputs to nearly one point.
      failed_epoch: epoch in which the run failed.
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

    SHARES: ClassVar[tuple[str, ...]] = ("auroc", "auroc_untrained")

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
    # Every runs.csv has a column of this name; elsewhere it is called fraction_outside.
    outside: float | None = None

    @property
    def name(self) -> RunName:
        """Which run it is."""
        return RunName(self.method, self.normal_class, self.seed)

    @property
    def is_scored(self) -> bool:
        """Whether it has scores, and so an AUROC."""
        return self.auroc is not None

    @property
    def known_auroc(self) -> float:
        """The AUROC of a run that is scored; raises ValueError for another."""
        if self.auroc is None:
            raise ValueError(f"{self.name.stem} has no scores")
        return self.auroc


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary(TypedRow):
    """A row of `summary.csv`, its fields in the order of the columns; AUROC in [0, 1].

    None is an empty cell: a figure that has no meaning for these runs.

    Attributes:
      dataset: its name.
      normal_class: the class that counts as normal; None in the row `mean` over classes.
      method: its name.
      objective: of a deep method.
      runs: how many runs with scores.
      auroc_mean: over seeds; over classes the mean of theirs.
      auroc_std: over seeds; over classes that of the seeds' means.
      auroc_ensemble: of the seeds together.
      auroc_untrained_mean: of the same networks before any training.
    """

    SHARES: ClassVar[tuple[str, ...]] = ("auroc_mean", "auroc_ensemble", "auroc_untrained_mean")

    dataset: str
    normal_class: int | None
    method: str
    objective: str | None = None
    runs: int
    auroc_mean: float
    auroc_std: float | None = None
    auroc_ensemble: float | None = None
    auroc_untrained_mean: float | None = None

    @property
    def label(self) -> str:
        """The number of the class, or `mean`."""
        return _MEAN if self.normal_class is None else str(self.normal_class)

    @property
    def problem(self) -> tuple[str, int | None, int]:
        """The method, the class and the number of runs."""
        return self.method, self.normal_class, self.runs

    def to_row(self) -> Row:
        return super().to_row() | {"normal_class": self.label}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Self:
        label = row["normal_class"]
        if not label:
            raise ValueError("normal_class is ''")
        return super().from_row({**row, "normal_class": "" if label == _MEAN else label})


_MEAN = "mean"
RUN_COLUMNS = Record.columns()
SUMMARY_COLUMNS = Summary.columns()


# A message names so many of the failed runs.
_NAMED = 3

# Finished runs by name.
Records = dict[RunName, Record]

# Errors that reading damaged files of a run can raise.
_DAMAGES = (OSError, AttributeError, *archives.DAMAGES)


def record_of(dataset: str, protocol: str, name: RunName, figures: Mapping[str, Any]) -> Record:
    """Returns the record of a run; figures without a column are left out."""
    known = {column: value for column, value in figures.items() if column in RUN_COLUMNS}
    return Record(dataset=dataset, protocol=protocol, **name._asdict(), **known)


def check_there(folder: Path) -> None:
    """Refuses to write to a sweep's folder that has vanished: a write would make it anew, nearly
    empty (touches files).

    Raises:
      WriteError: the folder has no `config.json`.
    """
    if not (folder / "config.json").exists():
        raise WriteError(f"cannot write {folder}: it has vanished, or its config.json has")


def read_rows(folder: Path) -> Records:
    """Reads the records of finished runs from `rows/` (touches files).

    A run whose row, scores or history is damaged or missing does not count; a line on stderr says
    so, and the sweep runs it again.
    """
    found: Records = {}
    for path in sorted((folder / "rows").glob("*.json")):
        try:
            record = _read_run(folder, path)
        except _DAMAGES as error:
            reason = " ".join(str(error).split())
            print(f"{path}: damaged ({reason}); {path.stem} runs again", file=sys.stderr)
            continue
        found[record.name] = record
    return found


def read_table(path: Path) -> Records:
    """Reads a `runs.csv` (touches files).

    Raises:
      ResultsError: it is missing or damaged, or has a run twice.
    """
    found: Records = {}
    for record in Record.read(path):
        if record.name in found:
            raise ResultsError(f"{path}: damaged: {record.name.stem} is there twice")
        found[record.name] = record
    return found


def _files_of(name: RunName) -> tuple[str, str]:
    """Returns where a run's history and scores lie in the folder."""
    return f"history/{name.stem}.csv", f"scores/{name.stem}.npz"


def read_named_rows(folder: Path, names: Iterable[RunName]) -> Records:
    """Reads the records of some runs (touches files); missing and damaged ones are left out."""
    found: Records = {}
    for name in names:
        with contextlib.suppress(*_DAMAGES):
            found[name] = _read_run(folder, _row_path(folder, name))
    return found


def model_folder(folder: Path, name: RunName) -> Path:
    """Returns where a sweep's folder keeps the model of a run."""
    return folder / "models" / name.stem


def _row_path(folder: Path, name: RunName) -> Path:
    return folder / "rows" / f"{name.stem}.json"


def _read_run(folder: Path, path: Path) -> Record:
    """Reads a finished run; raises one of `_DAMAGES` where a file of it is missing or damaged."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    record = Record.from_row({column: str(cell) for column, cell in kept["row"].items()})
    if record.name.stem != path.stem:
        raise ValueError(f"it is the row of {record.name.stem}")
    for file, checksum in kept["files"].items():
        if file not in _files_of(record.name):
            raise ValueError(f"{file!r} is no file of this run")
        _check_file(folder / file, checksum)
    return record


def _check_file(path: Path, checksum: str) -> None:
    if not path.exists():
        raise ValueError(f"{path.parent.name}/{path.name} is missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{path.parent.name}/{path.name} has changed")


def write_run(
    folder: Path,
    finished: Records,
    record: Record,
    scores: Mapping[str, npt.NDArray[Any]] | None,
    history: Mapping[str, npt.NDArray[Any]] | None,
) -> None:
    """Writes a finished run (touches files): scores and history first, its row last.

    Args:
      folder: of the sweep.
      finished: all finished runs; the new one is added.
      record: of the run.
      scores: arrays of the scores file; None for a run that failed.
      history: equally long columns; None for a method without epochs.

    Raises:
      WriteError: a file cannot be written, or the folder has vanished; the former file stays.
    """
    check_there(folder)
    parts: dict[str, bytes] = {}
    name = record.name
    history_file, scores_file = _files_of(name)
    if history is not None:
        table = csv_text([list(history), *zip(*history.values(), strict=True)])
        parts[history_file] = table.encode("utf-8")
    if scores is not None:
        parts[scores_file] = npz.npz_bytes(scores)
    for file, data in parts.items():
        files.write_bytes(folder / file, data)
    finished[name] = record
    sums = {file: hashlib.sha256(data).hexdigest() for file, data in parts.items()}
    kept = {"row": record.to_row(), "files": sums}
    files.write_text(_row_path(folder, name), json.dumps(kept, indent=1))


def failures(rows: Mapping[RunName, Record], names: Iterable[RunName]) -> dict[RunName, str]:
    """Returns the reasons of the failed runs among some names; runs without a row are left out."""
    return {name: reason for name in names if name in rows and (reason := rows[name].failure)}


def describe_failures(reasons: Mapping[str, str], tables: str) -> str:
    """Returns a line on the runs that failed.

    Args:
      reasons: why each failed, by its name.
      tables: the files that list all of them.
    """
    first = list(reasons.items())[:_NAMED]
    named = "; ".join(f"{name}: {reason}" for name, reason in first)
    return f"{len(reasons)} runs failed, see {tables}; {named}"


def write_runs(folder: Path, finished: Mapping[RunName, Record]) -> None:
    """Writes `runs.csv`, finished runs ordered by name (touches files)."""
    rows = (finished[name].to_row() for name in sorted(finished))
    files.write_table(folder / "runs.csv", [RUN_COLUMNS, *(row.values() for row in rows)])


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
    """Returns the arrays of a scores file; raises ValueError if one is missing or invalid."""
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
    """Reads a run's history by columns, `phase` as text and all others as numbers (touches files);
    empty if there is none."""
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
