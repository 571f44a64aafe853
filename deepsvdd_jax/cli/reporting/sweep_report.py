"""The page of a sweep's folder: each section from what is there, or a sentence on what is not."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import configs, datasets
from deepsvdd_jax.cli.adversarial import stop_signs
from deepsvdd_jax.cli.files import Row
from deepsvdd_jax.cli.reporting import inspection, published, tables
from deepsvdd_jax.cli.sweeps import config_file, methods, records, summaries
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import ConfigError, DataConfig, SplitConfig
from deepsvdd_jax.datasets import DataError, Dataset
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.io.models import Model, load_model
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html, Picture, Section
from deepsvdd_jax.viz.plots import Curve, Layout, Quantiles, Scored, Tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
History = Mapping[str, Array]

RANKED_IMAGES = 32
_RECONSTRUCTED = 5
_MOST_FILTERS = 64
# A montage's tile is drawn at half an inch; larger images only make the page heavier.
_TILE_SIDE = 64
# Rows of image pairs are long and low.
_PAIR_LAYOUTS = (Layout(2, 5.0, 1.4), Layout(1, 3.9, 1.2))

_COMMAND = "python -m experiments.report"


class Page(NamedTuple):
    """A report: the HTML text, and its pictures by file name."""

    html: str
    pictures: dict[str, bytes]


class Sweep(NamedTuple):
    """All that the sections are made of.

    Attributes:
      folder: of the sweep.
      settings: of its `config.json`.
      rows: of the finished runs that are shown.
      data: the raw images and each class's test indices; None where they cannot be had.
      no_data: then the reason.
    """

    folder: Path
    settings: dict[str, Any]
    rows: dict[RunName, Row]
    data: Dataset | None
    no_data: str

    @property
    def methods(self) -> list[str]:
        """The methods with runs, in the order of the sweep."""
        there = {name.method for name in self.rows}
        asked = [name for name in self.settings.get("methods", ()) if name in there]
        return asked + sorted(there - set(asked))

    @property
    def classes(self) -> list[int]:
        """The normal classes with runs."""
        return sorted({name.normal_class for name in self.rows})

    @property
    def seeds(self) -> list[int]:
        """The seeds with runs."""
        return sorted({name.seed for name in self.rows})

    @property
    def split(self) -> SplitConfig:
        """How the classes were split."""
        return configs.from_dict(SplitConfig, self.settings["split"], "config.json: split")

    @property
    def dataset_name(self) -> str:
        """The data set's name."""
        return next(iter(self.rows.values()))["dataset"]

    def finished(self, method: str, label: int) -> list[RunName]:
        """Returns a class's runs that were scored, by seed."""
        wanted = (method, label)
        return sorted(
            name for name, row in self.rows.items() if name[:2] == wanted and row["auroc"]
        )

    def title(self, label: int) -> str:
        """Returns a panel's title."""
        names = self.data.class_names if self.data is not None else ()
        name = names[label] if label < len(names) else str(label)
        return f"class {label}" if name == str(label) else f"{label}: {name}"


class _Drawn(NamedTuple):
    """Collects the pictures of a page under their file names."""

    files: dict[str, bytes]

    def panels(
        self,
        name: str,
        alt: str,
        panels: int,
        draw: Callable[[Layout], Any],
        layouts: tuple[Layout, Layout] = (plots.WIDE, plots.NARROW),
    ) -> Picture:
        """Draws small multiples, anew for narrow screens where they would not fit."""
        wide = plots.png_bytes(draw(layouts[0]))
        fits = panels <= layouts[1].columns
        narrow = None if fits else plots.png_bytes(draw(layouts[1]))
        self.files[f"{name}.png"] = wide
        return Picture(wide, alt, narrow)

    def photo(self, name: str, alt: str, figure: Any) -> Picture:
        """Draws a figure of images, whose colours stay on dark screens."""
        png = plots.png_bytes(figure)
        self.files[f"{name}.png"] = png
        return Picture(png, alt, kind="photo")


def read_sweep(folder: Path, data_dir: str | None, classes: tuple[int, ...] | None) -> Sweep:
    """Reads a sweep's folder (touches files); images that cannot be read are no error.

    Args:
      folder: of the sweep.
      data_dir: where the data are now; None takes the sweep's own.
      classes: restricts the page; None takes all.

    Raises:
      ResultsError, ConfigError: no sweep, a damaged one, or a class without runs.
    """
    settings, rows = config_file.read_folder(folder)
    config_file.check_described(folder, settings)
    if classes is not None:
        there = sorted({name.normal_class for name in rows})
        unknown = [label for label in classes if label not in there]
        if unknown:
            raise ConfigError(
                f"normal_classes holds {unknown[0]}; {folder} has runs of {_comma(there)}"
            )
        rows = {name: row for name, row in rows.items() if name.normal_class in classes}
    sweep = Sweep(folder, settings, rows, None, "")
    return _with_data(sweep, data_dir)


def _with_data(sweep: Sweep, data_dir: str | None) -> Sweep:
    where = data_dir if data_dir is not None else sweep.settings.get("data_dir")
    values = {**sweep.settings["data"], "data_dir": where, "prepare": False}
    config = configs.from_dict(DataConfig, values, "config.json: data")
    try:
        data = stop_signs.with_adversarials(datasets.load(config), sweep.folder)
        for label in sweep.classes:
            _check_labels(sweep, data, label, where)
    except DataError as error:
        return sweep._replace(no_data=str(error))
    return sweep._replace(data=data)


def _check_labels(sweep: Sweep, data: Dataset, label: int, where: str | None) -> None:
    """Refuses data whose test set is not the one that was scored."""
    found = datasets.one_class_split(data, label, **_split_arguments(sweep))
    for method in sweep.methods:
        for name in sweep.finished(method, label)[:1]:
            stored = records.read_scores(sweep.folder, name)["labels"]
            if not np.array_equal(stored, found.test_labels):
                raise DataError(f"the data in {where} are not those that the sweep has scored")


def _split_arguments(sweep: Sweep) -> dict[str, Any]:
    split = sweep.split
    return {"protocol": split.protocol, "anomalous_classes": split.anomalous_classes}


def build_page(sweep: Sweep) -> Page:
    """Returns the page of a sweep (touches files: reads scores, histories and models)."""
    drawn = _Drawn({})
    summary = summaries.summarize(sweep.folder, sweep.rows)
    sections = [
        Section("Summary", "summary", _summary(sweep, drawn, summary)),
        Section("ROC curves", "roc", _roc(sweep, drawn)),
        Section("Scores", "scores", _scores(sweep, drawn)),
        Section("Training", "training", list(_training(sweep, drawn))),
        Section("Most normal, most anomalous", "images", _ranked_images(sweep, drawn)),
        *_model_sections(sweep, drawn),
        Section("Runs", "runs", [_runs_table(sweep)]),
        Section("Settings", "settings", _settings(sweep)),
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


def _lead(sweep: Sweep) -> str:
    split, titles = sweep.split, [sweep.title(label) for label in sweep.classes]
    one = titles[0] if len(titles) == 1 else f"each of {len(titles)} classes in turn"
    rest = "all others"
    if split.protocol == "rest-vs-one":
        one, rest = rest, one
    elif split.anomalous_classes is not None:
        rest = f"classes {_comma(split.anomalous_classes)}"
    polluted = f", {100 * split.outlier_fraction:g} % anomalies among them"
    return (
        f"Normal: {one}; anomalous: {rest}. Trained on normal data"
        f"{polluted if split.outlier_fraction else ' only'}; every figure is of the test set."
    )


def _headline(sweep: Sweep, summary: Sequence[Row]) -> dict[str, str]:
    means = {row["method"]: row for row in summary if row["normal_class"] == "mean"}
    tiles = {
        f"mean AUROC, {method}": f"{100 * float(means[method]['auroc_mean']):.2f} %"
        for method in sweep.methods
        if method in means
    }
    first = means.get(sweep.methods[0])
    if first is not None and first["auroc_ensemble"] and len(sweep.seeds) > 1:
        share = 100 * float(first["auroc_ensemble"])
        tiles[f"ensemble of seeds, {sweep.methods[0]}"] = f"{share:.2f} %"
    seconds = sum(float(row["train_seconds"] or 0) for row in sweep.rows.values())
    return tiles | {"runs": str(len(sweep.rows)), "training time": _duration(seconds)}


# --- figures of merit ---------------------------------------------------------------------------


def _summary(sweep: Sweep, drawn: _Drawn, summary: list[Row]) -> list[Html]:
    preset = preset_of(sweep)
    if not summary:
        return [*_troubles(sweep), pages.paragraph("No run has a score; see the runs below.")]
    by_method = [
        _method_table(sweep, [row for row in summary if row["method"] == method], preset)
        for method in sweep.methods
        if any(row["method"] == method for row in summary)
    ]
    found = pages.joined(by_method)
    if len(by_method) > 1:
        found = pages.joined(
            [_comparison(sweep, summary), pages.details("Every method's table", found)]
        )
    itu = tables.itu_lines(sweep.rows, sweep.dataset_name, preset)
    return [
        *_troubles(sweep),
        found,
        *(pages.table(lines[0], lines[1:], title) for title, lines in itu.items()),
        pages.figure([_bars(sweep, drawn, preset, summary)], _BARS_CAPTION),
    ]


def _method_table(sweep: Sweep, summary: list[Row], preset: str) -> Html:
    """Returns a method's summary beside the published figures."""
    header, *lines = _filled(tables.summary_lines(summary, preset, sweep.split.protocol))
    name = lines[0][1]
    rows = [(line[0], *line[2:]) for line in lines]
    caption = _SUMMARY_CAPTION.format(name=name)
    caption += _UNTRAINED_CAPTION if "untrained" in header else ""
    caption += _ENSEMBLE_CAPTION if len(sweep.seeds) > 1 else ""
    caption += _PUBLISHED_CAPTION if "published" in header else ""
    return pages.table((header[0], *header[2:]), rows, caption, strong=[len(rows) - 1])


def _comparison(sweep: Sweep, summary: Sequence[Row]) -> Html:
    """Returns a table with a column a method."""
    methods = [name for name in sweep.methods if any(row["method"] == name for row in summary)]
    cells = {(row["normal_class"], row["method"]): _mean_cell(row) for row in summary}
    labels = [*map(str, sweep.classes), "mean"]
    rows = [(label, *(cells.get((label, method), "") for method in methods)) for label in labels]
    caption = "AUROC in percent by normal class: mean ± standard deviation over seeds."
    return pages.table(("class", *methods), rows, caption, strong=[len(rows) - 1])


def _mean_cell(row: Row) -> str:
    mean = f"{100 * float(row['auroc_mean']):.2f}"
    is_spread = row["auroc_std"] and float(row["auroc_std"]) > 0
    return f"{mean} ± {100 * float(row['auroc_std']):.2f}" if is_spread else mean


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
    """Leaves out the columns in which nothing but the header stands."""
    there = [place for place in range(len(lines[0])) if any(line[place] for line in lines[1:])]
    return [tuple(line[place] for place in there) for line in lines]


def _troubles(sweep: Sweep) -> list[Html]:
    failed = [
        f"{name.stem} ({row['failure']})" for name, row in sweep.rows.items() if row["failure"]
    ]
    collapsed = [name.stem for name, row in sweep.rows.items() if row["collapsed"] == "1"]
    blocks = []
    if failed:
        blocks.append(f"{_count(len(failed), 'run', 'runs')} failed: {_comma(failed)}.")
    if collapsed:
        blocks.append(
            f"{_count(len(collapsed), 'run', 'runs')} collapsed, all inputs are mapped to nearly "
            f"one point: {_comma(collapsed)}."
        )
    return [pages.paragraph(text, "missing") for text in blocks]


def _bars(sweep: Sweep, drawn: _Drawn, preset: str, summary: Sequence[Row]) -> Picture:
    return drawn.panels(
        "classes",
        "Bars of the AUROC of every class and method",
        len(sweep.classes) + 2,
        functools.partial(bar_figure, sweep, preset, summary),
    )


def bar_figure(sweep: Sweep, preset: str, summary: Sequence[Row], layout: Layout) -> "Figure":
    """Draws every class's and method's runs, and its seeds together, beside the published figures.

    Args:
      sweep: its settings and rows.
      preset: that the published figures go by.
      summary: `results.summarize` of the sweep.
      layout: of the picture.
    """
    methods = {
        method: [
            np.array([100 * float(sweep.rows[name]["auroc"]) for name in runs])
            for runs in (sweep.finished(method, label) for label in sweep.classes)
        ]
        for method in sweep.methods
    }
    ensembles = {
        (row["method"], row["normal_class"]): 100 * float(row["auroc_ensemble"])
        for row in summary
        if int(row["runs"]) > 1 and row["auroc_ensemble"]
    }
    together = {
        method: [ensembles.get((method, str(label))) for label in sweep.classes]
        for method in sweep.methods
    }
    known = {
        method: [_published(sweep, preset, method, label) for label in sweep.classes]
        for method in sweep.methods
    }
    names = [sweep.title(label).removeprefix("class ") for label in sweep.classes]
    return plots.class_figure(names, methods, together, known, layout)


def _published(sweep: Sweep, preset: str, method: str, label: int) -> float | None:
    for name in sweep.finished(method, label)[:1]:
        row = sweep.rows[name]
        found = published.published_auroc(
            row["dataset"], preset, sweep.split.protocol, method, row["objective"], label
        )
        return None if found is None else 100 * found[0]
    return None


def preset_of(sweep: Sweep) -> str:
    """Returns the recipe that a sweep's published figures go by."""
    configured = [sweep.settings.get(name) for name in methods.deep()]
    found = [config.get("preset") for config in configured if isinstance(config, Mapping)]
    shallow = sweep.settings.get("shallow")
    if not found and isinstance(shallow, Mapping) and shallow.get("recipe") == "itu":
        return "itu"
    return str(found[0]) if found else "auto"


def _roc(sweep: Sweep, drawn: _Drawn) -> list[Html]:
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


def _scored(sweep: Sweep, name: RunName) -> Scored:
    stored = records.read_scores(sweep.folder, name)
    chosen = stored["tested"]
    threshold = float(sweep.rows[name]["threshold"] or "nan")
    return Scored(stored["scores"][chosen], stored["labels"][chosen], threshold)


def _scores(sweep: Sweep, drawn: _Drawn) -> list[Html]:
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


def _score_caption(sweep: Sweep, method: str) -> str:
    objectives = {row["objective"] for name, row in sweep.rows.items() if name.method == method}
    return _SCORE_CAPTIONS.get(next(iter(objectives)), "The method's own score, without a unit.")


_SCORE_CAPTIONS = {
    "one-class": "Score: squared distance to the center, d.",
    "soft-boundary": "Score: squared distance to the center less the squared radius, d − R².",
    "reconstruction": "Score: summed squared error of the reconstruction.",
}


# --- training -----------------------------------------------------------------------------------


def _training(sweep: Sweep, drawn: _Drawn) -> Iterator[Html]:
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
        "test_auroc", "training", "AUROC, %", "AUROC of the test set in percent.", 100.0, False
    ),
    _Quantity(
        "parameter_norm", "training", "norm", "Euclidean norm of all trained weights.", log=False
    ),
)


def _histories(
    sweep: Sweep, drawn: _Drawn, method: str, histories: Mapping[RunName, History]
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
    sweep: Sweep, drawn: _Drawn, method: str, histories: Mapping[RunName, History]
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


# --- images -------------------------------------------------------------------------------------


def _ranked_images(sweep: Sweep, drawn: _Drawn) -> list[Html]:
    blocked = _no_images(sweep)
    if blocked is not None or sweep.data is None:
        return [blocked or pages.paragraph(sweep.no_data)]
    method = sweep.methods[0]
    blocks = [pages.paragraph(_IMAGES_TEXT.format(method=method, count=RANKED_IMAGES))]
    for label in sweep.classes:
        for name in sweep.finished(method, label)[:1]:
            blocks.append(_class_images(sweep, sweep.data, drawn, name))
    return blocks


_IMAGES_TEXT = (
    "The {count} test images with the lowest and the {count} with the highest scores of {method}, "
    "first seed, in the order of the score, each with its true class below. A tick: the threshold "
    "calls it rightly; a frame and a cross: wrongly."
)


def _class_images(sweep: Sweep, data: Dataset, drawn: _Drawn, name: RunName) -> Html:
    stored = records.read_scores(sweep.folder, name)
    indices = np.asarray(_test_indices(sweep, data, name.normal_class))
    called = stored["scores"] > float(sweep.rows[name]["threshold"] or "nan")
    wrong = called != stored["labels"].astype(bool)
    order = np.argsort(stored["scores"], kind="stable")
    order = order[stored["tested"][order]]
    pictures = []
    for kind, chosen in (
        ("normal", order[:RANKED_IMAGES]),
        ("anomalous", order[::-1][:RANKED_IMAGES]),
    ):
        places = indices[chosen]
        shown = Tiles(
            _displayable(data.x_test[places]),
            [data.class_names[label] for label in data.y_test[places]],
            wrong[chosen],
        )
        title = sweep.title(name.normal_class)
        alt = f"The {len(chosen)} most {kind} test images, normal: {title}"
        figure = plots.montage_figure(shown)
        label = f"most {kind} · {int(wrong[chosen].sum())} of {len(chosen)} called wrongly"
        picture = drawn.photo(f"most-{kind}-{name.stem}", alt, figure)
        pictures.append(picture._replace(label=label))
    return pages.figure(pictures, "", f"Normal: {sweep.title(name.normal_class)}")


def _displayable(images: Array) -> Array:
    """Returns images small enough for tiles, uint8 or in [0, 1]."""
    # Every second, third, ... pixel is enough for a tile of half an inch.
    step = -(-max(images.shape[1:3]) // _TILE_SIDE)
    small = images[:, ::step, ::step]
    if small.dtype == np.uint8 or (small.min() >= 0 and small.max() <= 1):
        return small
    low, high = float(small.min()), float(small.max())
    return (small - low) / ((high - low) or 1.0)


def _test_indices(sweep: Sweep, data: Dataset, label: int) -> Array:
    return datasets.one_class_split(data, label, **_split_arguments(sweep)).test_indices


def _no_images(sweep: Sweep) -> Html | None:
    """Says why there are no images, None if there are."""
    if sweep.data is None:
        reason = f"The images cannot be shown: {sweep.no_data}. With the data at hand:"
        return pages.missing(reason, f"{_COMMAND} --out={sweep.folder} --data_dir=FOLDER")
    if sweep.data.x_test.ndim != 4:
        return pages.paragraph("The data are tables: there are no images to show.")
    channels = sweep.data.x_test.shape[3]
    if channels not in (1, 3):
        return pages.paragraph(
            f"Images of {channels} channels, neither grey nor RGB, are not shown."
        )
    return None


# --- models -------------------------------------------------------------------------------------


def _model_sections(sweep: Sweep, drawn: _Drawn) -> list[Section]:
    """Returns the sections on what the networks have learned."""
    blocks: dict[str, list[Html]] = {"reconstructions": [], "filters": [], "embeddings": []}
    titles = {
        "reconstructions": "Reconstructions",
        "filters": "First-layer filters",
        "embeddings": "Embeddings",
    }
    for method in sweep.methods:
        models, blocked = _models(sweep, method)
        if blocked is not None:
            for name in blocks:
                blocks[name].append(blocked)
        elif models:
            blocks["reconstructions"] += _reconstructions(sweep, drawn, method, models)
            blocks["filters"] += _filters(sweep, drawn, method, models)
            blocks["embeddings"] += _embeddings(sweep, drawn, method, models)
    nothing = {
        "reconstructions": _no_decoder(sweep),
        "filters": pages.paragraph("None of these methods has filters."),
        "embeddings": pages.paragraph("None of these methods has a representation."),
    }
    return [
        Section(title, name, list(dict.fromkeys(blocks[name])) or [nothing[name]])
        for name, title in titles.items()
    ]


def _no_decoder(sweep: Sweep) -> Html:
    command = f"python -m experiments.sweep --dataset={sweep.dataset_name} --methods=dcae"
    return pages.missing(
        "None of these methods has a decoder. With the sweep's other flags added, this trains one "
        "that has:",
        f"{command} --save_models --out={sweep.folder}",
    )


def _models(sweep: Sweep, method: str) -> tuple[dict[RunName, Model], Html | None]:
    """Returns the model of each class's first seed, or the sentence that says why there is none."""
    if method not in methods.deep():
        return {}, None
    models: dict[RunName, Model] = {}
    for label in sweep.classes:
        for name in sweep.finished(method, label)[:1]:
            folder = sweep.folder / "models" / name.stem
            if not folder.exists():
                return {}, _no_models(sweep)
            try:
                models[name] = inspection.first_member(load_model(folder))
            except ModelError as error:
                return {}, pages.paragraph(f"A saved model cannot be read: {error}", "missing")
    return models, None


def _no_models(sweep: Sweep) -> Html:
    where = f"{sweep.folder}-models"
    reason = (
        "The sweep was run without --save_models, so its networks cannot be looked into. The same "
        "sweep into a new folder, with its other flags added, keeps them:"
    )
    command = f"python -m experiments.sweep --dataset={sweep.dataset_name} --save_models"
    return pages.missing(reason, f"{command} --out={where}")


def _inputs(sweep: Sweep, data: Dataset, name: RunName, model: Model) -> Array:
    indices = _test_indices(sweep, data, name.normal_class)
    return inspection.network_inputs(model, data.x_test[indices])


def _reconstructions(
    sweep: Sweep, drawn: _Drawn, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    if not any("decoder" in model.params for model in models.values()):
        return []
    blocked = _no_images(sweep)
    if blocked is not None or sweep.data is None:
        return [blocked or pages.paragraph(sweep.no_data)]
    panels: dict[str, Array] = {}
    for name, model in models.items():
        scored = records.read_scores(sweep.folder, name)
        chosen = _spread_ranks(scored["scores"], scored["labels"])
        inputs = _inputs(sweep, sweep.data, name, model)[chosen]
        outputs = inspection.reconstructions(model, inputs)
        if outputs is not None:
            panels[sweep.title(name.normal_class)] = plots.pair_grid(inputs, outputs)
    picture = _photo_panels(
        drawn, f"reconstructions-{method}", "Images, and reconstructed", panels, _PAIR_LAYOUTS
    )
    return [pages.figure([picture], _RECONSTRUCTION_CAPTION, method)]


_RECONSTRUCTION_CAPTION = (
    "Above the network's input, below its reconstruction; the left half are normal test images, "
    "the right half anomalous ones, each from the lowest to the highest score. First seed."
)


def _spread_ranks(scores: Array, labels: Array) -> Array:
    """Picks normal, then anomalous rows at evenly spaced ranks of their scores."""
    parts = []
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        ranked = own[np.argsort(scores[own], kind="stable")]
        places = np.linspace(0, len(ranked) - 1, min(_RECONSTRUCTED, len(ranked)))
        parts.append(ranked[places.astype(int)])
    return np.concatenate(parts)


def _filters(
    sweep: Sweep, drawn: _Drawn, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    panels: dict[str, Array] = {}
    for name, model in models.items():
        kernels = inspection.first_filters(model)
        if kernels is None:
            return [pages.paragraph(f"{method}: a network of dense layers has no filters.")]
        images = plots.filter_images(kernels)[:_MOST_FILTERS]
        panels[sweep.title(name.normal_class)] = plots.image_grid(images, columns=8)
    picture = _photo_panels(drawn, f"filters-{method}", "First-layer filters", panels)
    return [pages.figure([picture], _FILTER_CAPTION, method)]


_FILTER_CAPTION = (
    "Kernels of the first convolution after training, first seed: grey is zero, each is scaled by "
    "its largest weight."
)


def _photo_panels(
    drawn: _Drawn,
    name: str,
    alt: str,
    panels: Mapping[str, Array],
    layouts: tuple[Layout, Layout] = (plots.WIDE, plots.NARROW),
) -> Picture:
    draw = functools.partial(plots.picture_figure, panels)
    return drawn.panels(name, alt, len(panels), draw, layouts)._replace(kind="photo")


def _embeddings(
    sweep: Sweep, drawn: _Drawn, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    if sweep.data is None:
        return [_no_images(sweep) or pages.paragraph(sweep.no_data)]
    panels: dict[str, plots.Embedding] = {}
    shares = []
    for name, model in models.items():
        labels = records.read_scores(sweep.folder, name)["labels"]
        inputs = _inputs(sweep, sweep.data, name, model)
        panels[sweep.title(name.normal_class)], share = inspection.embed(model, inputs, labels)
        shares.append(100 * share)
    picture = drawn.panels(
        f"embeddings-{method}",
        f"Test set in two dimensions, {method}",
        len(panels),
        functools.partial(plots.embedding_figure, panels),
    )
    caption = (
        "Representations of the test set in the plane of their largest variance (PCA; it holds "
        f"{min(shares):.0f} to {max(shares):.0f} % of it), in the network's own units; axes differ "
        "between classes. First seed."
    )
    return [pages.figure([picture], caption, method)]


# --- runs and settings --------------------------------------------------------------------------


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


def _runs_table(sweep: Sweep) -> Html:
    lines = [
        [_cell(column, title, sweep.rows[name][column]) for column, title in _RUN_COLUMNS.items()]
        for name in sorted(sweep.rows, key=lambda name: (name.normal_class, name.method, name.seed))
    ]
    found = pages.table(list(_RUN_COLUMNS.values()), lines, _RUNS_CAPTION)
    return pages.details(_count(len(lines), "run", "runs"), found)


_RUNS_CAPTION = (
    "Every run on its test set. Accuracy, precision, recall and F1 are at the threshold; a run's "
    "seconds are its share of its program's time."
)


def _cell(column: str, title: str, value: str) -> str:
    if not value:
        return ""
    if title.endswith("%"):
        return f"{100 * float(value):.2f}"
    return f"{float(value):.4g}" if column in ("threshold", "train_seconds") else value


def _settings(sweep: Sweep) -> list[Html]:
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
            yield f"{prefix}{name}", _comma(value) or "—"
        else:
            yield f"{prefix}{name}", "—" if value is None else str(value)


def _comma(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
