"""The page of a sweep's folder: each section shows the files that exist, or says which are
missing."""

from collections.abc import Sequence

from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import Page, Pictures, comma, duration
from deepsvdd_jax.cli.reporting.sections import images, merit, models, runs, training
from deepsvdd_jax.cli.sweeps import summaries
from deepsvdd_jax.cli.sweeps.records import Summary
from deepsvdd_jax.viz import pages
from deepsvdd_jax.viz.pages import Section


def build_page(sweep: FinishedSweep) -> Page:
    """Returns the page of a sweep (touches files: reads scores, histories and models)."""
    drawn = Pictures({})
    summary = summaries.summarize(sweep.folder, sweep.rows)
    sections = [
        Section("Summary", "summary", merit.summary(sweep, drawn, summary)),
        Section("ROC curves", "roc", merit.roc(sweep, drawn)),
        Section("Scores", "scores", merit.scores(sweep, drawn)),
        Section("Training", "training", list(training.training(sweep, drawn))),
        Section("Most normal, most anomalous", "images", images.ranked_images(sweep, drawn)),
        *models.model_sections(sweep, drawn),
        Section("Runs", "runs", [runs.runs_table(sweep)]),
        Section("Settings", "settings", runs.settings(sweep)),
    ]
    return Page(
        pages.page(
            f"Anomaly detection on {sweep.dataset_name}",
            _lead(sweep),
            [pages.tiles(_headline(sweep, summary))],
            sections,
        ),
        drawn.files,
    )


def _lead(sweep: FinishedSweep) -> str:
    split, titles = sweep.split, [sweep.title(label) for label in sweep.classes]
    one = titles[0] if len(titles) == 1 else f"each of {len(titles)} classes in turn"
    rest = "all others"
    if split.protocol == "rest-vs-one":
        one, rest = rest, one
    elif split.anomalous_classes is not None:
        rest = f"classes {comma(split.anomalous_classes)}"
    polluted = f", {100 * split.outlier_fraction:g} % anomalies among them"
    return (
        f"Normal: {one}; anomalous: {rest}. Trained on normal data"
        f"{polluted if split.outlier_fraction else ' only'}; every figure is of the test set."
    )


def _headline(sweep: FinishedSweep, summary: Sequence[Summary]) -> dict[str, str]:
    means = {row.method: row for row in summary if row.normal_class is None}
    tiles = {
        f"mean AUROC, {method}": f"{100 * means[method].auroc_mean:.2f} %"
        for method in sweep.methods
        if method in means
    }
    first = means.get(sweep.methods[0])
    if first is not None and first.auroc_ensemble is not None and len(sweep.seeds) > 1:
        share = 100 * first.auroc_ensemble
        tiles[f"ensemble of seeds, {sweep.methods[0]}"] = f"{share:.2f} %"
    seconds = sum(row.train_seconds or 0.0 for row in sweep.rows.values())
    return tiles | {"runs": str(len(sweep.rows)), "training time": duration(seconds)}
