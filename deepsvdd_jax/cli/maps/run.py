"""Scores images with maps, in tiles, or both, for the command `score`."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from deepsvdd_jax.cli import bars, files, model_images, thresholds
from deepsvdd_jax.cli.files import TableWriter
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps import flow
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.cli.maps import masks as map_masks
from deepsvdd_jax.cli.maps.flow import Found, Map, Piece, Pixels
from deepsvdd_jax.cli.maps.folder import MapFolder, Place
from deepsvdd_jax.cli.maps.masks import Masks
from deepsvdd_jax.cli.maps.pictures import Pictures, of_files
from deepsvdd_jax.cli.maps.wishes import Wish
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError, folder
from deepsvdd_jax.datasets.layout import all_normal
from deepsvdd_jax.io import memory
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration, localization, metrics
from deepsvdd_jax.scoring.localization import Evidence, Localization

with lazily():
    from deepsvdd_jax import detectors
    from deepsvdd_jax.detectors import maps as detector_maps

COLUMNS = ("name", "score", "p_value", "anomalous")
MAP_COLUMNS = ("map_row", "map_column", "map_maximum")
REGION_COLUMNS = ("map_p_value", "marked_pixels")

# Tiles between two updates of the bar.
_TILES_PER_REPORT = 1000


class Calibrated(NamedTuple):
    """Calibration by held-out normal images: scores, and medians and maxima of maps, `[n]`; empty
    without any."""

    scores: npt.NDArray[np.float64]
    medians: npt.NDArray[np.float64]
    maxima: npt.NDArray[np.float64]


class Prepared(NamedTuple):
    """The parts that are ready before the first image.

    Attributes:
      normals: that set thresholds; None without any.
      mapped: returns the maps `[n, height, width]` of pieces; None makes none.
      calibrated: by the normals; empty without any.
    """

    normals: Pictures | None
    mapped: Callable[[Pixels], Map] | None
    calibrated: Calibrated


class Limit(NamedTuple):
    """The threshold of pixels, and its false-alarm rate."""

    threshold: float
    rate: float


class Scored(NamedTuple):
    """How many images were scored, are anomalous, and have a marked pixel, and how many pieces they
    were cut into."""

    images: int
    alarms: int
    marked: int
    pieces: int


def run(wish: Wish, model: Model, pictures: Pictures, masks: Masks | None, out: Path) -> str:
    """Scores and maps images, and writes the table and the folder of maps (touches files).

    Args:
      wish: the wanted maps and tiles.
      model: that scores.
      pictures: images to score.
      masks: of their defects; None without masks.
      out: the table.

    Returns:
      Lines on the result.

    Raises:
      DataError: an image or mask that cannot be used; nothing is written.
      ConfigError: too few normal images for a rate.
      WriteError: a file cannot be written.
    """
    normals, mapped, calibrated = prepare(wish, model, out.parent)
    model = with_threshold(wish, model, calibrated)
    limit = pixel_limit(wish, calibrated)
    start = time.monotonic()
    with files.new_table(out) as writer:
        if wish.maps is None or mapped is None:
            scored = _score(
                wish,
                model,
                pictures,
                mapped=None,
                calibrated=calibrated,
                limit=None,
                writer=writer,
                evidence=[],
                masks=None,
            )
            lines = [_scores_line(out, model, pictures, scored), *_speed(wish, scored, start)]
        else:
            found: list[Evidence] = []
            with map_folder.new_folder(wish.maps, pictures.names, wish.ending) as drawn:
                scored = _score(
                    wish,
                    model,
                    pictures,
                    mapped=mapped,
                    calibrated=calibrated,
                    limit=limit,
                    writer=writer,
                    evidence=found,
                    masks=masks,
                    drawn=drawn,
                )
                lines = [_scores_line(out, model, pictures, scored), *_speed(wish, scored, start)]
                lines += _map_lines(wish, drawn, scored, limit, len(calibrated.maxima))
                if masks is not None:
                    lines += _localization_lines(
                        wish, model, pictures, masks=masks, normals=normals, found=found
                    )
                drawn.draw(pictures, None if limit is None else limit.threshold)
                drawn.keep(_description(wish, drawn, limit, len(calibrated.maxima)))
    return "\n".join(lines)


def prepare(wish: Wish, model: Model, scratch: Path) -> Prepared:
    """Reads, scores and maps the normal images, if there are any, and makes the function that maps
    (touches files).

    Args:
      wish: the wanted maps and tiles.
      model: that scores.
      scratch: folder for maps that are too large for memory.

    Raises:
      DataError: a normal image that cannot be used, or none.
    """
    normals = None if wish.normals is None else normal_pictures(wish, model)
    mean = None
    if normals is not None and wish.kind == "occlusion":
        # The mean comes from other images than the threshold, so that the threshold keeps its rate.
        mean_of, normals = _halves(normals)
        mean = flow.mean_piece(flow.pieces_of(mean_of, model, wish.tiling))
    mapped = None if wish.maps is None else detector_maps.mapper(model, wish.kind, mean)
    calibrated = Calibrated(np.zeros(0), np.zeros(0), np.zeros(0))
    if normals is not None:
        calibrated = calibrate(wish, model, normals, mapped, scratch)
    return Prepared(normals, mapped, calibrated)


def normal_pictures(wish: Wish, model: Model) -> Pictures:
    """Returns the normal images of `--normals` (touches files).

    Raises:
      DataError: no folder, or one that does not say which of its images are normal.
    """
    assert wish.normals is not None
    layout = folder.read_layout(wish.normals)
    if layout.normal is None:
        layout = all_normal(layout, str(wish.normals))
    names = layout.test_normals if layout.has_parts else layout.normals
    if not names:
        raise DataError(f"{wish.normals}: no normal images that are apart from the training part")
    print(
        f"{wish.normals}: {len(names)} normal images, which must not have been trained on",
        file=sys.stderr,
    )
    channels = model_images.wanted(model).channels
    return of_files(wish.normals, names, channels, wish.megapixels, wish.skip_unreadable)


def _halves(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Returns the images in two halves, taken alternately."""

    def part(wanted: frozenset[str]) -> Pictures:
        def opened() -> Any:
            return (picture for picture in pictures.opened() if picture.name in wanted)

        return Pictures(tuple(name for name in pictures.names if name in wanted), opened)

    if len(pictures.names) < 2:
        raise DataError("map_kind=occlusion needs 2 normal images at least")
    return part(frozenset(pictures.names[::2])), part(frozenset(pictures.names[1::2]))


def calibrate(
    wish: Wish,
    model: Model,
    normals: Pictures,
    mapped: Callable[[Pixels], Map] | None,
    scratch: Path,
) -> Calibrated:
    """Scores and maps normal images exactly as the others."""
    scores, medians, maxima = [], [], []
    pieces = flow.pieces_of(normals, model, wish.tiling)
    with bars.progress_bar("normals", len(normals.names), "image") as bar:
        for found in flow.follow(
            pieces, scorer(model), mapped, wish.tiling is not None, _there(scratch)
        ):
            scores.append(found.score)
            if found.map is not None:
                medians.append(map_folder.median_of(found.map))
                maxima.append(float(found.map.max()))
            bar.update()
    return Calibrated(np.array(scores), np.array(medians), np.array(maxima))


def _there(scratch: Path) -> Path | None:
    return scratch if scratch.is_dir() else None


def scorer(model: Model) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.floating]]:
    """Returns the function that scores pieces, `[n, ...] -> [n]`, without the warning of equal
    scores."""

    def score(pixels: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
        # Equal scores are checked over all images, not over a call.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", detectors.CollapseWarning)
            return detectors.score_images(model, pixels)

    return score


def with_threshold(wish: Wish, model: Model, calibrated: Calibrated) -> Model:
    """Returns the model with the threshold and calibration of images as they are scored here.

    Raises:
      ConfigError: a rate that needs more normal images than there are.
    """
    if wish.tiling is None:
        return model._replace(
            threshold=thresholds.chosen_threshold(model, wish.rate, wish.threshold)
        )
    if not len(calibrated.scores):
        if wish.rate is not None:
            raise ConfigError(
                "false_alarm_rate needs normal images in tiles: --normals=DIR; the model's own "
                "held-out scores are of whole images"
            )
        threshold = thresholds.chosen_threshold(model, None, wish.threshold)
        if wish.threshold is None:
            print(
                "the threshold is the model's, of one image: of many tiles the highest lies above "
                "it more often; --normals=DIR sets it for tiled images, and gives p-values",
                file=sys.stderr,
            )
        return model._replace(threshold=threshold, calibration_scores=np.zeros(0))
    model = model._replace(calibration_scores=np.sort(calibrated.scores))
    rate = wish.rate
    if rate is None and wish.threshold is None:
        rate = _usual_rate(len(calibrated.scores), model.summary.get("alarm_rate"))
    return model._replace(threshold=thresholds.chosen_threshold(model, rate, wish.threshold))


def _usual_rate(count: int, asked: float | None = None) -> float:
    """Returns the default rate: the model's or 1 %, but not below the lowest that so many scores
    allow."""
    return max(asked or detectors.held_out.DEFAULT_ALARM_RATE, 1.0 / (count + 1))


def pixel_limit(wish: Wish, calibrated: Calibrated) -> Limit | None:
    """Returns the threshold of pixels; None without maps of normal images.

    Raises:
      ConfigError: too few normal images for the rate.
    """
    if not len(calibrated.maxima):
        return None
    rate = _usual_rate(len(calibrated.maxima)) if wish.map_rate is None else wish.map_rate
    return Limit(calibration.conformal_threshold(calibrated.maxima, rate), rate)


def _score(
    wish: Wish,
    model: Model,
    pictures: Pictures,
    *,
    mapped: Callable[[Pixels], Map] | None,
    calibrated: Calibrated,
    limit: Limit | None,
    writer: TableWriter,
    evidence: list[Evidence],
    masks: Masks | None,
    drawn: MapFolder | None = None,
) -> Scored:
    """Writes a row for every image, and its map."""
    writer.writerow(
        (
            *COLUMNS,
            *(MAP_COLUMNS if drawn is not None else ()),
            *(REGION_COLUMNS if limit is not None else ()),
        )
    )
    alarms = marked = count = 0
    scores = []
    pieces = flow.pieces_of(pictures, model, wish.tiling)
    scratch = None if drawn is None else drawn.draft
    with bars.progress_bar("score", len(pictures.names), "image") as bar:
        counted = _counted(pieces, bar) if wish.tiling is not None else pieces
        for found in flow.follow(counted, scorer(model), mapped, wish.tiling is not None, scratch):
            anomalous = found.score > model.threshold
            p_value = thresholds.p_value_cells(model.calibration_scores, [found.score])
            cells: list[object] = [found.name, found.score, *p_value, int(anomalous)]
            if drawn is not None:
                place, pixels = _mapped(found, drawn, limit, masks, evidence)
                cells += [place.row, place.column, repr(place.value)]
                if limit is not None:
                    cells += thresholds.p_value_cells(calibrated.maxima, [place.value]) + [pixels]
                marked += pixels > 0
            writer.writerow(cells)
            alarms, count = alarms + int(anomalous), count + found.pieces
            scores.append(found.score)
            bar.update()
    if not scores:
        raise DataError("no image can be read")
    if len(scores) > 1 and metrics.are_all_equal(scores):
        print(f"all {len(scores)} scores are equal: the model tells nothing apart", file=sys.stderr)
    return Scored(len(scores), alarms, marked, count)


def _counted(pieces: Iterator[Piece], bar: tqdm) -> Iterator[Piece]:
    """Shows on a bar of images how many tiles were scored: one image may have many."""
    for number, piece in enumerate(pieces, 1):
        yield piece
        if number % _TILES_PER_REPORT == 0:
            bar.set_postfix_str(f"{number} tiles")


def _mapped(
    found: Found,
    drawn: MapFolder,
    limit: Limit | None,
    masks: Masks | None,
    evidence: list[Evidence],
) -> tuple[Place, int]:
    """Writes the map of an image; returns the place of its maximum and the number of marked
    pixels."""
    assert found.map is not None
    place = drawn.write(found.name, found.map)
    if masks is not None:
        mask = map_masks.read_mask(masks, found.name, found.sides)
        evidence.append(localization.evidence(found.map, mask))
    return place, marked_pixels(found.map, limit)


def marked_pixels(values: Map, limit: Limit | None) -> int:
    """Returns how many pixels of a map are marked."""
    if limit is None:
        return 0
    return sum(int(np.count_nonzero(row > limit.threshold)) for row in values)


def _scores_line(out: Path, model: Model, pictures: Pictures, scored: Scored) -> str:
    skipped = len(pictures.names) - scored.images
    return (
        f"{out}: {scored.images} samples, {scored.alarms} anomalous (score above "
        f"{model.threshold:.6g})" + (f", {skipped} unreadable files left out" if skipped else "")
    )


def _speed(wish: Wish, scored: Scored, start: float) -> list[str]:
    if wish.tiling is None:
        return []
    seconds = time.monotonic() - start
    size, overlap = wish.tiling
    what = "scored" if wish.maps is None else "scored and mapped"
    return [
        f"{scored.pieces} tiles of {size} pixels, overlapping by {overlap}, {what} in "
        f"{seconds:.1f} s: {scored.pieces / seconds:.0f} a second; an image's score is that of its "
        "highest tile"
    ]


def _map_lines(
    wish: Wish, drawn: MapFolder, scored: Scored, limit: Limit | None, normals: int
) -> list[str]:
    low, high = drawn.scale()
    lines = [
        f"{wish.maps}: {scored.images} maps ({wish.kind}), colours from {low:.4g} to {high:.4g}"
    ]
    if limit is not None:
        lines.append(
            f"{scored.marked} images have marked pixels, those above {limit.threshold:.6g}: of "
            f"{normals} normal images' maxima; a normal image has one with probability "
            f"{limit.rate:.3g} at most"
        )
    return lines


def _description(wish: Wish, drawn: MapFolder, limit: Limit | None, normals: int) -> dict[str, Any]:
    low, high = drawn.scale()
    return {
        "kind": wish.kind,
        "images": len(drawn.written),
        "scale": [low, high],
        "threshold": None if limit is None else limit.threshold,
        "false_alarm_rate": None if limit is None else limit.rate,
        "normal_images": normals,
        "tile": None if wish.tiling is None else wish.tiling.size,
        "overlap": None if wish.tiling is None else wish.tiling.overlap,
    }


def _localization_lines(
    wish: Wish,
    model: Model,
    pictures: Pictures,
    masks: Masks,
    normals: Pictures | None,
    found: list[Evidence],
) -> list[str]:
    """Returns lines on how well the maps agree with the masks, beside a map that needs no model."""
    pixels = sum(len(one.normal) + len(one.defect) for one in found)
    missing = memory.shortage(12 * pixels)
    if missing is not None:
        raise DataError(f"measuring maps of {pixels} pixels takes {missing}; score fewer images")
    result = localization.localization(found)
    found.clear()
    lines = [
        f"against the masks of {result.images} images ({result.regions} regions; without a mask: "
        f"{pictures_without(pictures, masks)}): {_in_words(result)}"
    ]
    if normals is None:
        return [
            *lines,
            "to see beside it what |image - mean of normal images| finds: --normals=DIR",
        ]
    mean = flow.mean_piece(flow.pieces_of(normals, model, wish.tiling))
    other = []
    pieces = flow.pieces_of(pictures, model, wish.tiling)
    for one in flow.follow(pieces, None, lambda images: _difference(images, mean)):
        assert one.map is not None
        mask = map_masks.read_mask(masks, one.name, one.sides)
        other.append(localization.evidence(one.map, mask))
    trivial = _in_words(localization.localization(other))
    return [
        *lines,
        f"beside it, |image - mean of the {len(normals.names)} normal images|: {trivial}",
    ]


def pictures_without(pictures: Pictures, masks: Masks) -> int:
    return sum(name not in masks.of for name in pictures.names)


def _difference(images: npt.NDArray[Any], mean: npt.NDArray[np.float32]) -> Map:
    """Returns the absolute difference from the mean of normal images, summed over channels."""
    unit = np.float32(255 if images.dtype == np.uint8 else 1)
    return np.asarray(np.abs(images.astype(np.float32) / unit - mean).sum(axis=3), np.float32)


def _in_words(found: Localization) -> str:
    return (
        f"pixel AUROC {100 * found.pixel_auroc:.2f}, AUPRO up to 30 % {100 * found.aupro:.2f}, "
        f"maximum inside {100 * found.hits:.1f} % of the defects"
    )
