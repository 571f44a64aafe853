"""What is worth keeping of a sweep's folder: its tables, settings, machine and two pictures.

    python -m experiments.publish --out=FOLDER --to=results/NAME
    python -m experiments.publish --out=FOLDER --markdown

Copies no scores, histories and models, and no path of this machine, so that the folder is small and
can be committed. With `--markdown` prints the table of all methods, ours and published.
"""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from absl import flags

from deepsvdd_jax import plots
from deepsvdd_jax.configs import ConfigError
from experiments import ensembles, environment, report, results, sweep_report, tables
from experiments.results import ResultsError, Row, RunName
from experiments.sweep_report import Sweep


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder")
    flags.DEFINE_string("to", None, "folder to write into, as results/NAME")
    flags.DEFINE_bool("markdown", False, "print the table as markdown")


def main() -> None:
    """Reads the flags, prints the table, writes the folder."""
    values = flags.FLAGS
    if not values.out:
        raise ConfigError("out is not given; it is a sweep's folder")
    if not values.to and not values.markdown:
        raise ConfigError("give --to=results/NAME, a folder to write into, or --markdown")
    folder = Path(values.out).expanduser()
    settings, rows = results.read_folder(folder)
    finished = Sweep(folder, settings, rows, None, "")
    summary = results.summarize(folder, rows)
    if not summary:
        raise ResultsError(f"{folder}: no run has ended without a failure")
    if values.to:
        report.check_matplotlib()
        publish(finished, summary, Path(values.to).expanduser())
    if values.markdown:
        print(markdown(finished, summary))


def markdown(finished: Sweep, summary: list[Row]) -> str:
    """Returns the table of all methods, ours and published."""
    preset = sweep_report.preset_of(finished)
    return tables.markdown_table(summary, preset, finished.split.protocol)


def publish(finished: Sweep, summary: list[Row], to: Path) -> None:
    """Writes the folder (touches files): reads the scores of seeds for one of its pictures.

    Raises:
      ConfigError: `to` is the sweep's own folder.
      ResultsError: `to` holds something else, or a file of the sweep is damaged.
    """
    _check_target(finished.folder, to)
    results.write_json(to / "config.json", portable(finished.settings))
    results.write_json(to / "hardware.json", hardware(finished.settings, finished.rows))
    results.write_runs(to, finished.rows)
    results.write_summary_rows(to, summary)
    results.write_text(to / "table.md", markdown(finished, summary) + "\n")
    bars = sweep_report.bar_figure(finished, sweep_report.preset_of(finished), plots.WIDE)
    results.write_bytes(to / "classes.png", plots.png_bytes(bars))
    members = ensembles.read_members(finished.folder, finished.rows, None)
    if members:
        drawn = ensembles.gain_figure(ensembles.gains_of_all(members), plots.WIDE)
        results.write_bytes(to / "seeds.png", plots.png_bytes(drawn))


def _check_target(folder: Path, to: Path) -> None:
    if to.resolve() == folder.resolve():
        raise ConfigError(f"to is the sweep's own folder, {to}; give another one")
    if to.exists() and not to.is_dir():
        raise ResultsError(f"{to} is no folder; give another --to")
    if to.exists() and any(to.iterdir()) and not (to / "hardware.json").exists():
        raise ResultsError(f"{to} is not empty and was not published to; give another --to")


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without the places of this machine: of other paths the last part stays."""
    return {name: _without_folders(value) for name, value in settings.items() if name != "data_dir"}


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


def hardware(settings: Mapping[str, Any], rows: Mapping[RunName, Row]) -> dict[str, Any]:
    """Returns the machine, the versions, and each method's runs and seconds.

    A run's seconds are its program's by the clock, compilation included, over the program's runs;
    baselines run in threads, so theirs overlap.
    """
    spent = {}
    for method in dict.fromkeys(name.method for name in sorted(rows)):
        seconds = [
            float(row["train_seconds"])
            for name, row in rows.items()
            if name.method == method and row["train_seconds"]
        ]
        spent[method] = {"runs": len(seconds), "seconds": round(sum(seconds), 1)}
    return {
        "device": settings.get("device"),
        "versions": settings.get("versions"),
        "methods": spent,
    }


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
