"""A sweep's folder: what is in it, written atomically, read back to go on.

Every file is written under a temporary name and renamed, so that what is there is whole. A run
counts as finished when its row lies in `rows/`, with the checksums of its scores and history;
`runs.csv` and `summary.csv` are made from the rows.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from deepsvdd_jax import checkpoints, configs, metrics, npz

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

# Published tables have it, sweeps do not.
HARDWARE = "hardware.json"

# Settings in config.json that may differ when a sweep is taken up again.
_FREE = (
    *("versions", "device", "normal_classes", "seeds", "methods", "data_dir"),
    *("runs_per_program", "data_devices", "memory_budget", "evaluate_every", "save_models"),
    "table",
)

# Files that tell who has a folder, by the number of a process and how many share the sweep.
_LOCK = ".lock-{}-of-{}"
_OWNER = ".owner-{}-of-{}"

# For so long a lock is tried: another process may hold it for an instant, to see if it is free.
_GLANCE_SECONDS = 1.0


# Those that a sweep may extend.
_LISTS = ("normal_classes", "seeds", "methods")

# Columns of a row that hold words; the others hold numbers.
_SHARES = ("auroc", "auroc_untrained")
_WORDS = ("dataset", "protocol", "method", "objective", "failure", "selection")


class ResultsError(ValueError):
    """A results folder that cannot be used; the message names it and says why."""


class WriteError(OSError):
    """A file of a results folder that could not be written; the message names it."""


class RunName(NamedTuple):
    """What tells one run of a sweep from another."""

    method: str
    normal_class: int
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.method}-class{self.normal_class}-seed{self.seed}"


Row = dict[str, str]

# What reading the files of a run that are not whole can raise.
_DAMAGES = (OSError, AttributeError, *checkpoints.DAMAGES)


def open_folder(folder: Path, settings: Mapping[str, Any]) -> dict[RunName, Row]:
    """Makes a sweep's folder or takes up the one that is there (touches files).

    Args:
      folder: of the sweep; locked.
      settings: JSON values; all but those free to differ must equal the folder's own.

    Returns:
      The rows of finished runs.

    Raises:
      ResultsError: the folder cannot be written, or holds other settings.
    """
    path = folder / "config.json"
    there = path.exists()
    if there:
        check_settings(folder, settings)
    merged = merged_settings(read_settings(folder), settings) if there else dict(settings)
    try:
        write_json(path, merged)
    except WriteError as error:
        raise ResultsError(str(error)) from None
    return read_rows(folder)


@contextlib.contextmanager
def locked(folder: Path, process: int = 0, processes: int = 1) -> Iterator[None]:
    """Holds a sweep's folder, made where it is missing, against other sweeps (touches files).

    The operating system lets go of the lock when its owner ends, however it ends: a lock that was
    left behind is taken over.

    Args:
      folder: of the sweep.
      process: number of this process among those that share the sweep; each has a lock.
      processes: how many share it; those of a sweep shared by another number are other sweeps.

    Raises:
      ResultsError: the folder is another process's, holds something else, or cannot be written.
    """
    try:
        lock = _acquire(folder, process, processes)
    except OSError as error:
        raise ResultsError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        yield
    finally:
        (folder / _OWNER.format(process, processes)).unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path, process: int, processes: int) -> bool:
    """Returns whether that process is alive and holds its lock on a folder (touches files)."""
    path = folder / _LOCK.format(process, processes)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def check_usable(folder: Path) -> None:
    """Refuses a folder that holds anything but a sweep (touches files).

    Raises:
      ResultsError: says what it holds.
    """
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if "config.json" not in names and any(name[0] != "." for name in names):
        raise ResultsError(f"{folder} is not empty and holds no sweep; give another --out")
    if HARDWARE in names:
        raise ResultsError(f"{folder} holds published tables; give another --out")


def _acquire(folder: Path, process: int, processes: int) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    check_usable(folder)
    lock = FileLock(folder / _LOCK.format(process, processes))
    try:
        lock.acquire(timeout=_GLANCE_SECONDS, poll_interval=_GLANCE_SECONDS / 20)
    except Timeout:
        raise _in_use(folder, process, processes) from None
    for other in _other_sweeps(folder, processes):
        if is_held(folder, *other):
            lock.release()
            raise _in_use(folder, *other)
    owner = f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}"
    (folder / _OWNER.format(process, processes)).write_text(owner, encoding="utf-8")
    return lock


def _other_sweeps(folder: Path, processes: int) -> list[tuple[int, int]]:
    """Returns process and number of processes of every lock but those of this sweep."""
    found = []
    for path in folder.glob(_LOCK.format("*", "*")):
        process, _, count = path.name.removeprefix(".lock-").partition("-of-")
        if process.isdecimal() and count.isdecimal() and int(count) != processes:
            found.append((int(process), int(count)))
    return found


def _in_use(folder: Path, process: int, processes: int) -> ResultsError:
    try:
        owner = (folder / _OWNER.format(process, processes)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        owner = "another process"
    return ResultsError(f"{folder} is in use by {owner}; wait for it, or give another --out")


def identity(dataset: str, protocol: str, name: RunName) -> dict[str, Any]:
    """Returns the cells of a row that say which run it is."""
    return {"dataset": dataset, "protocol": protocol} | name._asdict()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[RunName, Row]]:
    """Reads a sweep's settings and the rows of its finished runs (touches files).

    Raises:
      ResultsError: no sweep is there, it is damaged, or no run has ended yet.
    """
    if not (folder / "config.json").exists():
        raise ResultsError(
            f"{folder} holds no sweep; give the --out of python -m experiments.sweep"
        )
    settings, rows = read_settings(folder), read_rows(folder)
    if not rows:
        raise ResultsError(f"{folder}: no run has ended yet; run python -m experiments.sweep first")
    return settings, rows


def check_described(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses settings that do not say which data they are about and how these were split.

    Raises:
      ResultsError: names the file and what is missing.
    """
    for name in ("data", "split"):
        if not isinstance(settings.get(name), dict):
            raise ResultsError(f"{folder / 'config.json'}: damaged: {name} is no object")


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to go on with other settings than a folder's own, but for those free to differ (reads
    a file).

    Raises:
      ResultsError: the first difference, with both values.
    """
    found = setting_differences(read_settings(folder), settings)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ResultsError(
            f"{folder} holds a sweep with other settings: {found[0]}{more}; give another --out"
        )


def setting_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Returns how two sweeps' settings differ where they must not, both values of each."""
    one, other = (
        {name: value for name, value in settings.items() if name not in _FREE}
        for settings in (theirs, ours)
    )
    # A method that only one side has is an extension, not a difference.
    for name in ("deep_svdd", "soft_boundary", "dcae", "knn"):
        if one.get(name) is None or other.get(name) is None:
            one.pop(name, None)
            other.pop(name, None)
    return configs.differences(one, other)


def merged_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a sweep and of its extension: all classes, seeds and methods."""
    merged = {**old, **{name: value for name, value in new.items() if value is not None}}
    for name in _LISTS:
        both = [*old.get(name, []), *new.get(name, [])]
        merged[name] = list(dict.fromkeys(both))
    return merged


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


def read_settings(folder: Path) -> dict[str, Any]:
    """Reads a sweep's settings (touches files).

    Raises:
      ResultsError: they are missing, or damaged.
    """
    path = folder / "config.json"
    values = read_json(path)
    for name in _LISTS:
        items = values.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, (int, str)) for item in items):
            raise ResultsError(
                f"{path}: damaged: {name} is no list of numbers or names; restore it or give "
                "another --out"
            )
    return values


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
        table = _csv_text(list(history), zip(*history.values(), strict=True))
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


def write_summary(folder: Path, rows: Mapping[RunName, Row]) -> list[Row]:
    """Writes `summary.csv` from the rows and scores of finished runs (touches files)."""
    summary = summarize(folder, rows)
    write_summary_rows(folder, summary)
    return summary


def write_summary_rows(folder: Path, summary: list[Row]) -> None:
    """Writes `summary.csv` from its rows (touches files)."""
    lines = ([row[name] for name in SUMMARY_COLUMNS] for row in summary)
    write_table(folder / "summary.csv", [SUMMARY_COLUMNS, *lines])


def summarize(folder: Path, rows: Mapping[RunName, Row]) -> list[Row]:
    """Returns `summarize_runs`, the seeds put together from their scores (touches files)."""
    return summarize_runs(rows, lambda names: _ensemble_auroc(folder, names))


def summarize_runs(
    rows: Mapping[RunName, Row], ensemble_of: Callable[[list[RunName]], float | None]
) -> list[Row]:
    """Returns a row for each class and method, and a row `mean` for each method.

    A class's `auroc_std` is over its seeds. The mean row's is over seeds of the mean over classes,
    empty unless all classes have the same seeds, two at least.

    Args:
      rows: of finished runs.
      ensemble_of: gives the AUROC of a class's runs together.
    """
    summary: list[Row] = []
    for method in dict.fromkeys(name.method for name in sorted(rows)):
        of_method = {
            name: row
            for name, row in sorted(rows.items())
            if name.method == method and row["auroc"]
        }
        classes = dict.fromkeys(name.normal_class for name in of_method)
        per_class = [_class_summary(of_method, label, ensemble_of) for label in classes]
        summary += per_class
        if per_class:
            summary.append(_mean_summary(of_method, per_class))
    return summary


def _class_summary(
    rows: Mapping[RunName, Row], label: int, ensemble_of: Callable[[list[RunName]], float | None]
) -> Row:
    names = [name for name in rows if name.normal_class == label]
    auroc = metrics.mean_and_std([float(rows[name]["auroc"]) for name in names])
    untrained = [rows[name]["auroc_untrained"] for name in names]
    first = rows[names[0]]
    return {
        "dataset": first["dataset"],
        "normal_class": str(label),
        "method": first["method"],
        "objective": first["objective"],
        "runs": str(len(names)),
        "auroc_mean": format_value(auroc.mean),
        "auroc_std": format_value(auroc.std),
        "auroc_ensemble": format_value(ensemble_of(names)),
        "auroc_untrained_mean": format_value(
            np.mean([float(value) for value in untrained]) if all(untrained) else None
        ),
    }


def _mean_summary(rows: Mapping[RunName, Row], per_class: list[Row]) -> Row:
    by_seed: dict[int, list[float]] = {}
    for name, row in rows.items():
        by_seed.setdefault(name.seed, []).append(float(row["auroc"]))
    complete = len(by_seed) > 1 and all(
        len(values) == len(per_class) for values in by_seed.values()
    )
    spread = metrics.mean_and_std([float(np.mean(values)) for values in by_seed.values()]).std

    def mean_of(column: str) -> str:
        values = [row[column] for row in per_class]
        return format_value(np.mean([float(value) for value in values]) if all(values) else None)

    return {
        **per_class[0],
        "normal_class": "mean",
        "runs": str(len(rows)),
        "auroc_mean": mean_of("auroc_mean"),
        "auroc_std": format_value(spread if complete else None),
        "auroc_ensemble": mean_of("auroc_ensemble"),
        "auroc_untrained_mean": mean_of("auroc_untrained_mean"),
    }


def _ensemble_auroc(folder: Path, names: list[RunName]) -> float | None:
    """Returns the AUROC of the mean over seeds of d over its mean on the training set."""
    loaded = [read_scores(folder, name) for name in names]
    tested = [item["tested"] for item in loaded]
    if any(not np.array_equal(tested[0], other) for other in tested):
        # Runs that were evaluated on different test images have no common score.
        return None
    total = sum(item["distances"] / item["train_mean"] for item in loaded) / len(loaded)
    chosen = tested[0]
    return metrics.auroc(total[chosen], loaded[0]["labels"][chosen])


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


def format_value(value: Any) -> str:
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


def _csv_text(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(list(header))
    writer.writerows([format_value(cell) for cell in line] for line in lines)
    return buffer.getvalue()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object (touches files); raises WriteError."""
    write_text(path, json.dumps(values, indent=2))


def write_table(path: Path, lines: Iterable[Iterable[Any]]) -> None:
    """Writes a csv file from its lines, the header first (touches files); raises WriteError."""
    header, *rest = lines
    write_text(path, _csv_text(header, rest))


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
      WriteError: it cannot be written; what was there before stays.
    """
    try:
        checkpoints.write_bytes(path, data)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None
