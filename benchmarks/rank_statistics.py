"""Compares detectors over many data sets: ranks, paired tests, and the critical-difference figure.

All of it takes AUROCs `[sets, detectors]` in [0, 1], higher = better (Demšar, JMLR 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

# AUROCs closer than this, in [0, 1], count as equal in wins and losses: rounding, no more.
TIE = 1e-9


class Paired(NamedTuple):
    """One detector against another over the same sets.

    Attributes:
      difference: mean AUROC of the first less that of the second.
      wins: sets on which the first is better.
      losses: sets on which the second is better.
      p_value: of Wilcoxon's signed-rank test, two-sided; NaN where all sets are equal.
    """

    difference: float
    wins: int
    losses: int
    p_value: float


def ranks(aurocs: Floats) -> Floats:
    """Returns the rank of each detector on each set, 1 = best, equal ones share their mean."""
    return np.asarray(stats.rankdata(-aurocs, axis=1), np.float64)


def paired(first: Floats, second: Floats) -> Paired:
    """Returns the comparison of two detectors, AUROCs `[sets]` each."""
    change = first - second
    change[np.abs(change) <= TIE] = 0.0
    p_value = float(stats.wilcoxon(change).pvalue) if np.any(change) else float("nan")
    return Paired(float(change.mean()), int(np.sum(change > 0)), int(np.sum(change < 0)), p_value)


def critical_difference(detectors: int, sets: int, level: float = 0.05) -> float:
    """Returns the difference of mean ranks that Nemenyi's test calls significant.

    q sqrt(k (k + 1) / (6 n)), q of the studentized range over the root of 2.
    """
    quantile = stats.studentized_range.ppf(1 - level, detectors, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(detectors * (detectors + 1) / (6 * sets)))


def friedman_p_value(aurocs: Floats) -> float:
    """Returns the p-value of Friedman's test that all detectors rank alike; NaN for fewer than
    three detectors or two sets."""
    sets, detectors = aurocs.shape
    if detectors < 3 or sets < 2 or not np.any(np.diff(ranks(aurocs), axis=1)):
        return float("nan")
    return float(stats.friedmanchisquare(*aurocs.T).pvalue)


def groups_alike(mean_ranks: Floats, difference: float) -> list[tuple[float, float]]:
    """Returns the longest stretches of mean ranks no wider than a difference, of two detectors or
    more: `(least, largest)` of each, from the best on."""
    ordered = np.sort(mean_ranks)
    stretches: list[tuple[float, float]] = []
    for start, least in enumerate(ordered):
        inside = ordered[start:][ordered[start:] - least <= difference]
        if len(inside) > 1 and (not stretches or inside[-1] > stretches[-1][1]):
            stretches.append((float(least), float(inside[-1])))
    return stretches


def rank_figure(names: Sequence[str], aurocs: Floats, level: float = 0.05) -> Figure:
    """Returns the critical-difference figure: a mark a detector at its mean rank, the best on the
    left; a bar joins those that Nemenyi's test cannot tell apart.

    Needs matplotlib (`pip install -e '.[report]'`).
    """
    from matplotlib.figure import Figure

    means = ranks(aurocs).mean(axis=0)
    difference = critical_difference(len(names), len(aurocs), level)
    order = np.argsort(means, kind="stable")
    groups = groups_alike(means, difference)
    figure = Figure(figsize=(7.0, 1.0 + 0.28 * len(names) + 0.14 * len(groups)))
    axis = figure.add_subplot()
    for place, detector in enumerate(order):
        axis.plot([means[detector]] * 2, [0, -1 - place], color="#888888", linewidth=0.8)
        axis.plot(means[detector], 0, "o", color="#0072b2", clip_on=False, zorder=3)
        axis.annotate(
            f"{names[detector]}  {means[detector]:.2f}",
            (means[detector], -1 - place),
            # To the left, where no mark of a better detector reaches down so far.
            xytext=(-4, 0),
            ha="right",
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for place, (least, largest) in enumerate(groups):
        axis.plot([least, largest], [0.5 + 0.4 * place] * 2, color="#d55e00", linewidth=3)
    _style_ranks(axis, len(names), len(groups))
    axis.set_title(
        f"mean rank over {len(aurocs)} data sets; bars: not told apart at {100 * level:g} % "
        f"(Nemenyi, difference {difference:.2f})",
        fontsize=8.5,
    )
    figure.tight_layout()
    return figure


def _style_ranks(axis: Axes, detectors: int, groups: int) -> None:
    axis.set_xlim(0, detectors + 0.3)
    axis.set_ylim(-detectors - 0.7, 0.6 + 0.4 * groups)
    axis.set_yticks([])
    axis.set_xticks(range(1, detectors + 1))
    axis.xaxis.tick_top()
    for side in ("left", "right", "bottom"):
        axis.spines[side].set_visible(False)
