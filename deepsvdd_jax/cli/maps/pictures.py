"""Images to map, one after the other: files, or the rows of an array."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.images import tell_partly_read
from deepsvdd_jax.datasets.formats.pieces import Box, OpenImage, open_image

_logger = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]


class Picture(NamedTuple):
    """An image while it is open.

    Attributes:
      name: as in the table of scores.
      sides: (height, width), upright.
      cut: pixels of a box, `[height, width, channels]`.
      reduced: the whole image at a smaller (height, width), for viewing.
    """

    name: str
    sides: tuple[int, int]
    cut: Callable[[Box], Pixels]
    reduced: Callable[[tuple[int, int]], Pixels]


class Pictures(NamedTuple):
    """A sequence of images that can be iterated over several times.

    Attributes:
      names: of all of them; those of files are paths below a folder.
      opened: yields them, each open until the next one; leaves out those that cannot be read where
        the call allows it.
    """

    names: tuple[str, ...]
    opened: Callable[[], Iterator[Picture]]


def of_files(
    root: Path,
    names: Sequence[str],
    channels: int | None,
    megapixels: int | None = None,
    skip_unreadable: bool = False,
) -> Pictures:
    """Returns image files, in the order of their names (touches files when they are opened).

    Args:
      root: folder that the names start from.
      names: of the files.
      channels: 1, 3 or None, see `images.decode_image`.
      megapixels: most of them in an image.
      skip_unreadable: leave out damaged files, with a logged line.
    """

    passes = itertools.count()

    def opened() -> Iterator[Picture]:
        # The problem of a file is logged once.
        is_first = next(passes) == 0
        several: list[Path] = []
        cut: list[Path] = []
        for name in names:
            with contextlib.ExitStack() as stack:
                try:
                    image = stack.enter_context(open_image(root / name, channels, megapixels))
                except DataError as error:
                    if not skip_unreadable:
                        raise
                    if is_first:
                        _logger.warning("skipped %s", error)
                    continue
                if image.has_more:
                    several.append(root / name)
                if image.is_cut:
                    cut.append(root / name)
                yield _picture(name, image)
        if is_first:
            tell_partly_read(several, cut)

    return Pictures(tuple(names), opened)


def _picture(name: str, image: OpenImage) -> Picture:
    return Picture(name, image.sides, image.cut, image.reduced)


def of_array(images: Pixels) -> Pictures:
    """Returns the images `[n, height, width, channels]` of an array, named by their numbers."""

    def opened() -> Iterator[Picture]:
        for number, image in enumerate(images):
            yield _picture_of(str(number), image)

    return Pictures(tuple(map(str, range(len(images)))), opened)


def _picture_of(name: str, image: Pixels) -> Picture:
    def cut(box: Box) -> Pixels:
        return image[box.top : box.top + box.height, box.left : box.left + box.width]

    def reduced(sides: tuple[int, int]) -> Pixels:
        rows, columns = (
            np.arange(count) * side // count
            for count, side in zip(sides, image.shape, strict=False)
        )
        return image[rows][:, columns]

    height, width = image.shape[:2]
    return Picture(name, (height, width), cut, reduced)
