"""Scores images with maps, in tiles, or both: what `score` does where such flags are given."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags
from tqdm import tqdm

from deepsvdd_jax.cli import environment, files, model_images, paths, thresholds
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps import flow
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.cli.maps import masks as map_masks
from deepsvdd_jax.cli.maps.flow import Found, Map, Piece, Tiling
from deepsvdd_jax.cli.maps.folder import MapFolder, Place
from deepsvdd_jax.cli.maps.masks import Masks
from deepsvdd_jax.cli.maps.pictures import Pictures, of_files
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
_MAP_COLUMNS = ("map_row", "map_column", "map_maximum")
_REGION_COLUMNS = ("map_p_value", "marked_pixels")

# Flags that are read with --maps alone.
# Tiles between two looks of the bar at them.
_TILES_PER_REPORT = 1000

_KINDS = ("objective", "gradient", "occlusion")
_OF_MAPS = ("map_kind", "map_format", "map_false_alarm_rate", "masks")


class Wish(NamedTuple):
    """What the flags ask for.

    Attributes:
      maps: folder to write maps into; None makes none.
      kind: of the maps, see `detectors.maps`.
      ending: of the files of values.
      tiling: how images are cut; None leaves them whole.
      normals: folder of normal images that were not trained on; None has none.
      map_rate: share of normals in which some pixel may be marked; None takes the lowest usual one.
      masks: folder of masks; None takes those that lie with the images.
      rate: see `thresholds.chosen_threshold`.
      threshold: see there.
      megapixels: most of them in an image.
      skip_unreadable: leave out damaged files.
    """

    maps: Path | None
    kind: str
    ending: str
    tiling: Tiling | None
    normals: Path | None
    map_rate: float | None
    masks: Path | None
    rate: float | None
    threshold: float | None
    megapixels: int | None
    skip_unreadable: bool


class Calibrated(NamedTuple):
    """What held-out normal images tell: scores and maxima of maps, `[n]`; empty without any."""

    scores: npt.NDArray[np.float64]
    maxima: npt.NDArray[np.float64]


class Limit(NamedTuple):
    """The threshold of pixels, and the rate that it keeps."""

    threshold: float
    rate: float


class Scored(NamedTuple):
    """How many images were scored, how many are anomalous, and have a marked pixel, and the
    pieces that they were cut into."""

    images: int
    alarms: int
    marked: int
    pieces: int


def define_flags() -> None:
    """Defines the flags of maps and tiles."""
    flags.DEFINE_string(
        "maps", None, "new folder to write a map of every image to, and an overlay to look at"
    )
    flags.DEFINE_enum(
        "map_kind",
        "auto",
        ["auto", *_KINDS],
        "objective: the network's own map (fcdd); gradient: of the score; occlusion: what the "
        "score loses when a patch becomes that of the mean of --normals; auto: objective where "
        "there is one, else gradient",
    )
    flags.DEFINE_enum("map_format", "npy", map_folder.FORMATS, "format of the maps' values")
    flags.DEFINE_string(
        "normals",
        None,
        "folder of normal images that were not trained on: they set the threshold of pixels, of "
        "tiled images also that of scores",
    )
    flags.DEFINE_float(
        "map_false_alarm_rate",
        None,
        "share of normal images in which some pixel may be marked (default: 0.01, or the lowest "
        "rate that --normals carry)",
    )
    flags.DEFINE_string(
        "masks", None, "folder of masks of defects to measure the maps with (default: those found)"
    )
    flags.DEFINE_integer("tile", None, "cut images into squares of so many pixels", lower_bound=1)
    flags.DEFINE_integer(
        "overlap", None, "pixels by which tiles overlap (default: 0)", lower_bound=0
    )


def wish(values: flags.FlagValues, model: Model, out: Path, read: Sequence[Path]) -> Wish | None:
    """Returns what the flags ask for; None where images are scored as they are, without maps.

    Args:
      values: parsed.
      model: that scores.
      out: the table of scores.
      read: files and folders that the command reads.

    Raises:
      ConfigError: flags without effect, or that the model cannot follow.
    """
    tiling = flow.check_tiling(values.tile, values.overlap, model)
    if values.maps is None:
        for name in _OF_MAPS:
            if values[name].value != values[name].default:
                raise ConfigError(f"--{name} has no effect here: it is of --maps")
        if values.normals is not None and tiling is None:
            raise ConfigError("--normals has no effect here: it is of --maps and --tile")
    if values.maps is None and tiling is None:
        return None
    normals = None if values.normals is None else paths.to_read("normals", values.normals)
    masks = None if values.masks is None else paths.to_read("masks", values.masks)
    if normals is not None and any(_overlap(normals, path) for path in read):
        print(
            f"{normals} is scored too: of its own images p-values and marked pixels say nothing",
            file=sys.stderr,
        )
    everything = [*read, *(path for path in (normals, masks) if path is not None)]
    maps = None if values.maps is None else paths.new_folder("maps", values.maps, everything)
    kind = "none"
    if maps is not None:
        kind = detector_maps.map_kind(model, values.map_kind)
        if maps.resolve() in out.parents:
            raise ConfigError(f"--out={values.out} lies in --maps={values.maps}; give another")
        if kind == "occlusion" and normals is None:
            raise ConfigError(
                "map_kind=occlusion needs the mean of normal images: give a folder of them, "
                "--normals=DIR"
            )
        if values.map_false_alarm_rate is not None and normals is None:
            raise ConfigError(
                "map_false_alarm_rate needs normal images that were not trained on: --normals=DIR"
            )
    return Wish(
        maps,
        kind,
        values.map_format,
        tiling,
        normals,
        values.map_false_alarm_rate,
        masks,
        values.false_alarm_rate,
        values.threshold,
        values.max_megapixels,
        values.skip_unreadable,
    )


def _overlap(one: Path, other: Path) -> bool:
    found = one.resolve(), other.resolve()
    return found[0].is_relative_to(found[1]) or found[1].is_relative_to(found[0])


def run(wish: Wish, model: Model, pictures: Pictures, masks: Masks | None, out: Path) -> str:
    """Scores and maps images, and writes the table and the folder of maps (touches files).

    Args:
      wish: see `wish`.
      model: that scores.
      pictures: to be scored.
      masks: of their defects; None knows none.
      out: the table.

    Returns:
      Lines on what was done.

    Raises:
      DataError: an image or mask that cannot be used; nothing is written.
      ConfigError: too few normal images for a rate.
      WriteError: a file cannot be written.
    """
    normals = None if wish.normals is None else normal_pictures(wish, model)
    mean = None
    if normals is not None and wish.kind == "occlusion":
        # The mean comes from other images than the threshold, so that this one keeps its rate.
        mean_of, normals = _halves(normals)
        mean = flow.mean_piece(flow.pieces_of(mean_of, model, wish.tiling))
    mapped = None if wish.maps is None else detector_maps.mapper(model, wish.kind, mean)
    told = Calibrated(np.zeros(0), np.zeros(0))
    if normals is not None:
        told = calibrate(wish, model, normals, mapped, out.parent)
    model = _with_threshold(wish, model, told)
    limit = None if mapped is None or not len(told.maxima) else _limit(wish.map_rate, told.maxima)
    start = time.monotonic()
    with files.new_table(out) as writer:
        if wish.maps is None or mapped is None:
            scored = _score(wish, model, pictures, None, told, None, writer, [], None)
            lines = [_scores_line(out, model, pictures, scored), *_speed(wish, scored, start)]
        else:
            found: list[Evidence] = []
            with map_folder.new_folder(wish.maps, pictures.names, wish.ending) as drawn:
                scored = _score(
                    wish, model, pictures, mapped, told, limit, writer, found, masks, drawn
                )
                lines = [_scores_line(out, model, pictures, scored), *_speed(wish, scored, start)]
                lines += _map_lines(wish, drawn, scored, limit, len(told.maxima))
                if masks is not None:
                    lines += _localization_lines(wish, model, pictures, masks, normals, found)
                drawn.draw(pictures, None if limit is None else limit.threshold)
                drawn.keep(_description(wish, drawn, limit, len(told.maxima)))
    return "\n".join(lines)


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
    """Returns every other image, and the rest."""

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
    mapped: Callable[[Any], Map] | None,
    scratch: Path,
) -> Calibrated:
    """Scores and maps normal images exactly as the others will be."""
    scores, maxima = [], []
    pieces = flow.pieces_of(normals, model, wish.tiling)
    with environment.progress_bar("normals", len(normals.names), "image") as bar:
        for found in flow.follow(
            pieces, _scorer(model), mapped, wish.tiling is not None, _there(scratch)
        ):
            scores.append(found.score)
            if found.map is not None:
                maxima.append(float(found.map.max()))
            bar.update()
    return Calibrated(np.array(scores), np.array(maxima))


def _there(scratch: Path) -> Path | None:
    return scratch if scratch.is_dir() else None


def _scorer(model: Model) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.floating]]:
    def score(pixels: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
        # Whether scores are equal is asked of the whole.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", detectors.CollapseWarning)
            return detectors.score_images(model, pixels)

    return score


def _with_threshold(wish: Wish, model: Model, told: Calibrated) -> Model:
    """Returns the model with the threshold and calibration of images as they are scored here."""
    if wish.tiling is None:
        return model._replace(
            threshold=thresholds.chosen_threshold(model, wish.rate, wish.threshold)
        )
    if not len(told.scores):
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
    model = model._replace(calibration_scores=np.sort(told.scores))
    rate = wish.rate
    if rate is None and wish.threshold is None:
        rate = _usual_rate(len(told.scores), model.summary.get("alarm_rate"))
    return model._replace(threshold=thresholds.chosen_threshold(model, rate, wish.threshold))


def _usual_rate(count: int, asked: float | None = None) -> float:
    """Returns the rate where none is given: that of the model or 1 %, or what so many carry."""
    return max(asked or detectors.held_out.DEFAULT_ALARM_RATE, 1.0 / (count + 1))


def _limit(rate: float | None, maxima: npt.NDArray[np.float64]) -> Limit:
    rate = _usual_rate(len(maxima)) if rate is None else rate
    return Limit(calibration.conformal_threshold(maxima, rate), rate)


def _score(
    wish: Wish,
    model: Model,
    pictures: Pictures,
    mapped: Callable[[Any], Map] | None,
    told: Calibrated,
    limit: Limit | None,
    writer: Any,
    evidence: list[Evidence],
    masks: Masks | None,
    drawn: MapFolder | None = None,
) -> Scored:
    """Writes a row for every image, and its map."""
    writer.writerow(
        (
            *COLUMNS,
            *(_MAP_COLUMNS if drawn is not None else ()),
            *(_REGION_COLUMNS if limit is not None else ()),
        )
    )
    alarms = marked = count = 0
    scores = []
    pieces = flow.pieces_of(pictures, model, wish.tiling)
    scratch = None if drawn is None else drawn.draft
    with environment.progress_bar("score", len(pictures.names), "image") as bar:
        counted = _counted(pieces, bar) if wish.tiling is not None else pieces
        for found in flow.follow(counted, _scorer(model), mapped, wish.tiling is not None, scratch):
            anomalous = found.score > model.threshold
            p_value = thresholds.p_value_cells(model.calibration_scores, [found.score])
            cells: list[Any] = [found.name, found.score, *p_value, int(anomalous)]
            if drawn is not None:
                place, pixels = _mapped(found, drawn, limit, masks, evidence)
                cells += [place.row, place.column, repr(place.value)]
                if limit is not None:
                    cells += thresholds.p_value_cells(told.maxima, [place.value]) + [pixels]
                marked += pixels > 0
            writer.writerow(cells)
            alarms, count = alarms + int(anomalous), count + found.pieces
            scores.append(found.score)
            bar.update()
    if not scores:
        raise DataError("no image can be read")
    if len(scores) > 1 and metrics.have_no_spread(scores):
        print(f"all {len(scores)} scores are equal: the model tells nothing apart", file=sys.stderr)
    return Scored(len(scores), alarms, marked, count)


def _counted(pieces: Iterator[Piece], bar: tqdm) -> Iterator[Piece]:
    """Shows on a bar of images how many tiles there were: one image may have many."""
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
    """Writes the map of an image; returns where it is highest, and how many pixels are marked."""
    assert found.map is not None
    place = drawn.write(found.name, found.map)
    if masks is not None:
        mask = map_masks.read_mask(masks, found.name, found.sides)
        evidence.append(localization.evidence(found.map, mask))
    above = 0
    if limit is not None:
        above = sum(int(np.count_nonzero(row > limit.threshold)) for row in found.map)
    return place, above


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
