"""The table of Deep SAD: the gain from known anomalies by their share of the training set.

A pair is a normal class and one known anomalous class; a figure is the mean over pairs ± the
standard deviation over pairs, as the paper has it (Ruff et al., ICLR 2020). Without labels the
pairs of a normal class are one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.files import format_value
from deepsvdd_jax.cli.sweeps.records import Summary

# Quoted from a later paper: percent over 90 pairs, by share of labelled anomalies.
PUBLISHED: dict[str, dict[float, str]] = {
    "mnist": {
        0.0: "92.8 ± 4.9",
        0.01: "96.4 ± 2.7",
        0.05: "96.7 ± 2.3",
        0.1: "96.9 ± 2.3",
        0.2: "96.9 ± 2.4",
    },
    "fashion_mnist": {
        0.0: "89.2 ± 6.2",
        0.01: "90.0 ± 6.4",
        0.05: "90.5 ± 6.5",
        0.1: "91.3 ± 6.0",
        0.2: "91.0 ± 5.5",
    },
    "cifar10": {
        0.0: "60.9 ± 9.4",
        0.01: "72.6 ± 7.4",
        0.05: "77.9 ± 7.2",
        0.1: "79.8 ± 7.1",
        0.2: "81.9 ± 7.0",
    },
}

HEADER = ("labelled", "pairs", "runs", "untrained", "AUROC", "ensemble", "published")
PAIR_HEADER = (
    *("labelled_ratio", "known_anomalous_class", "normal_class", "runs"),
    *("auroc_untrained", "auroc_mean", "auroc_ensemble"),
)


class Cell(NamedTuple):
    """A sweep of the table.

    Attributes:
      ratio: share of labelled anomalies in the training set.
      known: the class that they come from; None without labels.
    """

    ratio: float
    known: int | None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return "labelled0" if self.known is None else f"labelled{self.ratio!r}-known{self.known}"

    @staticmethod
    def of_folder(name: str) -> "Cell | None":
        """Returns the sweep of a folder, None for any other folder."""
        if name == Cell(0.0, None).folder:
            return Cell(0.0, None)
        found = re.fullmatch(r"labelled(0\.\d+|\d(?:\.\d+)?e-\d+)-known(\d+)", name)
        return None if found is None else Cell(float(found[1]), int(found[2]))


def cells(ratios: Iterable[float], known: Iterable[int]) -> list[Cell]:
    """Returns the sweeps of a table: one without labels, and for every other share one for each
    known class."""
    classes = list(known)
    found = []
    for ratio in sorted(set(ratios)):
        found += [Cell(ratio, label) for label in classes] if ratio else [Cell(0.0, None)]
    return found


def pair_lines(summaries: Mapping[Cell, list[Summary]]) -> list[tuple[str, ...]]:
    """Returns the cells of `pairs.csv`, AUROC in [0, 1], the header first.

    Args:
      summaries: rows of `summary.csv` by sweep.
    """
    lines: list[tuple[str, ...]] = [PAIR_HEADER]
    for cell, summary in summaries.items():
        for row in _pairs(summary):
            figures = (row.auroc_untrained_mean, row.auroc_mean, row.auroc_ensemble)
            values = (cell.ratio, cell.known, row.normal_class, row.runs, *figures)
            lines.append(tuple(map(format_value, values)))
    return lines


def lines(summaries: Mapping[Cell, list[Summary]], dataset: str) -> list[tuple[str, ...]]:
    """Returns the table's cells, AUROC in percent, the header first.

    Args:
      summaries: rows of `summary.csv` by sweep.
      dataset: whose published figures are shown beside.
    """
    found: list[tuple[str, ...]] = [HEADER]
    published = PUBLISHED.get(dataset, {})
    for ratio in dict.fromkeys(cell.ratio for cell in summaries):
        rows = [
            row
            for cell, summary in summaries.items()
            if cell.ratio == ratio
            for row in _pairs(summary)
        ]
        found.append(
            (
                f"{ratio:g}",
                str(len(rows)),
                str(sum(row.runs for row in rows)),
                _mean([row.auroc_untrained_mean for row in rows]),
                _mean([row.auroc_mean for row in rows], with_deviation=True),
                _mean([row.auroc_ensemble for row in rows], with_deviation=True),
                published.get(ratio, ""),
            )
        )
    return found


def _pairs(summary: list[Summary]) -> list[Summary]:
    return [row for row in summary if row.normal_class is not None]


def _mean(shares: Sequence[float | None], with_deviation: bool = False) -> str:
    known = [share for share in shares if share is not None]
    if not known or len(known) < len(shares):
        return ""
    values: npt.NDArray[np.float64] = 100 * np.array(known)
    deviation = f" ± {values.std(ddof=1):.1f}" if with_deviation and len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"
