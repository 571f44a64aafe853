"""The folder of maps: a file of values and an overlay for each image, one colour scale for all."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli import files
from deepsvdd_jax.cli.maps.flow import Map
from deepsvdd_jax.cli.maps.pictures import Pictures
from deepsvdd_jax.datasets.formats.pieces import Box
from deepsvdd_jax.io import atomic
from deepsvdd_jax.viz import overlays

FORMATS = ("npy", "tif")
DESCRIPTION = "maps.json"

# Longer side of an overlay; a larger image is shown smaller.
_LONGEST_OVERLAY = 2048


class MapFile(NamedTuple):
    """A written map: its image, its size, its median and its maximum."""

    name: str
    sides: tuple[int, int]
    median: float
    maximum: float


class Place(NamedTuple):
    """The position of a map's highest value, in pixels of the image, and the value; the first of
    equal ones."""

    row: int
    column: int
    value: float


def place_of_maximum(values: Map) -> Place:
    """Returns the place of the highest value of a map `[height, width]`."""
    row, column = divmod(int(np.argmax(values)), values.shape[1])
    return Place(row, column, float(values[row, column]))


def median_of(values: Map) -> float:
    """Returns the median of a map; for one larger than memory the median of some of its rows."""
    return float(np.median(values[:: max(1, values.size // 10**7)]))


def scale_of(medians: Sequence[float], maxima: Sequence[float]) -> tuple[float, float]:
    """Returns the colour scale of maps: from the median of their medians to the highest value."""
    return float(np.median(medians)), float(max(maxima))


def save_map(file: BinaryIO, values: Map, ending: str) -> None:
    """Writes a map into an open file, in one of `FORMATS`."""
    if ending == "npy":
        np.save(file, values, allow_pickle=False)
    else:
        _image_of(np.asarray(values)).save(file, format="TIFF")


def shown(
    sides: tuple[int, int],
    cut: Callable[[Box], npt.NDArray[Any]],
    reduced: Callable[[tuple[int, int]], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Returns an image as its overlay shows it, a large one at a smaller size; arguments are those
    of a `Picture`."""
    longest = max(sides)
    if longest <= _LONGEST_OVERLAY:
        return cut(Box(0, 0, *sides))
    height, width = (max(1, side * _LONGEST_OVERLAY // longest) for side in sides)
    return reduced((height, width))


def overlay_png(
    image: npt.NDArray[Any], values: Map, scale: tuple[float, float], threshold: float | None
) -> bytes:
    """Returns the overlay of an image as a PNG file.

    Args:
      image: of `shown`.
      values: its map, at the size of the whole image.
      scale: see `overlays.overlay`.
      threshold: see there.
    """
    small = np.asarray(values)
    if image.shape[:2] != values.shape:
        small = overlays.reduce_map(values, (image.shape[0], image.shape[1]))
    buffer = io.BytesIO()
    _image_of(overlays.overlay(image, small, scale, threshold)).save(buffer, format="PNG")
    return buffer.getvalue()


def stems(names: Sequence[str]) -> dict[str, str]:
    """Returns for each image the path of its map without ending: the image's path without ending,
    or with it where two images of a folder differ only there."""
    plain = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    counts: dict[str, int] = {}
    for stem in plain.values():
        counts[stem.lower()] = counts.get(stem.lower(), 0) + 1
    return {name: name if counts[stem.lower()] > 1 else stem for name, stem in plain.items()}


class MapFolder:
    """A folder of maps that is being written: a draft until `keep`."""

    def __init__(self, draft: Path, path: Path, names: Sequence[str], ending: str) -> None:
        self.draft = draft
        self.written: list[MapFile] = []
        self._path = path
        self._stems = stems(names)
        self._ending = ending

    def file_of(self, name: str, ending: str) -> Path:
        """Returns where a file of an image is."""
        return self.draft / f"{self._stems[name]}.{ending}"

    def write(self, name: str, values: Map) -> Place:
        """Writes the map of an image (touches files); returns the place of its maximum."""
        path = self.file_of(name, self._ending)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                save_map(file, values, self._ending)
        except OSError as error:
            raise _write_error(self._path, error) from None
        place = place_of_maximum(values)
        self.written.append(
            MapFile(name, (values.shape[0], values.shape[1]), median_of(values), place.value)
        )
        return place

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Returns a map that was written (touches files), of an npy file without reading it all."""
        path = self.file_of(name, self._ending)
        if self._ending == "npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        from PIL import Image

        with Image.open(path) as image:
            return np.array(image, np.float32)

    def scale(self) -> tuple[float, float]:
        """Returns the colour scale of all overlays."""
        return scale_of([one.median for one in self.written], [one.maximum for one in self.written])

    def draw(self, pictures: Pictures, threshold: float | None) -> None:
        """Writes the overlays of all maps that were written (touches files)."""
        scale = self.scale()
        known = {one.name for one in self.written}
        for picture in pictures.opened():
            if picture.name not in known:
                continue
            image = shown(picture.sides, picture.cut, picture.reduced)
            png = overlay_png(image, self.read(picture.name), scale, threshold)
            try:
                self.file_of(picture.name, "png").write_bytes(png)
            except OSError as error:
                raise _write_error(self._path, error) from None

    def keep(self, description: dict[str, Any]) -> None:
        """Writes the description of the maps, and renames the draft to the folder (touches
        files)."""
        files.write_json(self.draft / DESCRIPTION, description)
        try:
            # The folder was empty before the work. It may not be replaceable, as the mount point of
            # a disk.
            if self._path.is_dir() and any(self._path.iterdir()):
                raise FileExistsError(errno.EEXIST, "it has been filled meanwhile")
            try:
                os.replace(self.draft, self._path)
            except OSError:
                if not self._path.is_dir():
                    raise
                for entry in self.draft.iterdir():
                    shutil.move(entry, self._path / entry.name)
        except OSError as error:
            raise _write_error(self._path, error) from None


@contextmanager
def new_folder(path: Path, names: Sequence[str], ending: str) -> Iterator[MapFolder]:
    """Gives a folder of maps to be written (touches files); a draft that was not kept is removed.

    Args:
      path: of the folder, missing or empty.
      names: of all images that may get a map.
      ending: of the files of values, one of `FORMATS`.
    """
    target = path.resolve()
    draft = atomic.draft_of(target)
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise _write_error(path, error) from None
    try:
        yield MapFolder(draft, target, names, ending)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _image_of(pixels: npt.NDArray[Any]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _write_error(path: Path, error: OSError) -> files.WriteError:
    return files.WriteError(f"cannot write {path}: {error.strerror or error}")
