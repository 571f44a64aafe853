"""A sweep's folder: what is in it, written atomically, read back to go on.

Every file is written under a temporary name and renamed, so that what is there is whole. A run
counts as finished when its row lies in `rows/`, with the checksums of its scores and history;
`runs.csv` and `summary.csv` are made from the rows.
"""

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepsvdd_jax import configs
from deepsvdd_jax.cli.files import ResultsError, Row, WriteError, read_json, write_json
from deepsvdd_jax.cli.sweeps.records import RunName, read_rows

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
    # Settings that were written before one was added hold what that meant then.
    for name in ("deep_svdd", "soft_boundary", "dcae"):
        one[name], other[name] = _as_now(one.get(name)), _as_now(other.get(name))
    for side in (one, other):
        if isinstance(side.get("shallow"), Mapping):
            side["shallow"] = {"threshold_quantile": 0.99, **side["shallow"]}
    # A method that only one side has is an extension, not a difference.
    for name in ("deep_svdd", "soft_boundary", "dcae", "knn"):
        if one.get(name) is None or other.get(name) is None:
            one.pop(name, None)
            other.pop(name, None)
    return configs.differences(one, other)


def _as_now(settings: Any) -> Any:
    """Returns the settings of a run with all that they leave out; as they are if they are none."""
    try:
        return configs.to_dict(configs.from_dict(configs.RunConfig, settings))
    except configs.ConfigError:
        return settings


def merged_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a sweep and of its extension: all classes, seeds and methods."""
    merged = {**old, **{name: value for name, value in new.items() if value is not None}}
    for name in _LISTS:
        both = [*old.get(name, []), *new.get(name, [])]
        merged[name] = list(dict.fromkeys(both))
    return merged


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
