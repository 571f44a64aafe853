"""The figures of a sweep: summary, ROC curves, histograms of scores."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepsvdd_jax.cli.reporting import published, tables
from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import Pictures, comma, count
from deepsvdd_jax.cli.sweeps import records
from deepsvdd_jax.cli.sweeps.records import RunName, Summary
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html, Picture
from deepsvdd_jax.viz.plots import Layout, Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def summary(sweep: FinishedSweep, drawn: Pictures, summary: list[Summary]) -> list[Html]:
    if not summary:
        return [*_troubles(sweep), pages.paragraph("No run has a score; see the runs below.")]
    by_method = [
        _method_table(sweep, [row for row in summary if row.method == method])
        for method in sweep.methods
        if any(row.method == method for row in summary)
    ]
    found = pages.joined(by_method)
    if len(by_method) > 1:
        found = pages.joined(
            [_comparison(sweep, summary), pages.details("Every method's table", found)]
        )
    itu = tables.itu_lines(sweep.rows, sweep.dataset_name, sweep.preset)
    return [
        *_troubles(sweep),
        found,
        *(pages.table(lines[0], lines[1:], title) for title, lines in itu.items()),
        pages.figure([_bars(sweep, drawn, summary)], _BARS_CAPTION),
    ]


def _method_table(sweep: FinishedSweep, summary: list[Summary]) -> Html:
    """Returns a method's summary beside the published figures."""
    header, *lines = _filled(tables.summary_lines(summary, sweep.preset, sweep.split.protocol))
    name = lines[0][1]
    rows = [(line[0], *line[2:]) for line in lines]
    caption = _SUMMARY_CAPTION.format(name=name)
    caption += _UNTRAINED_CAPTION if "untrained" in header else ""
    caption += _ENSEMBLE_CAPTION if len(sweep.seeds) > 1 else ""
    caption += _PUBLISHED_CAPTION if "published" in header else ""
    return pages.table((header[0], *header[2:]), rows, caption, strong=[len(rows) - 1])


def _comparison(sweep: FinishedSweep, summary: Sequence[Summary]) -> Html:
    """Returns a table with a column a method."""
    methods = [name for name in sweep.methods if any(row.method == name for row in summary)]
    cells = {(row.label, row.method): _mean_cell(row) for row in summary}
    labels = [*map(str, sweep.classes), "mean"]
    rows = [(label, *(cells.get((label, method), "") for method in methods)) for label in labels]
    caption = "AUROC in percent by normal class: mean ± standard deviation over seeds."
    return pages.table(("class", *methods), rows, caption, strong=[len(rows) - 1])


def _mean_cell(row: Summary) -> str:
    mean = f"{100 * row.auroc_mean:.2f}"
    return f"{mean} ± {100 * row.auroc_std:.2f}" if row.auroc_std else mean


_SUMMARY_CAPTION = "{name}: AUROC in percent by normal class, mean ± standard deviation over seeds."

_UNTRAINED_CAPTION = " Untrained: of the network before training."

_ENSEMBLE_CAPTION = " Ensemble: of the seeds' mean score."

_PUBLISHED_CAPTION = (
    " Published: Ruff et al. 2018, or the ITU report for its preset; figures in brackets could not "
    "be checked against the print."
)

_BARS_CAPTION = (
    "AUROC in percent for each normal class. Bars run from chance (50 %) to the mean, a dot is a "
    "run, a triangle all seeds together, a diamond the published figure where there is one."
)


def _filled(lines: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leaves out the columns that are empty but for the header."""
    there = [place for place in range(len(lines[0])) if any(line[place] for line in lines[1:])]
    return [tuple(line[place] for place in there) for line in lines]


def _troubles(sweep: FinishedSweep) -> list[Html]:
    failed = [f"{name.stem} ({row.failure})" for name, row in sweep.rows.items() if row.failure]
    collapsed = [name.stem for name, row in sweep.rows.items() if row.collapsed]
    blocks = []
    if failed:
        blocks.append(f"{count(len(failed), 'run', 'runs')} failed: {comma(failed)}.")
    if collapsed:
        blocks.append(
            f"{count(len(collapsed), 'run', 'runs')} collapsed, all inputs are mapped to nearly "
            f"one point: {comma(collapsed)}."
        )
    return [pages.paragraph(text, "missing") for text in blocks]


def _bars(sweep: FinishedSweep, drawn: Pictures, summary: Sequence[Summary]) -> Picture:
    return drawn.panels(
        "classes",
        "Bars of the AUROC of every class and method",
        len(sweep.classes) + 2,
        functools.partial(bar_figure, sweep, summary),
    )


def bar_figure(sweep: FinishedSweep, summary: Sequence[Summary], layout: Layout) -> "Figure":
    """Draws every class's and method's runs, and its seeds together, beside the published figures.

    Args:
      sweep: its settings and rows.
      summary: `summaries.summarize` of the sweep.
      layout: of the picture.
    """
    methods = {
        method: [
            np.array([100 * sweep.rows[name].known_auroc for name in runs])
            for runs in (sweep.finished(method, label) for label in sweep.classes)
        ]
        for method in sweep.methods
    }
    ensembles = {
        (row.method, row.normal_class): 100 * row.auroc_ensemble
        for row in summary
        if row.runs > 1 and row.auroc_ensemble is not None
    }
    together = {
        method: [ensembles.get((method, label)) for label in sweep.classes]
        for method in sweep.methods
    }
    known = {
        method: [_published(sweep, method, label) for label in sweep.classes]
        for method in sweep.methods
    }
    names = [sweep.title(label).removeprefix("class ") for label in sweep.classes]
    return plots.class_figure(names, methods, together, known, layout)


def _published(sweep: FinishedSweep, method: str, label: int) -> float | None:
    for name in sweep.finished(method, label)[:1]:
        row = sweep.rows[name]
        found = published.published_auroc(
            row.dataset,
            sweep.preset,
            sweep.split.protocol,
            method=method,
            objective=row.objective or "",
            normal_class=label,
        )
        return None if found is None else 100 * found[0]
    return None


def roc(sweep: FinishedSweep, drawn: Pictures) -> list[Html]:
    panels = {
        sweep.title(label): {
            method: [_scored(sweep, name) for name in sweep.finished(method, label)]
            for method in sweep.methods
        }
        for label in sweep.classes
    }
    picture = drawn.panels(
        "roc",
        "Receiver operating characteristic of every class",
        len(panels),
        functools.partial(plots.roc_figure, panels),
    )
    return [pages.figure([picture], _ROC_CAPTION)]


_ROC_CAPTION = (
    "Share of anomalies found over the share of normal images called anomalous, as the threshold "
    "sinks; a line is a run, the dotted diagonal is chance. In the corner the mean area below "
    "(AUROC) in percent. Panels: the normal class."
)


def _scored(sweep: FinishedSweep, name: RunName) -> Scored:
    stored = records.read_scores(sweep.folder, name)
    chosen = stored["tested"]
    return Scored(stored["scores"][chosen], stored["labels"][chosen], sweep.threshold(name))


def scores(sweep: FinishedSweep, drawn: Pictures) -> list[Html]:
    blocks = [pages.paragraph(_SCORES_TEXT)]
    for method in sweep.methods:
        panels = {
            sweep.title(label): _scored(sweep, name)
            for label in sweep.classes
            for name in sweep.finished(method, label)[:1]
        }
        if panels:
            picture = drawn.panels(
                f"scores-{method}",
                f"Histograms of the scores of {method}",
                len(panels),
                functools.partial(plots.score_figure, panels),
            )
            blocks.append(pages.figure([picture], _score_caption(sweep, method), method))
    return blocks


_SCORES_TEXT = (
    "Share of each kind of test image in percent by anomaly score, first seed; higher is more "
    "anomalous. The dashed line is the threshold, a quantile of the training scores: what lies "
    "right of it is called anomalous. Axes differ between classes and are logarithmic where the "
    "scores span much."
)


def _score_caption(sweep: FinishedSweep, method: str) -> str:
    objectives = {row.objective or "" for name, row in sweep.rows.items() if name.method == method}
    return _SCORE_CAPTIONS.get(next(iter(objectives)), "The method's own score, without a unit.")


_SCORE_CAPTIONS = {
    "one-class": "Score: squared distance to the center, d.",
    "soft-boundary": "Score: squared distance to the center less the squared radius, d − R².",
    "reconstruction": "Score: summed squared error of the reconstruction.",
}
