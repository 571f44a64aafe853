"""A picture of the evidence that a stream of scores has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepsvdd_jax.viz.plots import WIDE, Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drift_figure(capital: Sequence[float], alarm: float, layout: Layout) -> Figure:
    """Draws the capital of the drift alarm by the number of the sample, and the level of the alarm.

    Args:
      capital: of each sample in the order in which they came, positive.
      alarm: capital from which on the alarm is raised.
      layout: a narrow one draws a narrow picture.
    """
    from matplotlib.figure import Figure

    is_narrow = layout.columns < WIDE.columns
    figure = Figure(figsize=(3.9, 2.4) if is_narrow else (8.0, 2.6), layout="constrained")
    axis = figure.add_subplot()
    axis.step(range(1, len(capital) + 1), capital, where="post", color="#2f6db3", label="evidence")
    axis.axhline(alarm, color="black", linewidth=1, linestyle="--", label=f"alarm at {alarm:g}")
    axis.set(yscale="log", xlabel="samples so far", ylabel="evidence of a change")
    axis.set_ylim(min(capital) / 2, 2 * max(alarm, *capital))
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.legend(frameon=False, loc="best")
    return figure
