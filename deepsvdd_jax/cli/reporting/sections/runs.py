"""Every run, and every setting."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import comma, count
from deepsvdd_jax.viz import pages
from deepsvdd_jax.viz.pages import Html

_RUN_COLUMNS = {
    "normal_class": "class",
    "method": "method",
    "seed": "seed",
    "auroc": "AUROC, %",
    "average_precision": "avg. precision, %",
    "fpr95": "FPR at 95 % recall, %",
    "threshold": "threshold",
    "accuracy": "accuracy, %",
    "precision": "precision, %",
    "recall": "recall, %",
    "f1": "F1, %",
    "epochs": "epochs",
    "train_seconds": "seconds",
}


def runs_table(sweep: FinishedSweep) -> Html:
    lines = [
        [
            _cell(column, title, getattr(sweep.rows[name], column))
            for column, title in _RUN_COLUMNS.items()
        ]
        for name in sorted(sweep.rows, key=lambda name: (name.normal_class, name.method, name.seed))
    ]
    found = pages.table(list(_RUN_COLUMNS.values()), lines, _RUNS_CAPTION)
    return pages.details(count(len(lines), "run", "runs"), found)


_RUNS_CAPTION = (
    "Every run on its test set. Accuracy, precision, recall and F1 are at the threshold; a run's "
    "seconds are its share of its program's time."
)


def _cell(column: str, title: str, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if title.endswith("%"):
        return f"{100 * value:.2f}"
    return f"{value:.4g}" if column in ("threshold", "train_seconds") else str(value)


def settings(sweep: FinishedSweep) -> list[Html]:
    lines = list(_flattened(sweep.settings))
    environment = ("versions", "device")
    own = [line for line in lines if line[0].split(".")[0] not in environment]
    where = [line for line in lines if line[0].split(".")[0] in environment]
    return [
        pages.table(("versions and device", "value"), where, "Where the last runs were trained."),
        pages.details(
            f"All {len(own)} settings",
            pages.table(("setting", "value"), own, "From config.json; — means none."),
        ),
    ]


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", comma(value) or "—"
        else:
            yield f"{prefix}{name}", "—" if value is None else str(value)
