"""Reads a sweep's `config.json`, compares it with the settings of a call, and extends it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepsvdd_jax import configs
from deepsvdd_jax.cli.files import ResultsError, WriteError, read_json, write_json
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.cli.sweeps.records import Records, read_rows
from deepsvdd_jax.cli.sweeps.sweep_settings import SweepSettings

# Settings that may differ when a sweep is resumed.
_FREE = (
    *("versions", "device", "normal_classes", "seeds", "methods", "data_dir"),
    *("runs_per_program", "data_devices", "memory_budget", "evaluate_every", "save_models"),
    "table",
)

# Settings that a call may extend.
_LISTS = ("normal_classes", "seeds", "methods")


def path_of(folder: Path) -> Path:
    """Returns the path of the settings in a sweep's folder."""
    return folder / "config.json"


def take_up(folder: Path, settings: Mapping[str, Any]) -> Records:
    """Writes the settings of a sweep into its folder, which may hold it already (touches files).

    Args:
      folder: of the sweep; locked.
      settings: JSON values; all but those that may differ must equal the folder's own.

    Returns:
      The rows of finished runs.

    Raises:
      ResultsError: the folder cannot be written, or holds other settings.
    """
    path = path_of(folder)
    there = path.exists()
    if there:
        check_settings(folder, settings)
    merged = merged_settings(read_settings(folder), settings) if there else dict(settings)
    try:
        write_json(path, merged)
    except WriteError as error:
        raise ResultsError(str(error)) from None
    return read_rows(folder)


def read_folder(folder: Path) -> tuple[dict[str, Any], Records]:
    """Reads a sweep's settings and the rows of its finished runs (touches files).

    Raises:
      ResultsError: no sweep is there, it is damaged, or no run has finished yet.
    """
    if not (path_of(folder)).exists():
        raise ResultsError(
            f"{folder} holds no sweep; give the --out of python -m experiments.sweep"
        )
    settings, rows = read_settings(folder), read_rows(folder)
    if not rows:
        raise ResultsError(f"{folder}: no run has ended yet; run python -m experiments.sweep first")
    return settings, rows


def check_described(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses JSON that is not the settings of a sweep.

    Raises:
      ResultsError: names the file and the setting that is missing, unknown or invalid.
    """
    where = f"{path_of(folder)}: damaged"
    try:
        SweepSettings.from_json(settings, where)
    except configs.ConfigError as error:
        # The error of a value that its own configuration refuses does not name the file.
        reason = str(error).removeprefix(f"{where}: ")
        raise ResultsError(f"{where}: {reason}") from None


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses to continue with other settings than a folder's own, but for those that may differ
    (reads a file).

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
    """Returns the differences of two sweeps' settings that may not differ, with both values of
    each."""
    one, other = (
        {name: value for name, value in settings.items() if name not in _FREE}
        for settings in (theirs, ours)
    )
    # A setting that a file is too old to have has its former value.
    deep = tuple(methods.deep())
    for name in deep:
        one[name], other[name] = _as_now(one.get(name)), _as_now(other.get(name))
    for side in (one, other):
        if isinstance(side.get("shallow"), Mapping):
            side["shallow"] = {"threshold_quantile": 0.99, **side["shallow"]}
    # A method that only one side has is an extension, not a difference.
    for name in (*deep, "knn"):
        if one.get(name) is None or other.get(name) is None:
            one.pop(name, None)
            other.pop(name, None)
    return configs.differences(one, other)


def _as_now(settings: Any) -> Any:
    """Returns the settings of a run with defaults for those that are missing; unchanged if they are
    invalid."""
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
    path = path_of(folder)
    values = read_json(path)
    for name in _LISTS:
        items = values.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, (int, str)) for item in items):
            raise ResultsError(
                f"{path}: damaged: {name} is no list of numbers or names; restore it or give "
                "another --out"
            )
    return values
