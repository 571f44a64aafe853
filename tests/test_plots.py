"""Figures: what they draw is read back from matplotlib's artists."""

import io
import re
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

import matplotlib
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.plots import NARROW, WIDE, Curve, Embedding, Quantiles, Scored, Tiles

RANDOM = np.random.default_rng(0)
SCORED = Scored(np.array([0.1, 0.4, 0.35, 0.8, 0.9]), np.array([0, 0, 1, 1, 1]), threshold=0.37)


def texts(figure: Figure) -> list[str]:
    return [item.get_text() for legend in figure.legends for item in legend.get_texts()]


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


# --- arrays -------------------------------------------------------------------------------------


def test_edges_are_even_for_narrow_and_negative_scores() -> None:
    for scores in ([1.0, 2.0, 5.0], [-1.0, 0.0, 900.0]):
        edges, is_log = plots.histogram_edges(np.array(scores))
        assert not is_log and edges[0] == min(scores) and edges[-1] == max(scores)
        np.testing.assert_allclose(np.diff(edges), (max(scores) - min(scores)) / 40)


def test_edges_are_logarithmic_for_wide_positive_scores() -> None:
    edges, is_log = plots.histogram_edges(np.array([0.01, 0.5, 100.0]))
    assert is_log
    np.testing.assert_allclose(edges[1:] / edges[:-1], (100 / 0.01) ** (1 / 40))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_edges_of_scores_that_are_all_alike_hold_them(value: float) -> None:
    edges, _ = plots.histogram_edges(np.full(4, value))
    assert (np.diff(edges) > 0).all() and edges[0] <= value < edges[-1]


def test_image_grid_by_hand() -> None:
    images = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1) / 10
    grid = plots.image_grid(images, columns=2, gap=1)[..., 0]
    np.testing.assert_allclose(grid, [[0.0, 1.0, 0.1], [1.0, 1.0, 1.0], [0.2, 1.0, 1.0]])


def test_pairs_stand_below_each_other_and_are_clipped() -> None:
    inputs = np.array([0.2, 0.4]).reshape(2, 1, 1, 1)
    grid = plots.pair_grid(inputs, np.array([-3.0, 7.0]).reshape(2, 1, 1, 1))
    np.testing.assert_allclose(grid[::2, ::2, 0], [[0.2, 0.4], [0.0, 1.0]])


def test_filters_are_scaled_one_by_one_around_grey() -> None:
    kernels = np.array([[[[2.0, 0.0]]], [[[-1.0, 0.0]]]])  # [2, 1, 1 input, 2 features]
    images = plots.filter_images(kernels)
    assert images.shape == (2, 2, 1, 1)
    np.testing.assert_allclose(images[:, :, 0, 0], [[1.0, 0.25], [0.5, 0.5]])
    assert plots.filter_images(RANDOM.normal(size=(3, 3, 3, 5))).shape == (5, 3, 3, 3)
    assert plots.filter_images(RANDOM.normal(size=(3, 3, 2, 5))).shape == (5, 3, 3, 1)


def test_principal_components_are_those_of_scikit_learn() -> None:
    embeddings = RANDOM.normal(size=(60, 5)) * [5.0, 3.0, 1.0, 0.5, 0.1] + 2.0
    mean, plane, share = plots.principal_components(embeddings)
    theirs = PCA(2).fit(embeddings)
    np.testing.assert_allclose(np.abs(plane.T), np.abs(theirs.components_), atol=1e-9)
    np.testing.assert_allclose(mean, embeddings.mean(0))
    assert share == pytest.approx(theirs.explained_variance_ratio_.sum())


def test_principal_components_of_what_has_no_plane() -> None:
    _, plane, share = plots.principal_components(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(np.abs(plane), [[1.0, 0.0]])
    assert share == pytest.approx(1.0)
    assert plots.principal_components(np.ones((4, 3)))[2] == 0.0


# --- figures ------------------------------------------------------------------------------------


def test_roc_by_hand() -> None:
    figure = plots.roc_figure({"class 0": {"one": [SCORED, SCORED], "two": [SCORED]}}, WIDE)
    # From the highest score down: +, +, -, +, -; what lies on a straight line is left out.
    corners = [(0, 0), (0, 2 / 3), (0.5, 2 / 3), (0.5, 1), (1, 1)]
    (axis,) = figure.axes
    drawn = [line.get_xydata() for line in axis.lines[1:]]
    assert len(drawn) == 3
    for line in drawn:
        found = [point for point in line.tolist() if tuple(point) != (0, 1 / 3)]
        np.testing.assert_allclose(found, corners)
    assert texts(figure) == ["one", "two"]
    assert [text.get_text() for text in axis.texts] == ["83.3", "83.3"]


def test_histograms_hold_all_scores_and_the_threshold() -> None:
    figure = plots.score_figure({"a": SCORED}, WIDE)
    (axis,) = figure.axes
    filled = [patch for patch in axis.patches if isinstance(patch, StepPatch) and patch.get_fill()]
    for patch, label in zip(filled, (0, 1), strict=True):
        values, edges, _ = patch.get_data()
        assert values.sum() == pytest.approx(100.0)
        inside = [
            np.any((edges[:-1] <= score) & (score <= edges[1:]) & (values > 0))
            for score in SCORED.scores[SCORED.labels == label]
        ]
        assert all(inside)
    assert [line.get_xdata()[0] for line in axis.lines] == [0.37]
    assert texts(figure) == ["normal", "anomalous", "threshold"]


def test_no_threshold_is_drawn_where_there_is_none() -> None:
    figure = plots.score_figure({"a": SCORED._replace(threshold=float("nan"))}, WIDE)
    assert not figure.axes[0].lines


def test_curves_are_drawn_as_they_are() -> None:
    curve = Curve(np.array([1, 2, 3]), np.array([4.0, 2.0, 1.0]))
    figure = plots.epoch_figure({"a": [curve], "b": [curve, curve]}, WIDE, "loss", log=True)
    assert titles(figure) == ["a", "b"]
    assert [len(axis.lines) for axis in figure.axes] == [1, 2]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[1, 4], [2, 2], [3, 1]])
    assert figure.axes[0].get_yscale() == "log"


def test_a_curve_that_is_not_positive_has_a_linear_axis() -> None:
    curve = Curve(np.array([1, 2]), np.array([0.0, 2.0]))
    figure = plots.epoch_figure({"a": [curve]}, WIDE, "loss", log=True)
    assert figure.axes[0].get_yscale() == "linear"


def test_lines_keep_their_colour_in_all_panels() -> None:
    curve = Curve(np.array([1, 2]), np.array([90.0, 95.0]))
    panels = {"class 0": {"a": curve, "b": curve}, "class 1": {"b": curve}}
    figure = plots.line_figure(panels, WIDE, "seeds", "AUROC, %")
    assert titles(figure) == ["class 0", "class 1"] and texts(figure) == ["a", "b"]
    (first, second), (alone,) = (axis.lines for axis in figure.axes)
    np.testing.assert_allclose(alone.get_xydata(), [[1, 90], [2, 95]])
    assert first.get_color() != second.get_color() == alone.get_color()


@pytest.mark.parametrize("layout", [WIDE, NARROW])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_legend_is_no_wider_than_its_figure(layout: plots.Layout, classes: int) -> None:
    curve = Curve(np.array([1, 2]), np.array([90.0, 95.0]))
    names = ("deep_svdd", "soft_boundary", "dcae", "ocsvm", "isolation_forest")
    panels = {f"class {label}": dict.fromkeys(names, curve) for label in range(classes)}
    figure = plots.line_figure(panels, layout, "seeds", "AUROC, %")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    drawn = legend.get_window_extent()
    assert drawn.x0 >= 0 and drawn.x1 <= figure.bbox.width
    assert drawn.y1 <= figure.bbox.height and texts(figure) == [*names]


def test_quantiles_are_bands_around_the_median() -> None:
    values = np.array([[1.0, 2.0, 3.0, 5.0, 9.0], [0.5, 1.0, 2.0, 3.0, 4.0]])
    quantiles = Quantiles(np.array([1, 2]), (0.01, 0.25, 0.5, 0.75, 0.99), values)
    (axis,) = plots.quantile_figure({"a": quantiles}, WIDE, "distance").axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[1, 3], [2, 2]])
    bands = [item for item in axis.collections if isinstance(item, FillBetweenPolyCollection)]
    spans = [
        (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max())
        for band in bands
    ]
    assert spans == [(0.5, 9.0), (1.0, 5.0)]


def bars_of(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_bars_run_from_chance_to_the_mean() -> None:
    methods = {"ours": [np.array([90.0, 94.0]), np.array([40.0])], "other": [np.array([]), [60.0]]}
    together, known = {"ours": [96.0, None], "other": [None, 70.0]}, {"ours": [95.0, None]}
    figure = plots.class_figure(["0", "1"], methods, together, known, WIDE)
    spans = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars_of(figure)]
    assert spans == [(50.0, 92.0), (50.0, 40.0), (50.0, 60.0)]
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert [list(line.get_ydata()) for line in diamonds] == [[95.0]]
    triangles = [line for line in figure.axes[0].lines if line.get_marker() == "^"]
    assert [list(line.get_ydata()) for line in triangles] == [[96.0], [70.0]]
    dots = [list(line.get_ydata()) for line in figure.axes[0].lines if line.get_marker() == "."]
    assert dots == [[90.0, 94.0], [40.0], [60.0]]
    assert texts(figure) == ["ours", "other", "all seeds together", "published"]


def test_bars_lie_on_a_narrow_screen() -> None:
    figure = plots.class_figure(["0"], {"ours": [np.array([90.0])]}, {}, {}, NARROW)
    (bar,) = bars_of(figure)
    assert (bar.get_x(), bar.get_width()) == (50.0, 40.0)
    assert texts(figure) == ["ours"]


def test_alarms_are_counted_and_marked() -> None:
    scores, called = np.array([1.0, 1.1, 1.2, 4.0, 5.0]), np.array([0, 0, 0, 1, 1], bool)
    figure = plots.alarm_figure(scores, called, WIDE)
    counts = [sum(bar.get_height() for bar in group) for group in figure.axes[0].containers]
    assert counts == [3, 2]
    (strokes,) = figure.axes[0].lines
    assert list(strokes.get_xdata()) == [4.0, 5.0]
    assert texts(figure) == ["not called anomalous (3)", "called anomalous (2)"]


@pytest.mark.parametrize("threshold", [2.0, 9.0, 500.0])
def test_a_threshold_is_in_the_picture_of_alarms_wherever_it_is(threshold: float) -> None:
    scores = np.array([1.0, 1.5, 3.0])
    figure = plots.alarm_figure(scores, scores > threshold, WIDE, threshold)
    (axis,) = figure.axes
    assert list(axis.lines[-1].get_xdata()) == [threshold] * 2
    assert axis.get_xlim()[0] < threshold < axis.get_xlim()[1]
    assert texts(figure)[-1] == "threshold"


def test_places_across_a_figure_are_those_of_what_is_drawn() -> None:
    figure = plots.alarm_figure(np.array([0.0, 10.0]), np.array([False, True]), WIDE, 5.0)
    with Image.open(io.BytesIO(plots.png_bytes(figure))) as image:
        dark = np.asarray(image.convert("L")) < 60
    # The dashed line is the only column that is dark over much of the height.
    drawn = np.flatnonzero(dark.mean(axis=0) > 0.3)
    (place,) = plots.places_across(figure, np.array([5.0]))
    assert abs(place - (drawn.mean() + 0.5) / dark.shape[1]) < 0.003
    low, high = plots.places_across(figure, np.array([0.0, 10.0]))
    assert abs((low + high) / 2 - place) < 1e-9


@pytest.mark.parametrize("channels", [1, 3])
def test_montage_marks_what_is_wrong(channels: int) -> None:
    images = RANDOM.integers(0, 256, (5, 6, 4, channels)).astype(np.uint8)
    wrong = np.array([False, True, False, False, True])
    figure = plots.montage_figure(Tiles(images, ["cat", "dog", "a$b$", "x", "y"], wrong), columns=2)
    (axis,) = figure.axes
    assert len(axis.images) == 5
    np.testing.assert_array_equal(
        np.asarray(axis.images[3].get_array()).reshape(images[3].shape), images[3]
    )
    frames = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    assert len(frames) == 2
    marks = [text.get_text()[0] for text in axis.texts]
    assert marks == ["✓", "✗", "✓", "✓", "✗"]
    left, right, bottom, top = axis.images[4].get_extent()
    assert frames[1] == (left, min(top, bottom)) and right - left == 1


@pytest.mark.parametrize("center", [np.array([1.0, -1.0]), None])
def test_embedding_draws_points_and_center(center: np.ndarray | None) -> None:
    points, labels = RANDOM.normal(size=(9, 2)), np.arange(9) % 3 == 0
    (axis,) = plots.embedding_figure({"a": Embedding(points, labels, center)}, WIDE).axes
    drawn = [line.get_xydata() for line in axis.lines]
    np.testing.assert_allclose(drawn[0], points[labels])
    np.testing.assert_allclose(drawn[1], points[~labels])
    assert [list(data[0]) for data in drawn[2:]] == ([] if center is None else [[1.0, -1.0]])
    assert axis.get_aspect() == 1.0


def test_an_embedding_of_many_points_is_thinned() -> None:
    points, labels = RANDOM.normal(size=(5000, 2)), np.zeros(5000)
    (axis,) = plots.embedding_figure({"a": Embedding(points, labels, None)}, WIDE).axes
    assert sum(len(line.get_xydata()) for line in axis.lines) == 1500


def columns_of(figure: Figure) -> int:
    figure.draw_without_rendering()
    return len({round(axis.get_position().x0, 3) for axis in figure.axes})


def test_layouts_set_panels_side_by_side() -> None:
    curve = [Curve(np.array([1, 2]), np.array([1.0, 2.0]))]
    panels = {f"class {number}": curve for number in range(7)}
    for layout, columns in ((WIDE, 5), (NARROW, 2)):
        figure = plots.epoch_figure(panels, layout, "loss")
        assert len(figure.axes) == 7 and columns_of(figure) == columns


def test_titles_are_one_line_and_no_formula() -> None:
    name = "cost $1 and\n$2 " + "x" * 50
    figure = plots.picture_figure({name: np.zeros((2, 2, 1))}, WIDE)
    (title,) = titles(figure)
    assert title.startswith(r"cost \$1 and \$2 xxx") and title.endswith("…")
    assert "\n" not in title
    plots.png_bytes(figure, dpi=20)


def test_png_has_the_size_asked_for_and_few_colours() -> None:
    figure = plots.picture_figure({"a": RANDOM.random((30, 30, 3))}, WIDE)
    png = plots.png_bytes(figure, dpi=50)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"
        assert image.size == tuple(int(50 * side) for side in figure.get_size_inches())


def test_callers_style_is_left_alone() -> None:
    with matplotlib.rc_context({"font.size": 31.0}):
        figure = plots.epoch_figure({"a": []}, WIDE, "loss")
        assert matplotlib.rcParams["font.size"] == 31.0
    assert figure.axes[0].title.get_fontsize() < 12


def test_nothing_is_shown() -> None:
    """No figure reaches pyplot, which would keep and show it."""
    import matplotlib.pyplot as plt

    before: Sequence[int] = plt.get_fignums()
    plots.epoch_figure({"a": []}, WIDE, "loss")
    assert plt.get_fignums() == before


def test_logarithmic_ticks_are_plain_numbers() -> None:
    curve = Curve(np.array([1, 2, 3]), np.array([0.09, 1.0, 11.0]))
    figure = plots.epoch_figure({"a": [curve]}, WIDE, "loss", log=True)
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"0.1", "0.3", "1", "3", "10"} <= set(labels)
    assert not any(re.search(r"[$^]", label) for label in labels)
