"""The section of a page of scores on whether they still look like those of the calibration set."""

from collections.abc import Sequence

import numpy as np

from deepsvdd_jax.cli.reporting.called import NamedModel
from deepsvdd_jax.scoring import drift
from deepsvdd_jax.viz import pages, plots, streams
from deepsvdd_jax.viz.pages import Picture, Section


def capital_of(
    logged: Sequence[float | None],
    scores: Sequence[float],
    named: NamedModel | None,
    has_kinds: bool,
) -> list[float]:
    """Returns the capital of the drift alarm after every row; empty where it has no meaning.

    Args:
      logged: the column that `watch` wrote; None without one.
      scores: of the rows, in the order of the file.
      named: the model that scored; None where it is not known.
      has_kinds: whether rows are known to be normal or defects: sorted by kind they are not a
        stream.
    """
    if logged and None not in logged:
        return [value for value in logged if value is not None]
    model = None if named is None else named.model
    if model is None or has_kinds or len(model.calibration_folds):
        return []
    if not len(model.calibration_scores):
        return []
    return drift.watch(model.calibration_scores, scores).tolist()


def section(
    capital: Sequence[float],
    is_logged: bool,
    files: dict[str, bytes],
    alarm: float = 1.0 / drift.DEFAULT_RATE,
) -> Section:
    """Returns the section of the drift alarm, and puts its picture among the files.

    Args:
      capital: after every row, in the order in which they came.
      is_logged: whether `watch` wrote it, or it was computed from the rows in their order.
      files: pictures by name.
      alarm: capital at which the alarm is raised; at most a share 1 / alarm of unchanged streams
        ever reaches it.
    """
    places = np.flatnonzero(np.asarray(capital) >= alarm)
    order = "in the order in which they came" if is_logged else "in the order of the file"
    if len(places):
        name = f"{places[0] + 1} of {len(capital)}"
        text = (
            f"The scores are no longer those of the calibration set: the evidence reaches "
            f"{alarm:g} after {name} samples, {order}, and {max(capital):.3g} at the most. Look at "
            "the newest images; if they are normal, calibrate or fit again."
        )
    else:
        text = (
            f"No drift alarm: the evidence is {capital[-1]:.3g} after {len(capital)} samples, "
            f"{order}, {max(capital):.3g} at the most; the alarm is at {alarm:g}."
        )
    wide, narrow = (
        plots.png_bytes(streams.drift_figure(capital, alarm, layout))
        for layout in (plots.WIDE, plots.NARROW)
    )
    files["drift.png"] = wide
    caption = (
        f"Evidence that the scores have changed, from 1 on; of streams that do not change at most "
        f"{100 / alarm:.3g} % ever reach {alarm:g}, however long they are."
    )
    picture = Picture(wide, "Evidence of a change by the number of samples", narrow)
    return Section("Drift", "drift", [pages.paragraph(text), pages.figure([picture], caption)])
