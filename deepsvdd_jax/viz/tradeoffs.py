"""A picture of the share of defects and of false alarms above every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from deepsvdd_jax.scoring.tradeoff import TradeOff

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mark(NamedTuple):
    """A marked threshold, its name, and its counts."""

    name: str
    threshold: float
    false_alarms: int
    found: int


_STYLES = (("s", "#666666"), ("o", "#d9641e"))


def trade_off_figure(table: TradeOff, marks: Sequence[Mark]) -> Figure:
    """Draws the share of defects found over the share of false alarms, and up to two marks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.add_subplot()
    alarms = 100.0 * table.false_alarms / table.normals
    found = 100.0 * table.found / table.defects
    axis.step(alarms, found, where="post", color="#2f6db3")
    for mark, (marker, color) in zip(marks, _STYLES, strict=False):
        across = 100.0 * mark.false_alarms / table.normals
        up = 100.0 * mark.found / table.defects
        label = f"{mark.name}: {mark.threshold:.4g}"
        axis.plot(across, up, marker, color=color, label=label, clip_on=False)
    axis.set(
        xlabel=f"false alarms, % of {table.normals} normals",
        ylabel=f"found, % of {table.defects} defects",
        xlim=(0, None),
        ylim=(0, 100),
    )
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.legend(frameon=False, loc="lower right")
    return figure
