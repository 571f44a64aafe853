"""The page of a model's scores of new data: ranked anomalies with their images."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from posixpath import splitext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli import score_log
from deepsvdd_jax.cli.reporting import called, drift_section
from deepsvdd_jax.cli.reporting.called import NamedModel, Threshold
from deepsvdd_jax.cli.reporting.kinds import NORMAL, Kinds, kinds_of
from deepsvdd_jax.cli.reporting.pictures import Page
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.images import is_image_name, read_image
from deepsvdd_jax.scoring import metrics, tradeoff
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.overlays import eight_bits
from deepsvdd_jax.viz.page_script import SCRIPT
from deepsvdd_jax.viz.pages import Card, Html, Picture, Section, Stop

COLUMNS = ("name", "score", "p_value", "anomalous")
_CALLED = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
# Images are shrunk to this longer side, and a photo is kept as JPEG where that is smaller.
_IMAGE_SIDE = 640
_JPEG_QUALITY = 90


class ScoredRow(NamedTuple):
    """A row of a scores file; `p_value` is None without calibration scores, `drift` and
    `drift_alarm` where the file has no such column."""

    name: str
    score: float
    p_value: float | None
    anomalous: bool
    drift: float | None = None
    drift_alarm: float | None = None


def read_scores(path: Path) -> list[ScoredRow]:
    """Reads a scores file (touches files).

    Raises:
      DataError: it cannot be read, has no rows, or a cell is not of the type of its column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: column {missing[0]} is missing; the columns are {','.join(COLUMNS)}"
                )
            rows = [_row(path, reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a csv file: {error}") from None
    if not rows:
        raise DataError(f"{path}: holds no scores")
    return rows


def _row(path: Path, line: int, cells: dict[str, str | None]) -> ScoredRow:
    name, score, p_value, called = ((cells[column] or "") for column in COLUMNS)
    where = f"{path}, line {line}"
    if called.strip().lower() not in _CALLED:
        raise DataError(f"{where}: anomalous is {called!r}; expected 1 or 0")
    chance = None if not p_value.strip() else _number(where, "p_value", p_value)
    evidence, alarm = ((cells.get(name) or "").strip() for name in ("drift", score_log.ALARM))
    return ScoredRow(
        name=name,
        score=_number(where, "score", score),
        p_value=chance,
        anomalous=_CALLED[called.strip().lower()],
        drift=_number(where, "drift", evidence) if evidence else None,
        drift_alarm=_number(where, score_log.ALARM, alarm) if alarm else None,
    )


def _number(where: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {column} is {cell!r}; expected a number")
    return value


class Images(NamedTuple):
    """The folder of the images of scored names, and the images that are read.

    Attributes:
      root: folder that relative names start from.
      follow_names: show images outside of that folder too, where names lead there by `..`, from the
        root, or over links.
      megapixels: images of more million pixels are not read, None for the usual bound.
      maps: folder that `score --maps` wrote, whose overlays stand beside the images.
    """

    root: Path = Path()
    follow_names: bool = False
    megapixels: int | None = None
    maps: Path | None = None


class Scored(NamedTuple):
    """The input of the sections of a page.

    Attributes:
      rows: the highest score first.
      kinds: of the rows, where their folders tell them.
      images: where those of the names are.
      named: the model that scored; None where it is not known.
      threshold: that the rows were called by.
    """

    rows: Sequence[ScoredRow]
    kinds: Kinds
    images: Images
    named: NamedModel | None
    threshold: Threshold

    @property
    def scores(self) -> called.Floats:
        return np.array([row.score for row in self.rows])

    @property
    def alarms(self) -> npt.NDArray[np.bool_]:
        return np.array([row.anomalous for row in self.rows])


def build_page(
    rows: Sequence[ScoredRow],
    images: Images,
    top: int,
    named: NamedModel | None = None,
    source: str = "scores",
) -> Page:
    """Returns the page of the `top` highest scores (touches files: reads their images).

    Args:
      rows: in the order of the file.
      images: where those of the names are.
      top: how many to show.
      named: the model that scored; None where it is not known.
      source: of the rows, for messages.

    Raises:
      DataError: another model has scored.
    """
    ranked = sorted(rows, key=lambda row: -row.score)
    scores = np.array([row.score for row in ranked])
    alarms = np.array([row.anomalous for row in ranked])
    if named is not None:
        called.check_model(scores, [row.p_value for row in ranked], named, source)
    threshold = called.threshold_of(scores, alarms, named)
    scored = Scored(ranked, kinds_of([row.name for row in ranked]), images, named, threshold)
    files: dict[str, bytes] = {}
    missed: list[int] = []
    if scored.kinds.names:
        missed = np.flatnonzero(scored.kinds.defective & ~alarms).tolist()
    first = list(range(min(top, len(ranked))))
    sections = [
        Section("Scores", "scores", [*_equal_scores(rows), *_threshold(scored, files)]),
        *_kinds_section(scored),
        *_drift_section(rows, scored, files),
        Section("Ranked anomalies", "ranked", _ranked(scored, first)),
    ]
    if missed:
        text = f"{len(missed)} defects raise no alarm; those next to the threshold come first."
        blocks = [pages.paragraph(text), *_cards(scored, missed[:top], "missed-card")]
        sections.append(Section("Missed defects", "missed", blocks))
    listed = sorted({*first, *missed[:top]})
    sections.append(Section("Table", "table", [_table(scored, listed)]))
    lead = "New data under a fitted model; a higher score is more anomalous."
    top_tiles = [pages.tiles(_headline(scored))]
    return Page(pages.page("Anomaly scores", lead, top_tiles, sections, SCRIPT), files)


def _headline(scored: Scored) -> dict[str, str]:
    count, alarms = len(scored.rows), int(scored.alarms.sum())
    shown = {
        "model": scored.named.name if scored.named else "not given",
        "threshold": scored.threshold.shown,
        "scored": str(count),
        "called anomalous": f"{alarms} ({100 * alarms / count:.1f} %)",
        "highest score": f"{scored.rows[0].score:.4g}",
        "median score": f"{np.median(scored.scores):.4g}",
    }
    if scored.kinds.names:
        normal, defective = scored.kinds.normal, scored.kinds.defective
        if normal.any() and defective.any():
            known = normal | defective
            area = metrics.auroc(scored.scores[known], defective[known].astype(int))
            shown["AUROC"] = f"{100 * area:.2f} %"
    return shown


def _equal_scores(rows: Sequence[ScoredRow]) -> list[Html]:
    """Returns a paragraph if all scores are equal, else nothing."""
    if not metrics.are_all_equal([row.score for row in rows]):
        return []
    return [
        pages.paragraph(
            f"All {len(rows)} scores are equal: the model tells none of these samples from another."
        )
    ]


def _threshold(scored: Scored, files: dict[str, bytes]) -> list[Html]:
    """Returns the histogram with the threshold, and the slider that moves it."""
    value, scores = scored.threshold.value, scored.scores
    wide, narrow = (
        plots.alarm_figure(scores, scored.alarms, layout, value)
        for layout in (plots.WIDE, plots.NARROW)
    )
    # Positions across are known only once a figure is drawn.
    files["scores.png"] = plots.png_bytes(wide)
    alt = "Histogram of the scores, alarms and threshold marked"
    picture = Picture(files["scores.png"], alt, plots.png_bytes(narrow))
    blocks = [pages.figure([picture], _HISTOGRAM_CAPTION), pages.paragraph(scored.threshold.origin)]
    if not math.isfinite(value):
        return blocks
    held_out = scored.named.model.calibration_scores if scored.named else ()
    thresholds = called.thresholds_to_try(scores, value)
    groups = called.groups_of(scores, scored.kinds, held_out)
    across = (plots.places_across(drawn, thresholds).round(5) for drawn in (wide, narrow))
    stops = [
        Stop(float(one), left, left_narrow, called.outcome(one, groups))
        for one, left, left_narrow in zip(thresholds, *across, strict=True)
    ]
    return [*blocks, pages.slider(stops, int(np.flatnonzero(thresholds == value)[0]))]


_HISTOGRAM_CAPTION = (
    "Number of rows by score; alarms are stacked on top of the others, and each has a stroke below "
    "the axis; dashed: the threshold. The axis is logarithmic where the scores span much."
)


def _kinds_section(scored: Scored) -> list[Section]:
    """Returns the section on the kinds of the rows, where their folders tell them."""
    kinds, alarms = scored.kinds, scored.alarms
    if not kinds.names:
        if not kinds.problem:
            return []
        return [Section("Kinds", "kinds", [pages.paragraph(f"No kinds: {kinds.problem}.")])]
    names = np.array([name is not None for name in kinds.names])
    groups = {"normal": kinds.normal, "defects": kinds.defective}
    each = sorted({name for name in kinds.names if name})
    if len(each) > 1:
        groups |= {name: np.array([kind == name for kind in kinds.names]) for name in each}
    rows = []
    for name, members in groups.items():
        total, raised = int(members.sum()), int(alarms[members].sum())
        if not total:
            continue
        low, high = tradeoff.share_interval(raised, total)
        share = f"{100 * raised / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        rows.append((name, total, raised, total - raised, share))
    caption = (
        "By the folders in the names. Alarms of normal ones are false, defects without one are "
        "missed; in brackets the 95 % interval of the share."
    )
    if not names.all():
        caption += f" {int((~names).sum())} rows lie in no folder of a kind and are left out."
    header = ("kind", "samples", "alarms", "no alarm", "share of alarms")
    # Only sortable tables fit a phone; a threshold would change nothing in this one.
    return [Section("Kinds", "kinds", [pages.table(header, rows, caption, data=[{}] * len(rows))])]


def _drift_section(
    rows: Sequence[ScoredRow], scored: Scored, files: dict[str, bytes]
) -> list[Section]:
    """Returns the section on the drift of the scores, where there is evidence of it."""
    logged = [row.drift for row in rows]
    has_kinds = bool(scored.kinds.names)
    capital = drift_section.capital_of(logged, [row.score for row in rows], scored.named, has_kinds)
    if not capital:
        return []
    if None in logged or rows[-1].drift_alarm is None:
        return [drift_section.section(capital, None not in logged, files)]
    return [drift_section.section(capital, True, files, rows[-1].drift_alarm)]


def _ranked(scored: Scored, places: Sequence[int]) -> list[Html]:
    text = pages.paragraph(
        f"The {len(places)} highest scores, the highest first; framed: above the threshold. "
        f"{scored.alarms.sum()} rows were called anomalous in all."
    )
    if not any(_is_image(scored.rows[place].name) for place in places):
        return [text, pages.paragraph("The names are not those of image files: see the table.")]
    return [text, *_cards(scored, places, "card")]


def _cards(scored: Scored, places: Sequence[int], anchor: str) -> list[Html]:
    images = scored.images
    root = images.root
    names = [scored.rows[place].name for place in places]
    outside = [not images.follow_names and leads_outside(root, name) for name in names]
    pictures = [
        None if out else _picture(images, name) for name, out in zip(names, outside, strict=True)
    ]
    cards = [
        Card(
            picture,
            {f"{place + 1}.": name, **_facts(scored, place)},
            scored.rows[place].anomalous,
            _read_by_script(scored, place),
        )
        for place, name, picture in zip(places, names, pictures, strict=True)
    ]
    blocks = []
    if any(outside):
        reason = f"{sum(outside)} of {len(places)} names lead out of {root}. To show these images:"
        command = "python -m experiments.report --scores=FILE --data_dir=FOLDER --follow_names"
        blocks.append(pages.missing(reason, f"{command} --out=DIR"))
    lost = sum(picture is None for picture in pictures) - sum(outside)
    if lost:
        reason = f"{lost} of {len(places)} images cannot be read in {root}. With the right folder:"
        command = "python -m experiments.report --scores=FILE --data_dir=FOLDER --out=DIR"
        blocks.append(pages.missing(reason, command))
    return [*blocks, pages.gallery(cards, anchor)]


def _facts(scored: Scored, place: int) -> dict[str, str]:
    row = scored.rows[place]
    kind = scored.kinds.names[place] if scored.kinds.names else None
    facts = {
        "score": f"{row.score:.4g}",
        "p-value": "—" if row.p_value is None else f"{row.p_value:.3g}",
        "alarm": _alarm(row.anomalous, kind),
    }
    return facts | ({"kind": _kind_name(kind)} if scored.kinds.names else {})


def _alarm(anomalous: bool, kind: str | None) -> str:
    """Returns in words whether a row raises an alarm, and whether that is a mistake."""
    if kind == NORMAL:
        return "false alarm" if anomalous else "no"
    if kind is not None and not anomalous:
        return "missed"
    return "yes" if anomalous else "no"


def _kind_name(kind: str | None) -> str:
    return "—" if kind is None else kind or "normal"


def _read_by_script(scored: Scored, place: int) -> dict[str, object]:
    kind = scored.kinds.names[place] if scored.kinds.names else None
    role = "" if kind is None else "defect" if kind else "normal"
    return {"score": repr(scored.rows[place].score), "kind": role}


def _is_image(name: str) -> bool:
    return is_image_name(name)


def leads_outside(root: Path, name: str) -> bool:
    """Returns whether a name leads out of a folder: by `..`, from the root, or over links (touches
    files)."""
    try:
        return not (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        # An impossible name, or a circle of links: no such file anywhere.
        return False


def _picture(images: Images, name: str) -> Picture | None:
    """Returns a picture of an image file, beside it of its map where there is one (touches files);
    None where the image cannot be read."""
    image = _small_image(images.root / name, images.megapixels)
    if image is None:
        return None
    if images.maps is not None:
        # The name keeps its ending where two images of a folder differ only there.
        overlays = (f"{stem}.png" for stem in (name, splitext(name)[0]))
        inside = (images.maps / path for path in overlays if not leads_outside(images.maps, path))
        overlay = next(
            (found for path in inside if (found := _small_image(path)) is not None), None
        )
        if overlay is not None:
            return Picture(
                _encoded(_beside(image, overlay)), f"Image {name} and its map", kind="photo"
            )
    return Picture(_encoded(image), f"Image {name}", kind="photo")


def _small_image(path: Path, megapixels: int | None = None) -> npt.NDArray[np.uint8] | None:
    """Returns an image of a card's size (touches files); None where it cannot be read."""
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    try:
        # Reading from a pipe or a device might never end.
        image = read_image(path, megapixels=megapixels) if path.is_file() else None
    except (DataError, OSError, ValueError):
        # ValueError: a name with a null character.
        return None
    if image is None:
        return None
    image = eight_bits(image)
    height, width = image.shape[:2]
    shrink = max(height, width) / _IMAGE_SIDE
    if shrink > 1:
        image = resize_image(image, (max(1, round(height / shrink)), max(1, round(width / shrink))))
    return image


def _beside(image: npt.NDArray[np.uint8], overlay: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns an image and its map as one, side by side, a broad one above its map."""
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    height, width = image.shape[:2]
    pair = [np.broadcast_to(image, (height, width, 3)), resize_image(overlay, (height, width))]
    return np.concatenate(pair, axis=0 if width > height else 1)


def _encoded(image: npt.NDArray[np.uint8]) -> bytes:
    """Returns an image as PNG, or as JPEG where that is less than half as large."""
    from PIL import Image

    drawn = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    png, jpeg = io.BytesIO(), io.BytesIO()
    drawn.save(png, format="PNG")
    drawn.save(jpeg, format="JPEG", quality=_JPEG_QUALITY)
    is_large = 2 * jpeg.tell() < png.tell()
    return jpeg.getvalue() if is_large else png.getvalue()


def _table(scored: Scored, places: Sequence[int]) -> Html:
    # The name, which contains the kind, comes last: a long one then pushes no figure out of sight.
    facts = [_facts(scored, place) for place in places]
    for found in facts:
        found.pop("kind", None)
    lines = [
        (place + 1, *found.values(), scored.rows[place].name)
        for place, found in zip(places, facts, strict=True)
    ]
    return pages.table(
        ("rank", *facts[0], "name"),
        lines,
        "The highest scores, and the defects that raise no alarm. The p-value is the share of "
        "normal data that scores as high."
        if scored.kinds.names
        else "The highest scores. The p-value is the share of normal data that scores as high.",
        strong=[number for number, place in enumerate(places) if scored.rows[place].anomalous],
        data=[_read_by_script(scored, place) for place in places],
    )
