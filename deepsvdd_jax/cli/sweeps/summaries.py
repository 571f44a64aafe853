"""From rows to means over seeds and classes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from deepsvdd_jax.cli.files import write_table
from deepsvdd_jax.cli.sweeps.records import (
    SUMMARY_COLUMNS,
    Record,
    RunName,
    Summary,
    read_scores,
)
from deepsvdd_jax.scoring import ensemble, metrics


def write_summary(folder: Path, rows: Mapping[RunName, Record]) -> list[Summary]:
    """Writes `summary.csv` from the rows and scores of finished runs (touches files)."""
    summary = summarize(folder, rows)
    write_summary_rows(folder, summary)
    return summary


def write_summary_rows(folder: Path, summary: Iterable[Summary]) -> None:
    """Writes `summary.csv` (touches files)."""
    lines = (row.to_row().values() for row in summary)
    write_table(folder / "summary.csv", [SUMMARY_COLUMNS, *lines])


def summarize(folder: Path, rows: Mapping[RunName, Record]) -> list[Summary]:
    """Returns `summarize_runs`, the seeds put together from their scores (touches files)."""
    return summarize_runs(rows, lambda names: _ensemble_auroc(folder, names))


def summarize_runs(
    rows: Mapping[RunName, Record], ensemble_of: Callable[[list[RunName]], float | None]
) -> list[Summary]:
    """Returns a row for each class and method, and a row `mean` for each method.

    A class's `auroc_std` is over its seeds. The mean row's is over seeds of the mean over classes,
    empty unless all classes have the same seeds, two at least.

    Args:
      rows: of finished runs.
      ensemble_of: gives the AUROC of a class's runs together.
    """
    summary: list[Summary] = []
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
) -> Summary:
    names = [name for name in rows if name.normal_class == label]
    auroc = metrics.mean_and_std([rows[name].known_auroc for name in names])
    first = rows[names[0]]
    return Summary(
        dataset=first.dataset,
        normal_class=label,
        method=first.method,
        objective=first.objective,
        runs=len(names),
        auroc_mean=auroc.mean,
        auroc_std=auroc.std,
        auroc_ensemble=ensemble_of(names),
        auroc_untrained_mean=_mean([rows[name].auroc_untrained for name in names]),
    )


def _mean_summary(rows: Mapping[RunName, Record], per_class: list[Summary]) -> Summary:
    by_seed: dict[int, list[float]] = {}
    for name, row in rows.items():
        by_seed.setdefault(name.seed, []).append(row.known_auroc)
    complete = len(by_seed) > 1 and all(
        len(values) == len(per_class) for values in by_seed.values()
    )
    std = metrics.mean_and_std([float(np.mean(values)) for values in by_seed.values()]).std
    return dataclasses.replace(
        per_class[0],
        normal_class=None,
        runs=len(rows),
        auroc_mean=float(np.mean([row.auroc_mean for row in per_class])),
        auroc_std=std if complete else None,
        auroc_ensemble=_mean([row.auroc_ensemble for row in per_class]),
        auroc_untrained_mean=_mean([row.auroc_untrained_mean for row in per_class]),
    )


def _mean(values: list[float | None]) -> float | None:
    """Returns the mean, None unless all values are known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _ensemble_auroc(folder: Path, names: list[RunName]) -> float | None:
    """Returns the AUROC of the mean over seeds of d over its mean on the training set."""
    loaded = [read_scores(folder, name) for name in names]
    tested = [item["tested"] for item in loaded]
    if any(not np.array_equal(tested[0], other) for other in tested):
        # Runs that were evaluated on different test images have no common score.
        return None
    distances = np.stack([item["distances"] for item in loaded])
    total = ensemble.mean_in_units(distances, [item["train_mean"] for item in loaded])
    chosen = tested[0]
    return metrics.auroc(total[chosen], loaded[0]["labels"][chosen])
