"""A folder of maps that grows as images arrive, each mapped once, through restarts."""

import io
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli import files, model_images, paths, thresholds
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.maps import flow, run, wishes
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.cli.maps.flow import Map, Pixels
from deepsvdd_jax.cli.maps.folder import DESCRIPTION
from deepsvdd_jax.cli.maps.run import MAP_COLUMNS, REGION_COLUMNS, Limit, Prepared
from deepsvdd_jax.cli.maps.wishes import Wish
from deepsvdd_jax.datasets.dataset import printable
from deepsvdd_jax.datasets.formats.pieces import open_image
from deepsvdd_jax.io.models import Model

# Settings that must be equal for a folder of maps to grow.
_FIXED = ("scores", "kind", "format", "normal_images", "false_alarm_rate", "tile", "overlap")


# A file that is written and removed at once, to learn whether the folder takes files.
_TRIAL = ".trial"


class Arrived(NamedTuple):
    """An image that arrived.

    Attributes:
      pixels: `[height, width, channels]`, resized for the model, of as many bits as the file.
      sides: (height, width) of the file, upright.
      shown: the image under its map.
    """

    pixels: npt.NDArray[Any]
    sides: tuple[int, int]
    shown: npt.NDArray[Any]


def define_flags() -> None:
    """Defines the flags of maps and tiles of images that arrive."""
    wishes.define_map_flags(
        "folder of normal images that were not trained on: they set the threshold of pixels and "
        "the colour scale, of tiled images also the threshold of scores"
    )
    wishes.define_tile_flags()


def wish(values: flags.FlagValues, model: Model, out: Path, read: Sequence[Path]) -> Wish | None:
    """Returns the maps and tiles that the flags of `define_flags` ask for; see `wishes.resolved`.

    Args:
      values: parsed.
      model: that scores.
      out: the table of scores.
      read: files and folders that the command reads.
    """

    def folder_of_maps(read: Sequence[Path]) -> Path:
        return paths.separate_folder("maps", values.maps, (DESCRIPTION,), read)

    return wishes.resolved(values, model, out, read, folder_of_maps)


def read_image(path: Path, model: Model) -> Arrived:
    """Reads an image, for the model and for its overlay (touches files).

    Raises:
      DataError: it cannot be read.
    """
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    wanted = model_images.wanted(model)
    with open_image(path, wanted.channels) as image:
        pixels = image.cut()
        shown = map_folder.shown(image.sides, image.cut, image.reduced)
    resized = pixels if wanted.size is None else resize_image(pixels, wanted.size)
    return Arrived(resized, image.sides, shown)


class GrowingMaps:
    """A folder of maps, one of each image; made by `open_maps`."""

    def __init__(
        self,
        folder: Path,
        ending: str,
        prepared: Prepared,
        limit: Limit | None,
        description: dict[str, Any],
    ) -> None:
        assert prepared.mapped is not None
        self._folder = folder
        self._ending = ending
        self._mapped = prepared.mapped
        self._maxima = prepared.calibrated.maxima
        self._limit = limit
        self._description = description
        self._stems: dict[str, str] = {}
        self._taken: set[str] = set()

    @property
    def mapped(self) -> Callable[[Pixels], Map]:
        """A function from images as the model takes them to their maps `[n, height, width]`."""
        return self._mapped

    @property
    def scratch(self) -> Path | None:
        """A folder for a map that is too large for memory; None takes the usual one."""
        return self._folder if self._folder.is_dir() else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the cells that `write` returns."""
        return (*MAP_COLUMNS, *(REGION_COLUMNS if self._limit is not None else ()))

    def remember(self, names: Iterable[str]) -> None:
        """Reserves the file names of images, which new ones may share but for the ending."""
        for name in names:
            self._stem(name)

    def write(
        self, images: dict[str, Arrived], taken: npt.NDArray[Any]
    ) -> dict[str, tuple[str, ...]]:
        """Writes the maps of images and their overlays (touches files). Files that are there
        already, left by a kill before their rows, are replaced.

        Args:
          images: by name.
          taken: `[n, ...]`, their pixels as the model takes them.

        Returns:
          By name the cells of `columns`.

        Raises:
          WriteError: nothing can be written into the folder. Where other files can, an image whose
            map cannot is named, and its cells are returned as if it could.
        """
        found = {
            name: flow.resized(values, image.sides)
            for (name, image), values in zip(images.items(), self._mapped(taken), strict=True)
        }
        self._describe(list(found.values()))
        return {
            name: self._write(name, images[name].shown, values) for name, values in found.items()
        }

    def write_map(self, name: str, values: Map, shown: npt.NDArray[Any]) -> tuple[str, ...]:
        """Writes one map and its overlay, as `write` does (touches files).

        Args:
          name: of the image.
          values: its map, at its size.
          shown: the image under the map.

        Raises:
          WriteError: nothing can be written into the folder.
        """
        self._describe([values])
        return self._write(name, shown, values)

    def _describe(self, maps: Sequence[Map]) -> None:
        """Writes the description of the maps, if there is none yet or it was removed."""
        if self._description.get("scale") is None:
            medians = [map_folder.median_of(values) for values in maps]
            scale = map_folder.scale_of(medians, [float(values.max()) for values in maps])
            self._description = {**self._description, "scale": list(scale)}
        if not (self._folder / DESCRIPTION).is_file():
            files.write_json(self._folder / DESCRIPTION, self._description)

    def _write(self, name: str, shown: npt.NDArray[Any], values: Map) -> tuple[str, ...]:
        low, high = self._description["scale"]
        threshold = None if self._limit is None else self._limit.threshold
        buffer = io.BytesIO()
        map_folder.save_map(buffer, values, self._ending)
        overlay = map_folder.overlay_png(shown, values, (low, high), threshold)
        stem = self._folder / self._stem(name)
        try:
            files.write_bytes(Path(f"{stem}.{self._ending}"), buffer.getvalue())
            files.write_bytes(Path(f"{stem}.png"), overlay)
        except files.WriteError as error:
            # A full disk may get room again; a path that only this image cannot have never will.
            if not self._takes_files(buffer.getvalue()):
                raise
            print(f"{error}; {printable(name)} has a row and no map", file=sys.stderr)
        place = map_folder.place_of_maximum(values)
        cells = (str(place.row), str(place.column), repr(place.value))
        if self._limit is None:
            return cells
        (p_value,) = thresholds.p_value_cells(self._maxima, [place.value])
        return (*cells, p_value, str(run.marked_pixels(values, self._limit)))

    def _takes_files(self, data: bytes) -> bool:
        """Whether the folder takes a file of as many bytes, which is removed again (touches
        files)."""
        try:
            files.write_bytes(self._folder / _TRIAL, data)
            files.remove(self._folder / _TRIAL)
        except files.WriteError:
            return False
        return True

    def _stem(self, name: str) -> str:
        """Returns the path of an image's map without its ending: that of the image without ending,
        or with it where an earlier image has that one."""
        if name not in self._stems:
            plain = str(PurePosixPath(name).with_suffix(""))
            self._stems[name] = name if plain.lower() in self._taken else plain
            self._taken.add(self._stems[name].lower())
        return self._stems[name]


def open_maps(wish: Wish, prepared: Prepared, out: Path) -> GrowingMaps:
    """Opens a folder of maps, or makes it with the first one (touches files).

    Args:
      wish: of `wish`.
      prepared: for it, of `run.prepare`.
      out: the table of scores.

    Raises:
      ConfigError: too few of them for a rate.
      ResultsError: a folder of other maps.
    """
    assert wish.maps is not None
    limit = run.pixel_limit(wish, prepared.calibrated)
    calibrated = prepared.calibrated
    scale = None
    if limit is not None:
        scale = list(map_folder.scale_of(calibrated.medians.tolist(), calibrated.maxima.tolist()))
    description: dict[str, Any] = {
        "scores": str(out.resolve()),
        "kind": wish.kind,
        "format": wish.ending,
        "scale": scale,
        "threshold": None if limit is None else limit.threshold,
        "false_alarm_rate": None if limit is None else limit.rate,
        "normal_images": len(calibrated.maxima),
        "tile": None if wish.tiling is None else wish.tiling.size,
        "overlap": None if wish.tiling is None else wish.tiling.overlap,
    }
    if (wish.maps / DESCRIPTION).is_file():
        kept = files.read_json(wish.maps / DESCRIPTION)
        _check_same(wish.maps, kept, description)
        description = kept
    return GrowingMaps(wish.maps, wish.ending, prepared, limit, description)


def _check_same(folder: Path, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses a folder whose maps are not comparable with new ones."""
    for name in _FIXED:
        if kept.get(name) != wanted[name]:
            raise ResultsError(
                f"{folder}: its maps have {name} {kept.get(name)!r}, and {wanted[name]!r} is asked "
                "for; give another --maps, or the settings that it was begun with"
            )
    if wanted["threshold"] is None:
        return
    before, now = float(kept["threshold"]), wanted["threshold"]
    if not math.isclose(before, now, rel_tol=1e-4):
        raise ResultsError(
            f"{folder}: its threshold of pixels is {before:.6g}, that of these --normals and this "
            f"model is {now:.6g}; give another --maps"
        )
