"""Training curves: losses, radius and distances by epoch."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import Pictures
from deepsvdd_jax.cli.sweeps import records
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html
from deepsvdd_jax.viz.plots import Curve, Quantiles

Array = npt.NDArray[Any]
History = Mapping[str, Array]


def training(sweep: FinishedSweep, drawn: Pictures) -> Iterator[Html]:
    histories = {
        name: found
        for name in sorted(sweep.rows)
        if (found := records.read_history(sweep.folder, name))
    }
    if not histories:
        yield pages.paragraph("None of these methods is trained by epochs.")
    for method in sweep.methods:
        own = {name: found for name, found in histories.items() if name.method == method}
        if own:
            yield pages.heading(method)
            yield from _histories(sweep, drawn, method, own)


class _Quantity(NamedTuple):
    column: str
    phase: str
    label: str
    caption: str
    factor: float = 1.0
    log: bool = True


_QUANTITIES = (
    _Quantity("loss", "pretraining", "loss", "Loss of the autoencoder that starts the network."),
    _Quantity("loss", "training", "loss", "Loss, weight decay included: the mean of an epoch."),
    _Quantity("radius", "training", "radius R", "Radius of the sphere, a distance.", log=False),
    _Quantity(
        column="test_auroc",
        phase="training",
        label="AUROC, %",
        caption="AUROC of the test set in percent.",
        factor=100.0,
        log=False,
    ),
    _Quantity(
        "parameter_norm", "training", "norm", "Euclidean norm of all trained weights.", log=False
    ),
)


def _histories(
    sweep: FinishedSweep, drawn: Pictures, method: str, histories: Mapping[RunName, History]
) -> Iterator[Html]:
    for quantity in _QUANTITIES:
        panels = {
            sweep.title(label): [
                curve
                for name, history in histories.items()
                if name.normal_class == label and (curve := _curve(history, quantity)) is not None
            ]
            for label in sweep.classes
        }
        curves = [curve for found in panels.values() for curve in found]
        if not any(np.any(curve.values != 0) for curve in curves):
            continue
        name = f"{quantity.phase}-{quantity.column.replace('_', '-')}-{method}"
        picture = drawn.panels(
            name,
            f"{quantity.label} by epoch, {method}",
            len(panels),
            functools.partial(
                plots.epoch_figure, panels, quantity=quantity.label, log=quantity.log
            ),
        )
        yield pages.figure([picture], f"{quantity.caption} A line is a run.")
    yield from _quantiles(sweep, drawn, method, histories)


def _quantiles(
    sweep: FinishedSweep, drawn: Pictures, method: str, histories: Mapping[RunName, History]
) -> Iterator[Html]:
    panels: dict[str, Quantiles] = {}
    for name, history in histories.items():
        found = _distance_quantiles(history)
        if found is not None:
            panels.setdefault(sweep.title(name.normal_class), found)
    if panels:
        picture = drawn.panels(
            f"distances-{method}",
            f"Quantiles of the training distances by epoch, {method}",
            len(panels),
            functools.partial(plots.quantile_figure, panels, quantity="squared distance"),
        )
        yield pages.figure([picture], _QUANTILE_CAPTIONS[method == "dcae"])


_BANDS = (
    " of the training images, first seed: the median, the 25 % to 75 % and the 1 % to 99 % band."
)

_QUANTILE_CAPTIONS = {
    False: f"Squared distances to the center{_BANDS}",
    True: f"Summed squared errors of the reconstruction{_BANDS}",
}


def _curve(history: History, quantity: _Quantity) -> Curve | None:
    if quantity.column not in history:
        return None
    epochs, values = (
        _numbers(history, column, quantity.phase) for column in ("epoch", quantity.column)
    )
    there = np.isfinite(values)
    return Curve(epochs[there], quantity.factor * values[there]) if there.any() else None


def _distance_quantiles(history: History) -> Quantiles | None:
    columns = sorted(name for name in history if name.startswith("distance_q"))
    levels = tuple(int(name.removeprefix("distance_q")) / 100 for name in columns)
    if not columns or not len(columns) % 2:
        return None
    epochs = _numbers(history, "epoch", "training")
    values = np.stack([_numbers(history, name, "training") for name in columns], axis=1)
    return Quantiles(epochs, levels, values) if np.isfinite(values).any() else None


def _numbers(history: History, column: str, phase: str) -> Array:
    cells = history[column]
    return cells[history["phase"] == phase] if "phase" in history else cells
