"""The page of a model's scores of new data: ranked anomalies with their images."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepsvdd_jax.cli.reporting.sweep_report import Page
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.images import is_image_name, read_image
from deepsvdd_jax.scoring import metrics
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html, Picture, Section

COLUMNS = ("name", "score", "p_value", "anomalous")
_CALLED = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_IMAGE_SIDE = 128


class ScoredRow(NamedTuple):
    """A row of a scores file; `p_value` is None where the model gave none."""

    name: str
    score: float
    p_value: float | None
    anomalous: bool


def read_scores(path: Path) -> list[ScoredRow]:
    """Reads a scores file (touches files).

    Raises:
      DataError: it cannot be read, has no rows, or a cell is not what its column holds.
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
    return ScoredRow(name, _number(where, "score", score), chance, _CALLED[called.strip().lower()])


def _number(where: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {column} is {cell!r}; expected a number")
    return value


class Images(NamedTuple):
    """Where the images of scored names are, and which of them are read.

    Attributes:
      root: folder that relative names start from.
      follow_names: show images outside of that folder too, where names lead there by `..`, from the
        root, or over links.
      megapixels: images of more million pixels are not read, None for the usual bound.
    """

    root: Path = Path()
    follow_names: bool = False
    megapixels: int | None = None


def build_page(rows: Sequence[ScoredRow], images: Images, top: int) -> Page:
    """Returns the page of the `top` highest scores (touches files: reads their images).

    Args:
      rows: in any order.
      images: where those of the names are.
      top: how many to show.
    """
    ranked = sorted(rows, key=lambda row: -row.score)[:top]
    called = sum(row.anomalous for row in rows)
    files: dict[str, bytes] = {}
    sections = [
        Section("Scores", "scores", [*_equal_scores(rows), _histogram(rows, files)]),
        Section("Ranked anomalies", "ranked", _ranked(ranked, images, called)),
        Section("Table", "table", [_table(ranked)]),
    ]
    shown = {
        "scored": str(len(rows)),
        "called anomalous": f"{called} ({100 * called / len(rows):.1f} %)",
        "highest score": f"{ranked[0].score:.4g}",
        "median score": f"{np.median([row.score for row in rows]):.4g}",
    }
    lead = "New data under a fitted model; a higher score is more anomalous."
    return Page(pages.page("Anomaly scores", lead, [pages.tiles(shown)], sections), files)


def _equal_scores(rows: Sequence[ScoredRow]) -> list[Html]:
    """Returns a paragraph where the scores tell nothing apart, else nothing."""
    if not metrics.have_no_spread([row.score for row in rows]):
        return []
    return [
        pages.paragraph(
            f"All {len(rows)} scores are equal: the model tells none of these samples from another."
        )
    ]


def _histogram(rows: Sequence[ScoredRow], files: dict[str, bytes]) -> Html:
    scores = np.array([row.score for row in rows])
    called = np.array([row.anomalous for row in rows])
    wide, narrow = (
        plots.png_bytes(plots.alarm_figure(scores, called, layout))
        for layout in (plots.WIDE, plots.NARROW)
    )
    files["scores.png"] = wide
    picture = Picture(wide, "Histogram of the scores, alarms marked", narrow)
    return pages.figure([picture], _HISTOGRAM_CAPTION)


_HISTOGRAM_CAPTION = (
    "Number of rows by score; alarms are stacked on top of the others, and each has a stroke below "
    "the axis. The axis is logarithmic where the scores span much."
)


def _ranked(ranked: Sequence[ScoredRow], images: Images, called: int) -> list[Html]:
    text = pages.paragraph(
        f"The {len(ranked)} highest scores, the highest first; framed: called anomalous. "
        f"{called} rows were called anomalous in all."
    )
    if not any(_is_image(row.name) for row in ranked):
        return [text, pages.paragraph("The names are not those of image files: see the table.")]
    root = images.root
    outside = [not images.follow_names and leads_outside(root, row.name) for row in ranked]
    pictures = [
        None if out else _thumbnail(root, row.name, images.megapixels)
        for row, out in zip(ranked, outside, strict=True)
    ]
    cards = [
        (picture, {f"{place}.": row.name, **_facts(row)}, row.anomalous)
        for place, (row, picture) in enumerate(zip(ranked, pictures, strict=True), 1)
    ]
    blocks = [text]
    if any(outside):
        reason = f"{sum(outside)} of {len(ranked)} names lead out of {root}. To show these images:"
        command = "python -m experiments.report --scores=FILE --data_dir=FOLDER --follow_names"
        blocks.append(pages.missing(reason, f"{command} --out=DIR"))
    lost = sum(picture is None for picture in pictures) - sum(outside)
    if lost:
        reason = f"{lost} of {len(ranked)} images cannot be read in {root}. With the right folder:"
        command = "python -m experiments.report --scores=FILE --data_dir=FOLDER --out=DIR"
        blocks.append(pages.missing(reason, command))
    return [*blocks, pages.gallery(cards)]


def _facts(row: ScoredRow) -> dict[str, str]:
    return {
        "score": f"{row.score:.4g}",
        "p-value": "—" if row.p_value is None else f"{row.p_value:.3g}",
        "called": "anomalous" if row.anomalous else "normal",
    }


def _is_image(name: str) -> bool:
    return is_image_name(name)


def leads_outside(root: Path, name: str) -> bool:
    """Says whether a name leads out of a folder: by `..`, from the root, or over links (touches
    files)."""
    try:
        return not (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        # A name that is none, or links in a circle: no file, wherever.
        return False


def _thumbnail(root: Path, name: str, megapixels: int | None) -> Picture | None:
    """Returns a small picture of an image file (touches files), None where it cannot be read."""
    from PIL import Image

    from deepsvdd_jax.datasets.formats.pixels import resize_image

    try:
        # Reading from a pipe or a device might never end.
        path = root / name
        image = read_image(path, megapixels=megapixels) if path.is_file() else None
    except (DataError, OSError, ValueError):
        # ValueError: a name with a null character.
        return None
    if image is None:
        return None
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        stretched = (image.astype(np.float64) - low) / max(high - low, 1e-300)
        image = np.round(255 * stretched).astype(np.uint8)
    height, width = image.shape[:2]
    shrink = max(height, width) / _IMAGE_SIDE
    if shrink > 1:
        image = resize_image(image, (max(1, round(height / shrink)), max(1, round(width / shrink))))
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
    return Picture(buffer.getvalue(), f"Image {name}", kind="photo")


def _table(ranked: Sequence[ScoredRow]) -> Html:
    # A name may be long: last, it pushes no figure out of sight.
    lines = [(place, *_facts(row).values(), row.name) for place, row in enumerate(ranked, 1)]
    return pages.table(
        ("rank", "score", "p-value", "called", "name"),
        lines,
        "The highest scores. The p-value is the share of normal data that scores as high.",
        strong=[place for place, row in enumerate(ranked) if row.anomalous],
    )
