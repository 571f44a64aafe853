"""Compares sweeps that differ in a setting, run by run, over the same classes and seeds.

    python -m experiments.compare --out=BASE,OTHER,THIRD
    python -m experiments.compare --out=BASE,OTHER,THIRD --to=results/published/NAME

The folders are those of sweeps or published ones. Compares each with the first, over the runs that
all of them have and with equal weight for every class: the AUROC, its change between runs of the
same class and seed, and the AUROC of seeds together. A choice of a setting by such a table uses
labels of the test images: report its result on other seeds and classes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from deepsvdd_jax import configs
from deepsvdd_jax.cli import environment, files, paths
from deepsvdd_jax.cli.commands import publish
from deepsvdd_jax.cli.commands.publish import Published
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import config_file, locks, records, summaries
from deepsvdd_jax.cli.sweeps.records import Record, Records, RunName, Summary
from deepsvdd_jax.configs import ConfigError

# A phase that only one sweep has is described by its first entries.
_MOST_LETTERS = 120

# Files by which a folder with a comparison is recognised.
_MARKS = (locks.HARDWARE, "comparison.csv")

# Columns of a method and sweep: its own figures, and their differences from the first sweep's. The
# error is the standard error of the change.
_COLUMNS = ("runs", "AUROC", "change", "error", "ensemble", "ensemble change")


class Compared(NamedTuple):
    """A sweep, restricted to the runs that all sweeps have.

    Attributes:
      name: of its folder.
      is_published: whether it is a published folder, not that of the sweep.
      settings: of all its runs.
      hardware: machine, versions, and the time of the runs that every sweep has.
      rows: of these runs.
      summary: of these runs; the AUROC of seeds together is empty where only a published folder
        holds it and some of its seeds are not in every sweep.
    """

    name: str
    is_published: bool
    settings: dict[str, Any]
    hardware: dict[str, Any]
    rows: Records
    summary: list[Summary]


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_list(
        "out",
        [],
        "folders of sweeps, their own or published; the first is what the others are compared with",
    )
    flags.DEFINE_string("to", None, "folder to write the tables into, as results/published/NAME")


def main() -> None:
    """Reads the flags, prints the table and the settings that differ, and writes both if asked
    to."""
    values = flags.FLAGS
    folders = [paths.to_read("out", name) for name in values.out]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(
            "out must be two folders or more, separated by commas, of different names"
        )
    to = None if values.to is None else paths.folder_to_write("to", values.to, _MARKS, folders)
    sweeps = read_sweeps(folders)
    lines, differing = comparison(sweeps), setting_lines(sweeps)
    print(tables.aligned(lines))
    print("\n" + tables.aligned(differing))
    if to is not None:
        files.write_table(to / "comparison.csv", lines)
        files.write_table(to / "classes.csv", class_lines(sweeps))
        files.write_table(to / "runs.csv", run_lines(sweeps))
        files.write_table(to / "settings.csv", differing)
        settings = publish.settings_of(sweeps[0].settings, sweeps[0].rows)
        files.write_json(to / "config.json", settings)
        machines = {sweep.name: sweep.hardware for sweep in sweeps}
        files.write_json(to / locks.HARDWARE, machines)


def read_sweeps(folders: Sequence[Path]) -> list[Compared]:
    """Reads the runs that the sweeps have in common (touches files).

    Raises:
      ResultsError: a folder holds no sweep or is damaged, its figures are of other data, or no run
        has scores in all of them.
    """
    read = [_read(folder) for folder in folders]
    finished = [{name for name, row in kept.rows.items() if row.is_scored} for kept, _ in read]
    common = set.intersection(*finished)
    if not common:
        raise ResultsError(f"{', '.join(map(str, folders))} have no run in common")
    judged = [
        _judged_on(folder, kept, common) for folder, (kept, _) in zip(folders, read, strict=True)
    ]
    for folder, images in zip(folders[1:], judged[1:], strict=True):
        # Entries that a published folder lacks are not compared.
        both = judged[0].keys() & images.keys()
        first, other = ({name: one[name] for name in both} for one in (judged[0], images))
        found = configs.differences(first, other)
        if found:
            raise ResultsError(f"{folder} is judged on other data than {folders[0]}: {found[0]}")
    sweeps = []
    for folder, (kept, summarize) in zip(folders, read, strict=True):
        rows = {name: row for name, row in kept.rows.items() if name in common}
        hardware = {**kept.hardware, "methods": publish.time_spent(rows)}
        sweeps.append(
            Compared(
                name=folder.resolve().name,
                is_published=publish.has_marks(folder),
                settings=kept.settings,
                hardware=hardware,
                rows=rows,
                summary=summarize(rows),
            )
        )
    return sweeps


def _read(folder: Path) -> tuple[Published, Callable[[Mapping[RunName, Record]], list[Summary]]]:
    """Returns the content of a sweep's folder or of a published one, and a function that sums up
    some of its runs."""
    if publish.has_marks(folder, _MARKS):
        raise ResultsError(f"{folder} holds a comparison; give the folders that it is of")
    if not publish.has_marks(folder):
        settings, rows = config_file.read_folder(folder)
        config_file.check_described(folder, settings)
        kept = Published(settings, publish.hardware(settings, rows), rows, [])
        return kept, lambda rows: summaries.summarize(folder, rows)
    kept = publish.read_published(folder)
    ensemble_of = publish.kept_ensembles(kept.summary)

    def together(names: list[RunName]) -> float | None:
        try:
            return ensemble_of(names)
        except KeyError:
            return None

    return kept, lambda rows: summaries.summarize_runs(rows, together)


def _judged_on(folder: Path, kept: Published, common: Collection[RunName]) -> dict[str, Any]:
    """Returns a description of the images that the runs were tested on (reads the scores of one run
    a class).

    A published folder has no labels: two data sets of the same name look the same.
    """
    data, split = kept.settings["data"], kept.settings["split"]
    found = {
        "data.name": data.get("name"),
        **{f"split.{name}": split.get(name) for name in ("protocol", "anomalous_classes")},
    }
    if publish.has_marks(folder):
        return found
    one_each = {name.normal_class: name for name in sorted(common)}
    for label, name in one_each.items():
        scores = records.read_scores(folder, name)
        bits = scores["labels"].tobytes() + scores["tested"].tobytes()
        found[f"checksum of the test labels of class {label}"] = hashlib.sha256(bits).hexdigest()[
            :8
        ]
    return found


def comparison(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the cells of the table, a line a method and sweep, the header first.

    AUROC in percent, changes in points of it with the standard error of their mean over runs. The
    last columns are the mean AUROC of each class.
    """
    labels = sorted({name.normal_class for name in sweeps[0].rows})
    lines: list[tuple[str, ...]] = [("sweep", "method", *_COLUMNS, *map(str, labels))]
    for sweep, first in _by_method(sweeps):
        means = {row.normal_class: _percent(row.auroc_mean) for row in sweep.summary}
        of_classes = (means.get(label, "") for label in labels)
        cells = _cells(sweep, first, None)
        lines.append((sweep.name, sweep.summary[-1].method, *cells, *of_classes))
    return lines


def class_lines(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the cells of the same table with a line a method, sweep and class."""
    lines: list[tuple[str, ...]] = [("sweep", "method", "class", *_COLUMNS)]
    for sweep, first in _by_method(sweeps):
        for row in sweep.summary[:-1]:
            label = row.normal_class
            cells = _cells(_of_class(sweep, label), _of_class(first, label), label)
            lines.append((sweep.name, row.method, row.label, *cells))
    return lines


def run_lines(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the AUROC, in [0, 1], of each run of each sweep, the header first."""
    lines: list[tuple[str, ...]] = [("sweep", *RunName._fields, "auroc")]
    for sweep in sweeps:
        lines += [
            (sweep.name, *map(str, name), files.format_value(sweep.rows[name].auroc))
            for name in sorted(sweep.rows)
        ]
    return lines


def _by_method(sweeps: Sequence[Compared]) -> Iterator[tuple[Compared, Compared]]:
    """Yields each sweep's runs of a method, with those of the first sweep."""
    for method in dict.fromkeys(name.method for name in sorted(sweeps[0].rows)):
        parts = [
            sweep._replace(
                rows={name: row for name, row in sweep.rows.items() if name.method == method},
                summary=[row for row in sweep.summary if row.method == method],
            )
            for sweep in sweeps
        ]
        yield from ((part, parts[0]) for part in parts)


def _of_class(sweep: Compared, label: int | None) -> Compared:
    rows = {name: row for name, row in sweep.rows.items() if name.normal_class == label}
    return sweep._replace(rows=rows)


def _cells(sweep: Compared, first: Compared, label: int | None) -> tuple[str, ...]:
    """Returns the cells of a class, or of the mean over all, as `_COLUMNS` names them."""
    row, base = (
        next(row for row in one.summary if row.normal_class == label) for one in (sweep, first)
    )
    compared = sweep.name != first.name
    change = ""
    if compared and row.auroc_ensemble is not None and base.auroc_ensemble is not None:
        change = f"{100 * row.auroc_ensemble - 100 * base.auroc_ensemble:+.2f}"
    return (
        str(row.runs),
        _percent(row.auroc_mean),
        *(_change(sweep.rows, first.rows) if compared else ("", "")),
        _percent(row.auroc_ensemble),
        change,
    )


def _change(rows: Mapping[RunName, Record], first: Mapping[RunName, Record]) -> tuple[str, str]:
    """Returns the mean change in AUROC with equal weight for every class, and its standard error,
    empty for a single run."""
    names = sorted(rows)
    changes = np.array(
        [100 * rows[name].known_auroc - 100 * first[name].known_auroc for name in names]
    )
    of_class = Counter(name.normal_class for name in names)
    weights = np.array([1 / (len(of_class) * of_class[name.normal_class]) for name in names])
    mean = float(weights @ changes)
    if len(changes) < 2:
        return f"{mean:+.2f}", ""
    scale = len(changes) / (len(changes) - 1)
    return f"{mean:+.2f}", f"{np.sqrt(scale * weights**2 @ (changes - mean) ** 2):.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def setting_lines(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the cells of the table of settings that differ from the first sweep, the header
    first.

    A file is shown by its name only; equal names in different folders are reported as such.
    """
    first = sweeps[0]
    lines: list[tuple[str, ...]] = [("sweep", f"setting ({first.name} there, the sweep here)")]
    for sweep in sweeps[1:]:
        found = _differences(first, sweep)
        lines += [(sweep.name, _shortened(line)) for line in found or ["none"]]
    return lines


def _differences(first: Compared, sweep: Compared) -> list[str]:
    found = config_file.setting_differences(
        *map(publish.portable, (first.settings, sweep.settings))
    )
    names = {_named(line) for line in found}
    whole = config_file.setting_differences(first.settings, sweep.settings)
    # A published folder has no paths, so that its files cannot be compared.
    elsewhere = [] if first.is_published or sweep.is_published else map(_named, whole)
    return found + [
        f"{name} is a file of the same name in another folder"
        for name in elsewhere
        if name not in names
    ]


def _named(line: str) -> str:
    """Returns the name of the setting in a line of `setting_differences`."""
    return line.partition(" is ")[0]


def _shortened(line: str) -> str:
    return line if len(line) <= _MOST_LETTERS else line[: _MOST_LETTERS - 1] + "…"
