"""What a setting changes: sweeps of the same classes and seeds that differ in one, run by run.

    python -m experiments.compare --out=BASE,OTHER,THIRD
    python -m experiments.compare --out=BASE,OTHER,THIRD --to=results/NAME

Compared with the first sweep, over the runs that all of them have: the AUROC, its change as the
mean over runs of the same class and seed with the standard error of that mean, and the AUROC of
seeds together. Labels serve to judge only: to choose a setting by such a table, make it with seeds
that no other figure has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from deepsvdd_jax.configs import ConfigError
from experiments import environment, publish, results, tables
from experiments.results import ResultsError, Row, RunName

# A phase that only one sweep has is told by how it begins.
_MOST_LETTERS = 120


class Compared(NamedTuple):
    """A sweep, as far as the others have its runs.

    Attributes:
      name: of its folder.
      settings: what `config.json` says.
      rows: of the runs that every sweep has.
      summary: of these runs.
    """

    name: str
    settings: dict[str, Any]
    rows: dict[RunName, Row]
    summary: list[Row]


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_list(
        "out", [], "folders of sweeps; the first is what the others are compared with"
    )
    flags.DEFINE_string("to", None, "folder to write the tables into, as results/NAME")


def main() -> None:
    """Reads the flags, prints the table and what differs, writes both if asked to."""
    values = flags.FLAGS
    folders = [Path(name).expanduser() for name in values.out]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(
            "out must be two folders or more, separated by commas, of different names"
        )
    if values.to:
        publish.check_target(folders, Path(values.to).expanduser())
    sweeps = read_sweeps(folders)
    lines, differing = comparison(sweeps), setting_lines(sweeps)
    print(tables.aligned(lines))
    print("\n" + tables.aligned(differing))
    if values.to:
        to = Path(values.to).expanduser()
        results.write_table(to / "comparison.csv", lines)
        results.write_table(to / "settings.csv", differing)
        machines = [publish.hardware(sweep.settings, sweep.rows) for sweep in sweeps]
        results.write_json(to / "hardware.json", {"parts": machines})


def read_sweeps(folders: Sequence[Path]) -> list[Compared]:
    """Reads what the sweeps have in common (touches files).

    Raises:
      ResultsError: a folder holds no sweep or is damaged, or no run has ended well in all of them.
    """
    read = [results.read_folder(folder) for folder in folders]
    finished = [{name for name, row in rows.items() if row["auroc"]} for _, rows in read]
    common = set.intersection(*finished)
    if not common:
        raise ResultsError(f"{', '.join(map(str, folders))} have no run in common")
    return [
        _compared(folder, settings, {name: row for name, row in rows.items() if name in common})
        for folder, (settings, rows) in zip(folders, read, strict=True)
    ]


def _compared(folder: Path, settings: dict[str, Any], rows: dict[RunName, Row]) -> Compared:
    return Compared(folder.resolve().name, settings, rows, results.summarize(folder, rows))


def comparison(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the cells of the table, a line a method and sweep, the header first.

    AUROC in percent, changes in points of it: mean ± standard error over runs. The last columns are
    the mean AUROC of each class.
    """
    labels = sorted({name.normal_class for name in sweeps[0].rows})
    header = ("sweep", "method", "runs", "AUROC", "change", "ensemble", "change")
    lines: list[tuple[str, ...]] = [(*header, *map(str, labels))]
    for method in dict.fromkeys(name.method for name in sorted(sweeps[0].rows)):
        first = _of_method(sweeps[0], method)
        lines += [_line(_of_method(sweep, method), first, labels) for sweep in sweeps]
    return lines


def _of_method(sweep: Compared, method: str) -> Compared:
    return sweep._replace(
        rows={name: row for name, row in sweep.rows.items() if name.method == method},
        summary=[row for row in sweep.summary if row["method"] == method],
    )


def _line(sweep: Compared, first: Compared, labels: Sequence[int]) -> tuple[str, ...]:
    cells = {row["normal_class"]: row for row in sweep.summary}
    mean, base = cells["mean"], first.summary[-1]
    together = [_points(row["auroc_ensemble"]) for row in (mean, base)]
    gained = together[0] - together[1]
    compared = sweep.name != first.name
    return (
        sweep.name,
        mean["method"],
        mean["runs"],
        f"{_points(mean['auroc_mean']):.2f}",
        _change(sweep.rows, first.rows) if compared else "",
        "" if np.isnan(together[0]) else f"{together[0]:.2f}",
        f"{gained:+.2f}" if compared and not np.isnan(gained) else "",
        *(
            f"{_points(cells[str(label)]['auroc_mean']):.2f}" if str(label) in cells else ""
            for label in labels
        ),
    )


def _change(rows: Mapping[RunName, Row], first: Mapping[RunName, Row]) -> str:
    changes = [_points(row["auroc"]) - _points(first[name]["auroc"]) for name, row in rows.items()]
    mean = f"{np.mean(changes):+.2f}"
    if len(changes) < 2:
        return mean
    return f"{mean} ± {np.std(changes, ddof=1) / len(changes) ** 0.5:.2f}"


def _points(cell: str) -> float:
    return 100 * float(cell) if cell else float("nan")


def setting_lines(sweeps: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Returns the cells of the table of what differs from the first sweep, the header first."""
    first = sweeps[0]
    lines: list[tuple[str, ...]] = [("sweep", f"setting ({first.name} there, the sweep here)")]
    for sweep in sweeps[1:]:
        found = results.setting_differences(first.settings, sweep.settings)
        lines += [(sweep.name, _shortened(line)) for line in found or ["none"]]
    return lines


def _shortened(line: str) -> str:
    return line if len(line) <= _MOST_LETTERS else line[: _MOST_LETTERS - 1] + "…"


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
