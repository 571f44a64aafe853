"""Copies the small part of a sweep's folder: its tables, settings, machine and two pictures.

    python -m experiments.publish --out=FOLDER --to=results/published/NAME
    python -m experiments.publish --out=FOLDER --markdown
    python -m experiments.publish --join=PART,OTHER --to=results/published/NAME

Copies no scores, histories and models, and no path of this machine, so that the folder is small and
can be committed. With `--markdown` prints the table of all methods, ours and published. `--join`
makes one table of published folders with the same settings and other classes or methods; if two of
them have a class, it takes the one with all seeds of the other and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from absl import flags

from deepsvdd_jax.cli import environment, files, paths
from deepsvdd_jax.cli.commands import ensembles, report
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import config_file, locks, records, summaries
from deepsvdd_jax.cli.sweeps.records import Record, Records, RunName, Summary
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.viz import plots

with lazily():
    from deepsvdd_jax.cli.reporting import finished
    from deepsvdd_jax.cli.reporting.sections import merit

# Files by which a published folder is recognised.
MARKS = (locks.HARDWARE, "summary.csv")


class Published(NamedTuple):
    """The published part of a sweep.

    Attributes:
      settings: of its sweep, without paths of a machine.
      hardware: machine, versions, and time of each method.
      rows: of its runs.
      summary: of its classes and methods.
    """

    settings: dict[str, Any]
    hardware: dict[str, Any]
    rows: Records
    summary: list[Summary]


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder")
    flags.DEFINE_list("join", [], "published folders, instead of --out: parts of one table")
    flags.DEFINE_string("to", None, "folder to write into, as results/published/NAME")
    flags.DEFINE_bool("markdown", False, "print the table as markdown")


def main() -> None:
    """Reads the flags, prints the table, writes the folder."""
    values = flags.FLAGS
    if bool(values.out) == bool(values.join):
        given = "both are given" if values.out else "neither is given"
        raise ConfigError(f"give --out, a sweep's folder, or --join, published ones; {given}")
    if values.to is None and not values.markdown:
        raise ConfigError("give --to=results/published/NAME, a folder to write into, or --markdown")
    flag = "join" if values.join else "out"
    sources = [paths.to_read(flag, name) for name in values.join or [values.out]]
    to = None if values.to is None else paths.folder_to_write("to", values.to, MARKS, sources)
    kept = joined([read_published(part) for part in sources]) if values.join else kept_of(*sources)
    if to is not None:
        report.check_matplotlib()
        _write(kept, to)
        if values.out:
            _write_gains(sources[0], kept.rows, to)
    if values.markdown:
        print(markdown(kept))


def markdown(kept: Published) -> str:
    """Returns the table of all methods, ours and published."""
    sweep = _as_sweep(kept)
    return tables.markdown_table(kept.summary, sweep.preset, sweep.split.protocol)


def _as_sweep(kept: Published) -> finished.FinishedSweep:
    """Returns the table as a sweep with settings and rows only."""
    return finished.FinishedSweep(Path(), kept.settings, kept.rows, None, "")


def kept_of(folder: Path) -> Published:
    """Returns the published part of a sweep's folder (touches files).

    Raises:
      ResultsError: no sweep is there, no run has scores, or a file is damaged.
    """
    settings, rows = config_file.read_folder(folder)
    config_file.check_described(folder, settings)
    summary = summaries.summarize(folder, rows)
    if not summary:
        raise ResultsError(f"{folder}: no run has ended without a failure")
    return Published(settings_of(settings, rows), hardware(settings, rows), rows, summary)


def _write(kept: Published, to: Path) -> None:
    files.write_json(to / "config.json", kept.settings)
    files.write_json(to / locks.HARDWARE, kept.hardware)
    records.write_runs(to, kept.rows)
    summaries.write_summary_rows(to, kept.summary)
    files.write_text(to / "table.md", markdown(kept) + "\n")
    sweep = _as_sweep(kept)
    bars = merit.bar_figure(sweep, kept.summary, plots.WIDE)
    files.write_bytes(to / "classes.png", plots.png_bytes(bars))
    # Only a sweep's own folder has the scores for a new picture.
    files.remove(to / "seeds.png")


def _write_gains(folder: Path, rows: Mapping[RunName, Record], to: Path) -> None:
    """Draws the gain of seeds together, if there are several (reads their scores)."""
    members = ensembles.read_members(folder, rows, None)
    if members:
        drawn = ensembles.gain_figure(ensembles.gains_of_all(members), plots.WIDE)
        files.write_bytes(to / "seeds.png", plots.png_bytes(drawn))


def has_marks(folder: Path, marks: Sequence[str] = MARKS) -> bool:
    """Returns whether a folder has all files of its kind (touches files)."""
    return all((folder / name).exists() for name in marks)


def settings_of(settings: Mapping[str, Any], rows: Mapping[RunName, Record]) -> dict[str, Any]:
    """Returns settings as `portable` does, with the classes, seeds and methods of the runs. The
    settings of a sweep that is unfinished or compared in part name more."""
    methods = {name.method for name in rows}
    return portable(settings) | {
        "normal_classes": sorted({name.normal_class for name in rows}),
        "seeds": sorted({name.seed for name in rows}),
        "methods": [method for method in settings.get("methods", []) if method in methods],
    }


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without paths of this machine: data folders are left out, of other paths the
    last part stays."""
    return {name: _without_folders(value) for name, value in settings.items() if name != "data_dir"}


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


def hardware(settings: Mapping[str, Any], rows: Mapping[RunName, Record]) -> dict[str, Any]:
    """Returns the machine, the versions, and each method's runs and seconds.

    A run's seconds are its program's by the clock, compilation included, over the program's runs;
    baselines run in threads, so theirs overlap.
    """
    return {
        "device": settings.get("device"),
        "versions": settings.get("versions"),
        "methods": time_spent(rows),
    }


def time_spent(rows: Mapping[RunName, Record]) -> dict[str, dict[str, float]]:
    """Returns the number of runs and their seconds for each method."""
    spent: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(name.method for name in sorted(rows)):
        seconds = [
            row.train_seconds
            for name, row in rows.items()
            if name.method == method and row.train_seconds is not None
        ]
        spent[method] = {"runs": len(seconds), "seconds": round(sum(seconds), 1)}
    return spent


# --- parts of a table ---------------------------------------------------------------------------


def read_published(folder: Path) -> Published:
    """Reads a published folder (touches files). From its summary it takes only the AUROC of seeds
    together, which needs scores; the rest follows from its runs.

    Raises:
      ResultsError: a file of it is missing, damaged, or does not match the others.
    """
    rows = records.read_table(folder / "runs.csv")
    path = folder / "summary.csv"
    kept = Summary.read(path)
    try:
        summary = summaries.summarize_runs(rows, kept_ensembles(kept))
    except KeyError as error:
        raise ResultsError(f"{path}: damaged, or not of the runs in runs.csv: {error}") from None
    if [row.problem for row in kept] != [row.problem for row in summary]:
        raise ResultsError(f"{path}: damaged, or not of the runs in runs.csv")
    if not summary:
        raise ResultsError(f"{folder}: no run has ended without a failure")
    machine = files.read_json(folder / locks.HARDWARE)
    machines = machine.get("parts", [machine])
    if not isinstance(machines, list) or not all(isinstance(one, dict) for one in machines):
        raise ResultsError(f"{folder / locks.HARDWARE}: damaged: parts is no list of machines")
    settings = config_file.read_settings(folder)
    config_file.check_described(folder, settings)
    return Published(settings, machine, rows, summary)


def joined(parts: Sequence[Published]) -> Published:
    """Returns one table of parts that share their settings but for classes, seeds and methods.

    Raises:
      ResultsError: the settings differ, or two parts have a class and method, and neither has all
        seeds of the other and more: the AUROC of their seeds together would need the scores.
    """
    settings, rows = parts[0].settings, dict(parts[0].rows)
    for part in parts[1:]:
        found = config_file.setting_differences(settings, part.settings)
        if found:
            raise ResultsError(f"the parts have other settings: {found[0]}")
        settings = config_file.merged_settings(settings, part.settings)
        rows = _joined_rows(rows, part.rows)
    ensembles_of = kept_ensembles([row for part in parts for row in part.summary])
    # Each part has its own versions and device, which `hardware.json` lists.
    own = ("device", "versions")
    settings = {name: value for name, value in settings.items() if name not in own}
    machines = [
        {name: value for name, value in machine.items() if name in own}
        for part in parts
        for machine in part.hardware.get("parts", [part.hardware])
    ]
    together = {"parts": machines, "methods": time_spent(rows)}
    return Published(settings, together, rows, summaries.summarize_runs(rows, ensembles_of))


def _joined_rows(one: Mapping[RunName, Record], other: Mapping[RunName, Record]) -> Records:
    """Returns the rows of both; if both have a class and method, those of the larger one.

    Taking the larger one is no choice by figures as long as it has all seeds of the smaller one.
    """
    kept = [dict(one), dict(other)]
    for method, label in sorted({name[:2] for name in one} & {name[:2] for name in other}):
        seeds = [
            {
                name.seed
                for name, row in rows.items()
                if name[:2] == (method, label) and row.is_scored
            }
            for rows in kept
        ]
        if not (seeds[0] < seeds[1] or seeds[1] < seeds[0]):
            raise ResultsError(
                f"two parts have class {label} of {method}, and neither has all seeds of the other "
                "and more; seeds are joined with their scores, by one sweep"
            )
        smaller = 0 if seeds[0] < seeds[1] else 1
        kept[smaller] = {
            name: row for name, row in kept[smaller].items() if name[:2] != (method, label)
        }
    return kept[0] | kept[1]


def kept_ensembles(summary: Sequence[Summary]) -> Callable[[list[RunName]], float | None]:
    """Returns a function that looks up the AUROC of a class's runs together in a summary; it raises
    KeyError if that has no such class."""
    figures = {row.problem: row.auroc_ensemble for row in summary}

    def together(names: list[RunName]) -> float | None:
        return figures[names[0].method, names[0].normal_class, len(names)]

    return together
