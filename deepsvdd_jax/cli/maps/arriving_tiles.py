"""Large images that arrive in a folder, scored and mapped in tiles as `score --tile` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli import model_images
from deepsvdd_jax.cli.maps import flow, run
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.cli.maps.arriving import GrowingMaps
from deepsvdd_jax.cli.maps.flow import Piece, Tiling
from deepsvdd_jax.cli.maps.pictures import Picture, Pictures
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.pieces import open_image
from deepsvdd_jax.io.models import Model


class Judged(NamedTuple):
    """The results of some images.

    Attributes:
      names: of the images that could be read.
      scores: `[n]` of these; of an image in tiles the highest.
      cells: by name, of the further columns of maps; empty without maps.
      unreadable: by name the reason why an image was not scored.
    """

    names: list[str]
    scores: npt.NDArray[np.float32]
    cells: dict[str, tuple[str, ...]]
    unreadable: dict[str, str]


class _Cut(NamedTuple):
    """The tiles of an image, and the image under its map; None without maps."""

    pieces: list[Piece]
    shown: npt.NDArray[Any] | None


def judge(
    root: Path,
    ready: Sequence[str],
    model: Model,
    tiling: Tiling,
    maps: GrowingMaps | None,
    most_bytes: int,
) -> Judged:
    """Scores the first images of a folder in tiles, and writes their maps (touches files).

    Args:
      root: the folder.
      ready: names of images.
      model: that scores.
      tiling: how images are cut.
      maps: where maps go; None makes none.
      most_bytes: of tiles in memory; a larger image is read alone.

    Raises:
      WriteError: no map can be written.
    """
    cut: dict[str, _Cut] = {}
    unreadable: dict[str, str] = {}
    held = 0
    for name in ready:
        try:
            cut[name] = _cut(root, name, model, tiling, maps is not None)
        except (DataError, OSError) as error:
            unreadable[name] = str(error)
            continue
        held += sum(piece.pixels.nbytes for piece in cut[name].pieces)
        if held > most_bytes:
            break
    found = flow.follow(
        (piece for one in cut.values() for piece in one.pieces),
        run.scorer(model),
        None if maps is None else maps.mapped,
        scratch=None if maps is None else maps.scratch,
    )
    scores, cells = [], {}
    for one in found:
        scores.append(one.score)
        shown = cut[one.name].shown
        if maps is not None and one.map is not None and shown is not None:
            cells[one.name] = maps.write_map(one.name, one.map, shown)
    return Judged(list(cut), np.array(scores, np.float32), cells, unreadable)


def _cut(root: Path, name: str, model: Model, tiling: Tiling, is_shown: bool) -> _Cut:
    """Reads an image and cuts it (touches files).

    Raises:
      DataError: it cannot be read, or the model cannot take its tiles.
    """
    with open_image(root / name, model_images.wanted(model).channels) as image:
        picture = Picture(name, image.sides, image.cut, image.reduced)
        pieces = list(flow.pieces_of(Pictures((name,), lambda: iter([picture])), model, tiling))
        shown = map_folder.shown(image.sides, image.cut, image.reduced) if is_shown else None
    return _Cut(pieces, shown)
