"""From rows to means over seeds and classes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from deepsvdd_jax.cli.files import Row, format_value, write_table
from deepsvdd_jax.cli.sweeps.records import SUMMARY_COLUMNS, Record, RunName, read_scores
from deepsvdd_jax.scoring import metrics


def write_summary(folder: Path, rows: Mapping[RunName, Record]) -> list[Row]:
    """Writes `summary.csv` from the rows and scores of finished runs (touches files)."""
    summary = summarize(folder, rows)
    write_summary_rows(folder, summary)
    return summary


def write_summary_rows(folder: Path, summary: list[Row]) -> None:
    """Writes `summary.csv` from its rows (touches files)."""
    lines = ([row[name] for name in SUMMARY_COLUMNS] for row in summary)
    write_table(folder / "summary.csv", [SUMMARY_COLUMNS, *lines])


def summarize(folder: Path, rows: Mapping[RunName, Record]) -> list[Row]:
    """Returns `summarize_runs`, the seeds put together from their scores (touches files)."""
    return summarize_runs(rows, lambda names: _ensemble_auroc(folder, names))


def summarize_runs(
    rows: Mapping[RunName, Record], ensemble_of: Callable[[list[RunName]], float | None]
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
            if name.method == method and row.is_scored
        }
        classes = dict.fromkeys(name.normal_class for name in of_method)
        per_class = [_class_summary(of_method, label, ensemble_of) for label in classes]
        summary += per_class
        if per_class:
            summary.append(_mean_summary(of_method, per_class))
    return summary


def _class_summary(
    rows: Mapping[RunName, Record], label: int, ensemble_of: Callable[[list[RunName]], float | None]
) -> Row:
    names = [name for name in rows if name.normal_class == label]
    auroc = metrics.mean_and_std([rows[name].known_auroc for name in names])
    untrained = [rows[name].auroc_untrained for name in names]
    known = [value for value in untrained if value is not None]
    first = rows[names[0]]
    return {
        "dataset": first.dataset,
        "normal_class": str(label),
        "method": first.method,
        "objective": format_value(first.objective),
        "runs": str(len(names)),
        "auroc_mean": format_value(auroc.mean),
        "auroc_std": format_value(auroc.std),
        "auroc_ensemble": format_value(ensemble_of(names)),
        "auroc_untrained_mean": format_value(
            np.mean(known) if len(known) == len(untrained) else None
        ),
    }


def _mean_summary(rows: Mapping[RunName, Record], per_class: list[Row]) -> Row:
    by_seed: dict[int, list[float]] = {}
    for name, row in rows.items():
        by_seed.setdefault(name.seed, []).append(row.known_auroc)
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
