"""Figures from arrays: small multiples, a panel a class, returned and never shown.

matplotlib is an extra (`pip install -e '.[report]'`), imported where it is used. Every figure takes
a `Layout`, so that the same panels can stand five in a row on a laptop and two on a phone.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.scoring import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Arguments = ParamSpec("Arguments")

NORMAL_COLOR, ANOMALOUS_COLOR = "#2f6db3", "#d9641e"
# Okabe and Ito's colours, which colour-blind readers can distinguish.
METHOD_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#666666"

_STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
}

# Points of an embedding that are drawn: more hide one another and cost time.
_MOST_POINTS = 1500
_BINS = 40
# A histogram's axis becomes logarithmic where its scores span more than this factor.
_LOG_RANGE = 30.0
CHANCE = 50.0


class Layout(NamedTuple):
    """How panels are laid out: at most `columns` in a row, each `width` x `height` inches."""

    columns: int
    width: float
    height: float


WIDE = Layout(5, 2.1, 1.75)
NARROW = Layout(2, 1.95, 1.7)


class Scored(NamedTuple):
    """A scored test set; a point is called anomalous when its score is above `threshold`.

    Attributes:
      scores: `[n]`, higher = more anomalous.
      labels: `[n]`, 1 = anomalous.
      threshold: in the units of the scores; NaN where there is none.
    """

    scores: Array
    labels: Array
    threshold: float = math.nan


class Curve(NamedTuple):
    """A quantity by epoch, `[epochs]` each."""

    epochs: Array
    values: Array


class Quantiles(NamedTuple):
    """Quantiles of a distribution by epoch.

    Attributes:
      epochs: `[epochs]`.
      levels: `[q]` in [0, 1], ascending, symmetric around the median.
      values: `[epochs, q]`.
    """

    epochs: Array
    levels: tuple[float, ...]
    values: Array


class Embedding(NamedTuple):
    """Test points in two dimensions.

    Attributes:
      points: `[n, 2]`.
      labels: `[n]`, 1 = anomalous.
      center: `[2]`, None where the method has none.
    """

    points: Array
    labels: Array
    center: Array | None


class Tiles(NamedTuple):
    """Images of a montage, one a tile.

    Attributes:
      images: `[n, height, width, channels]`, uint8 or in [0, 1].
      captions: texts below them, `[n]`.
      wrong: bool `[n]`, tiles that were called wrongly.
    """

    images: Array
    captions: Sequence[str]
    wrong: Array


def _styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draws in this module's style, whatever the caller has set."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **keywords: Arguments.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **keywords)

    return drawn


def png_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """Returns a figure as PNG of at most 256 colours, which is a third of the size."""
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    with Image.open(buffer) as image:
        plain = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    plain.save(small, format="PNG", optimize=True, dpi=(dpi, dpi))
    return small.getvalue()


# --- one panel a class --------------------------------------------------------------------------


@_styled
def roc_figure(panels: Mapping[str, Mapping[str, Sequence[Scored]]], layout: Layout) -> Figure:
    """Draws the receiver operating characteristics: a line a run, a colour a method.

    Args:
      panels: title → method → its runs.
      layout: of the panels.
    """
    figure, axes = _panels(tuple(panels), layout)
    methods = list(dict.fromkeys(name for runs in panels.values() for name in runs))
    for axis, runs in zip(axes, panels.values(), strict=True):
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.6, linestyle=":")
        for method, scored in runs.items():
            color = _method_color(methods.index(method))
            for run in scored:
                axis.plot(
                    *metrics.roc_points(run.scores, run.labels),
                    color=color,
                    linewidth=0.9,
                    alpha=0.7,
                )
        axis.set(xlim=(-0.02, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        _write_areas(axis, runs, methods)
    _label_outside(figure, "false-positive rate", "true-positive rate")
    colors = {method: _method_color(place) for place, method in enumerate(methods)}
    _legend(figure, colors)
    return figure


def _write_areas(axis: Axes, runs: Mapping[str, Sequence[Scored]], methods: Sequence[str]) -> None:
    """Writes each method's mean area under the curve, in percent, into the empty corner."""
    scored = [(method, found) for method, found in runs.items() if found]
    for line, (method, found) in enumerate(reversed(scored)):
        areas = [metrics.auroc(run.scores, run.labels) for run in found]
        axis.text(
            0.97,
            0.05 + 0.11 * line,
            f"{100 * float(np.mean(areas)):.1f}",
            ha="right",
            color=_method_color(methods.index(method)),
            fontsize=7.0,
        )


@_styled
def score_figure(panels: Mapping[str, Scored], layout: Layout) -> Figure:
    """Draws histograms of the normal and the anomalous scores, and the threshold."""
    figure, axes = _panels(tuple(panels), layout)
    for axis, scored in zip(axes, panels.values(), strict=True):
        edges, is_log = histogram_edges(scored.scores)
        for label, color in ((0, NORMAL_COLOR), (1, ANOMALOUS_COLOR)):
            values = scored.scores[scored.labels == label]
            shares = np.histogram(values, edges)[0] / max(len(values), 1)
            axis.stairs(100 * shares, edges, fill=True, color=color, alpha=0.35, linewidth=0)
            axis.stairs(100 * shares, edges, color=color, linewidth=0.9)
        if np.isfinite(scored.threshold):
            axis.axvline(scored.threshold, color="black", linewidth=1, linestyle="--")
        axis.set(xscale="log" if is_log else "linear", ylim=(0, None))
        _label_ticks(axis.xaxis, is_log)
    _label_outside(figure, "anomaly score", "share of images, %")
    colors = {"normal": NORMAL_COLOR, "anomalous": ANOMALOUS_COLOR, "threshold": "black"}
    _legend(figure, colors, dashed=("threshold",))
    return figure


def histogram_edges(scores: Array) -> tuple[Array, bool]:
    """Returns the edges of a histogram of scores and whether they are spaced logarithmically."""
    values = np.asarray(scores, np.float64)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > _LOG_RANGE * low:
        return np.geomspace(low, high, _BINS + 1), True
    if not high > low:
        # A histogram needs a width, even of equal scores.
        high = low + max(abs(low), 1.0) * 1e-3
    return np.linspace(low, high, _BINS + 1), False


@_styled
def epoch_figure(
    panels: Mapping[str, Sequence[Curve]], layout: Layout, quantity: str, log: bool = False
) -> Figure:
    """Draws a quantity by epoch, a line a run."""
    figure, axes = _panels(tuple(panels), layout)
    for axis, curves in zip(axes, panels.values(), strict=True):
        for curve in curves:
            few = "." if len(curve.epochs) < 5 else None
            axis.plot(
                *curve, color=NORMAL_COLOR, linewidth=0.9, alpha=0.7, marker=few, markersize=4
            )
        is_positive = all((curve.values > 0).all() for curve in curves)
        axis.set_yscale("log" if log and is_positive else "linear")
        _label_ticks(axis.yaxis, log and is_positive)
        _whole_numbers(axis)
    _label_outside(figure, "epoch", quantity)
    return figure


@_styled
def line_figure(
    panels: Mapping[str, Mapping[str, Curve]], layout: Layout, across: str, up: str
) -> Figure:
    """Draws a quantity by a whole number, a line a name, a colour a name in all panels."""
    figure, axes = _panels(tuple(panels), layout)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colors = {name: _method_color(place) for place, name in enumerate(names)}
    for axis, curves in zip(axes, panels.values(), strict=True):
        for name, curve in curves.items():
            axis.plot(*curve, color=colors[name], marker=".", markersize=3)
        _label_ticks(axis.yaxis, False)
        _whole_numbers(axis)
    _label_outside(figure, across, up)
    _legend(figure, colors)
    return figure


@_styled
def quantile_figure(panels: Mapping[str, Quantiles], layout: Layout, quantity: str) -> Figure:
    """Draws quantiles by epoch: the median as a line, pairs around it as bands."""
    figure, axes = _panels(tuple(panels), layout)
    for axis, quantiles in zip(axes, panels.values(), strict=True):
        values, middle = quantiles.values, quantiles.values.shape[1] // 2
        for place in range(middle):
            low, high = values[:, place], values[:, -1 - place]
            axis.fill_between(
                quantiles.epochs, low, high, color=NORMAL_COLOR, alpha=0.2, linewidth=0
            )
        axis.plot(quantiles.epochs, values[:, middle], color=NORMAL_COLOR)
        is_positive = bool((values > 0).all())
        axis.set_yscale("log" if is_positive else "linear")
        _label_ticks(axis.yaxis, is_positive)
        _whole_numbers(axis)
    _label_outside(figure, "epoch", quantity)
    return figure


@_styled
def embedding_figure(panels: Mapping[str, Embedding], layout: Layout) -> Figure:
    """Draws test points in two dimensions, and the center."""
    figure, axes = _panels(tuple(panels), layout)
    for axis, shown in zip(axes, panels.values(), strict=True):
        chosen = np.linspace(0, len(shown.points) - 1, min(len(shown.points), _MOST_POINTS))
        for label, color in ((1, ANOMALOUS_COLOR), (0, NORMAL_COLOR)):
            places = chosen.astype(int)[shown.labels[chosen.astype(int)] == label]
            axis.plot(*shown.points[places].T, ".", color=color, markersize=2.2, alpha=0.6)
        if shown.center is not None:
            axis.plot(*shown.center, "+", color="black", markersize=9, markeredgewidth=1.6)
        axis.set_aspect("equal", adjustable="datalim")
        axis.tick_params(labelbottom=False, labelleft=False, length=0)
        axis.grid(visible=False)
    _label_outside(figure, "first principal component", "second principal component")
    _legend(
        figure,
        {"normal": NORMAL_COLOR, "anomalous": ANOMALOUS_COLOR, "center": "black"},
        markers={"normal": "o", "anomalous": "o", "center": "+"},
    )
    return figure


@_styled
def picture_figure(panels: Mapping[str, Array], layout: Layout) -> Figure:
    """Draws one image a panel, `[height, width, channels]`, without axes."""
    tallest = max(image.shape[0] / image.shape[1] for image in panels.values())
    title_height = 0.3
    layout = layout._replace(height=layout.width * tallest + title_height)
    figure, axes = _panels(tuple(panels), layout, wspace=0.08)
    for axis, image in zip(axes, panels.values(), strict=True):
        _show(axis, image)
        axis.set_axis_off()
    return figure


# --- one panel ----------------------------------------------------------------------------------


@_styled
def class_figure(
    classes: Sequence[str],
    methods: Mapping[str, Sequence[Array]],
    together: Mapping[str, Sequence[float | None]],
    published: Mapping[str, Sequence[float | None]],
    layout: Layout,
) -> Figure:
    """Draws a bar a class and method from chance to the mean AUROC, with every run's as a dot.

    Args:
      classes: names.
      methods: name → the runs' AUROC in percent, one array a class.
      together: name → AUROC of all seeds' mean score in percent, None where there is none.
      published: name → published AUROC in percent, likewise.
      layout: a narrow one lays the bars down.
    """
    is_narrow = layout.columns < WIDE.columns
    figure = _bar_canvas(len(classes), len(methods), is_narrow)
    axis = figure.add_subplot()
    thickness = 0.8 / len(methods)
    put: Any = axis.barh if is_narrow else axis.bar
    size = "left" if is_narrow else "bottom"
    marked = (("all seeds together", together, "^"), ("published", published, "D"))
    for number, (method, runs) in enumerate(methods.items()):
        color = _method_color(number)
        offset = (number - (len(methods) - 1) / 2) * thickness
        for place, values in enumerate(runs):
            if not len(values):
                continue
            height = float(np.mean(values)) - CHANCE
            put(place + offset, height, thickness * 0.9, **{size: CHANCE}, color=color, alpha=0.45)
            _mark(axis, place + offset, values, is_narrow, marker=".", color=color, markersize=4)
        for _, known, marker in marked:
            for place, value in enumerate(known.get(method, ())):
                if value is not None:
                    style = _OUTLINED | {"marker": marker}
                    _mark(axis, place + offset, np.array([value]), is_narrow, **style)
    _bar_axes(axis, classes, is_narrow)
    shown = {method: _method_color(place) for place, method in enumerate(methods)}
    markers = {
        name: marker
        for name, known, marker in marked
        if any(value is not None for row in known.values() for value in row)
    }
    shown |= dict.fromkeys(markers, _OUTLINED["color"])
    _legend(figure, shown, markers=markers)
    return figure


# Markers of the figures that are drawn beside those of single runs.
_OUTLINED: dict[str, Any] = {"color": "black", "markersize": 4, "markerfacecolor": "none"}


def _bar_canvas(classes: int, methods: int, is_narrow: bool) -> Figure:
    from matplotlib.figure import Figure

    extent = classes * (0.16 * methods + 0.14) + 0.9
    if is_narrow:
        return Figure(figsize=(NARROW.columns * NARROW.width, extent), layout="constrained")
    width = min(max(extent, 5.0), 12.0)
    return Figure(figsize=(max(width, WIDE.columns * WIDE.width), 3.0), layout="constrained")


def _mark(axis: Axes, place: float, values: Array, is_narrow: bool, **style: Any) -> None:
    places = np.full(len(values), place)
    axis.plot(*((values, places) if is_narrow else (places, values)), linestyle="", **style)


def _bar_axes(axis: Axes, classes: Sequence[str], is_narrow: bool) -> None:
    places, names = range(len(classes)), [_plain(name) for name in classes]
    long = any(len(name) > 6 for name in names)
    if is_narrow:
        axis.set_yticks(places, names)
        axis.invert_yaxis()
        axis.set_xlabel("AUROC, %")
        axis.grid(visible=False, axis="y")
        axis.axvline(CHANCE, color=_GREY, linewidth=0.8)
    else:
        axis.set_xticks(places, names, rotation=45 if long else 0, ha="right" if long else "center")
        axis.set_ylabel("AUROC, %")
        axis.grid(visible=False, axis="x")
        axis.axhline(CHANCE, color=_GREY, linewidth=0.8)


@_styled
def alarm_figure(
    scores: Array, called: Array, layout: Layout, threshold: float = math.nan
) -> Figure:
    """Draws a histogram of the scores of new data, alarms stacked and marked, and the threshold.

    Args:
      scores: `[n]`.
      called: bool `[n]`, which of them were called anomalous.
      layout: a narrow one draws a narrow picture.
      threshold: in the units of the scores; NaN where there is none.
    """
    from matplotlib.figure import Figure

    is_narrow = layout.columns < WIDE.columns
    figure = Figure(figsize=(3.9, 2.6) if is_narrow else (8.0, 3.0), layout="constrained")
    axis = figure.add_subplot()
    has_threshold = math.isfinite(threshold)
    # The threshold is in the picture, wherever the scores are.
    edges, is_log = histogram_edges(np.append(scores, threshold) if has_threshold else scores)
    parts = (scores[~called], scores[called])
    axis.hist(parts, list(edges), stacked=True, color=[NORMAL_COLOR, ANOMALOUS_COLOR], alpha=0.75)
    low = axis.get_ylim()[1] * -0.035
    axis.plot(scores[called], np.full(int(called.sum()), low), "|", color=ANOMALOUS_COLOR)
    axis.set(xscale="log" if is_log else "linear", xlabel="anomaly score", ylabel="rows")
    _label_ticks(axis.xaxis, is_log)
    names = (f"not called anomalous ({(~called).sum()})", f"called anomalous ({called.sum()})")
    colors = dict(zip(names, (NORMAL_COLOR, ANOMALOUS_COLOR), strict=True))
    if has_threshold:
        axis.axvline(threshold, color="black", linewidth=1, linestyle="--")
        colors |= {"threshold": "black"}
    _legend(figure, colors, dashed=("threshold",))
    return figure


def places_across(figure: Figure, values: Array) -> Array:
    """Returns where values of the first axis are in a drawn figure, `[n]` from 0 (left) to 1."""
    axis = figure.axes[0]
    low, high = axis.get_xlim()
    points = np.column_stack([np.clip(values, low, high), np.zeros(len(values))])
    # transData goes to pixels, and the figure's frame from 0 and 1 to the same pixels.
    drawn = axis.transData.transform(points)
    return np.asarray(figure.transFigure.inverted().transform(drawn)[:, 0], np.float64)


@_styled
def montage_figure(tiles: Tiles, columns: int = 8) -> Figure:
    """Draws images row by row; a right call has a tick, a wrong one a frame and a cross."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = -(-len(tiles.images) // columns)
    height, width = tiles.images.shape[1:3]
    # Sizes of a tile with its gap, and with its caption, in tile widths.
    across, down = 1.14, height / width + 0.42
    figure = Figure(figsize=(0.52 * columns * across, 0.52 * rows * down))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.07, columns * across - 0.07), ylim=(rows * down - 0.07, -0.07))
    axis.set_axis_off()
    # A tile has room for five characters, or for nine small ones.
    size = 7.0 if max(map(len, tiles.captions), default=0) <= 5 else 5.2
    for number, image in enumerate(tiles.images):
        row, column = divmod(number, columns)
        left, top = column * across, row * down
        _show(axis, image, extent=(left, left + 1, top + height / width, top))
        wrong = bool(tiles.wrong[number])
        if wrong:
            frame = Rectangle((left, top), 1, height / width, fill=False, clip_on=False)
            frame.set(edgecolor=ANOMALOUS_COLOR, linewidth=2.0)
            axis.add_patch(frame)
        axis.text(
            left + 0.5,
            top + height / width + 0.2,
            f"{'✗' if wrong else '✓'} {_plain(tiles.captions[number], 9)}",
            ha="center",
            va="center",
            fontsize=size,
            color=ANOMALOUS_COLOR if wrong else _GREY,
        )
    return figure


# --- pictures made of images --------------------------------------------------------------------


def image_grid(images: Array, columns: int, gap: int = 1) -> Array:
    """Puts images `[n, height, width, channels]` in [0, 1] side by side on white.

    Returns:
      `[rows * (height + gap) - gap, columns * (width + gap) - gap, channels]`.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    grid = np.ones(shape, np.float32)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def filter_images(kernels: Array) -> Array:
    """Returns convolution kernels `[height, width, inputs, features]` as images in [0, 1].

    One or three inputs give grey or colour, others their mean; grey is zero, and each kernel is
    scaled by its largest weight.
    """
    images = np.moveaxis(kernels, -1, 0)
    if images.shape[-1] not in (1, 3):
        images = images.mean(axis=-1, keepdims=True)
    largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * images / np.where(largest > 0, largest, 1.0)


def pair_grid(inputs: Array, outputs: Array) -> Array:
    """Puts images above their reconstructions, in two rows, clipped to [0, 1]."""
    images = np.concatenate([inputs, outputs]).clip(0.0, 1.0)
    return image_grid(images, columns=len(inputs))


def principal_components(embeddings: Array) -> tuple[Array, Array, float]:
    """Finds the plane of the largest variance.

    Args:
      embeddings: `[n, dimensions]`.

    Returns:
      The mean `[dimensions]`, two orthonormal directions `[dimensions, 2]` (zeros where there is
      no second), and the share of the variance in the plane.
    """
    values = np.asarray(embeddings, np.float64)
    mean = values.mean(axis=0)
    _, sizes, directions = np.linalg.svd(values - mean, full_matrices=False)
    plane = np.zeros((values.shape[1], 2))
    plane[:, : min(2, len(directions))] = directions[:2].T
    total = float(np.square(sizes).sum())
    return mean, plane, float(np.square(sizes[:2]).sum()) / total if total > 0 else 0.0


# --- canvas -------------------------------------------------------------------------------------


def _panels(
    titles: Sequence[str], layout: Layout, wspace: float = 0.02
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with one titled panel a name; `wspace` is the gap as a share of a panel."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = max(1, min(layout.columns, len(titles)))
    rows = max(1, -(-len(titles) // columns))
    width = max(columns * layout.width, 3.2)
    engine = ConstrainedLayoutEngine(wspace=wspace)
    figure = Figure(figsize=(width, rows * layout.height + 0.4), layout=engine)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(titles) :]:
        axis.remove()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(_plain(title))
    return figure, axes[: len(titles)]


def _plain(text: str, most: int = 26) -> str:
    """Returns one line of at most so many characters that matplotlib writes literally."""
    line = " ".join(text.split())
    short = line if len(line) <= most else line[: most - 1] + "…"
    # A dollar sign would start a formula.
    return short.replace("$", r"\$")


def _label_outside(figure: Figure, across: str, up: str) -> None:
    figure.supxlabel(across, fontsize=8.0)
    figure.supylabel(up, fontsize=8.0)


def _legend(
    figure: Figure,
    colors: Mapping[str, str],
    dashed: Sequence[str] = (),
    markers: Mapping[str, str] | None = None,
) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for name, color in colors.items():
        marker = (markers or {}).get(name)
        if marker is not None:
            handles.append(
                Line2D([], [], color=color, linestyle="", marker=marker, markerfacecolor="none")
            )
        else:
            dashes: Any = "--" if name in dashed else "-"
            handles.append(Line2D([], [], color=color, linewidth=2.0, linestyle=dashes))
    # As many names in a row as the figure is wide, one at least.
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles, list(colors), loc="outside upper left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _method_color(number: int) -> str:
    return METHOD_COLORS[number % len(METHOD_COLORS)]


def _show(axis: Axes, image: Array, **keywords: Any) -> None:
    grey = image.shape[-1] == 1
    most = 255 if image.dtype == np.uint8 else 1.0
    axis.imshow(
        image[..., 0] if grey else image,
        cmap="gray",
        vmin=0,
        vmax=most,
        interpolation="nearest",
        aspect="equal",
        **keywords,
    )


def _label_ticks(axis: Axis, is_log: bool) -> None:
    """Sets a few ticks, written as plain numbers on logarithmic axes too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if not is_log:
        axis.set_major_locator(MaxNLocator(4))
        return
    low, high = axis.get_view_interval()
    between = (1.0, 3.0) if high < 300 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=between, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _whole_numbers(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
