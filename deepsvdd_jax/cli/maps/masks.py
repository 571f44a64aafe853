"""Finds the masks of defects for images, and reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.datasets import DataError, find_images
from deepsvdd_jax.datasets.formats.pieces import open_image
from deepsvdd_jax.datasets.layout import NORMAL_NAMES, Layout

_ENDINGS = ("_mask", "-mask", "_gt", "-gt")


class Masks(NamedTuple):
    """Masks by image; an image without one has no defect.

    Attributes:
      root: folder that the masks' paths start from.
      of: for each image that has masks, those whose union marks its defect.
    """

    root: Path
    of: Mapping[str, tuple[str, ...]]


def from_layout(root: Path, layout: Layout, names: Sequence[str]) -> Masks | None:
    """Returns the masks that lie with the images, None where there are none.

    Raises:
      DataError: a defect without a mask.
    """
    scored = set(names)
    of = {name: masks for name, masks in layout.masks.items() if name in scored}
    if not of:
        return None
    kinds = (*layout.defects.values(), *layout.known_defects.values())
    _check_defects([name for paths in kinds for name in paths if name in scored], of)
    return Masks(root, of)


def from_folder(folder: Path, names: Sequence[str]) -> Masks:
    """Returns the masks of a folder (touches files): `<kind>/<name>.png`, or `<name>_mask.png`, of
    an image `.../<kind>/<name>.jpg`.

    Raises:
      DataError: a mask without an image, or of several, or an image in no folder of normal ones
        without a mask.
    """
    found = find_images(folder).images
    if not found:
        raise DataError(f"{folder}: no masks in it")
    stems = {name: PurePosixPath(name).with_suffix("").parts for name in names}
    of: dict[str, tuple[str, ...]] = {}
    for mask in found:
        image = _image_of(folder, mask, stems)
        of[image] = (*of.get(image, ()), mask)
    _check_defects([name for name in names if not _is_normal(name)], of)
    return Masks(folder, of)


def _image_of(folder: Path, mask: str, stems: Mapping[str, tuple[str, ...]]) -> str:
    parts = PurePosixPath(mask).with_suffix("").parts
    ending = next((end for end in _ENDINGS if parts[-1].lower().endswith(end)), "")
    plain = (*parts[:-1], parts[-1][: len(parts[-1]) - len(ending)])
    for wanted in (plain, parts):
        matches = [name for name, stem in stems.items() if stem[-len(wanted) :] == wanted]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise DataError(
                f"{folder / mask}: a mask of {len(matches)} images ({matches[0]}, {matches[1]}, "
                "...); put masks into folders named as the images' are"
            )
    raise DataError(f"{folder / mask}: a mask without an image of that name among those scored")


def _is_normal(name: str) -> bool:
    return any(part.lower() in NORMAL_NAMES for part in PurePosixPath(name).parts[:-1])


def _check_defects(defects: Sequence[str], of: Mapping[str, tuple[str, ...]]) -> None:
    without = [name for name in defects if name not in of]
    if without:
        raise DataError(
            f"{len(without)} images have no mask ({without[0]}{', ...' if without[1:] else ''}), "
            f"and lie in no folder named {', '.join(NORMAL_NAMES)}; give one to each of them, all "
            "black where nothing is wrong"
        )


def read_mask(masks: Masks, name: str, sides: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Returns which pixels of an image are marked, `[height, width]` (touches files): those that
    are at least half as bright as the brightest of their mask, since borders are often smoothed.

    Raises:
      DataError: a mask of another size than its image, or one that cannot be read.
    """
    marked = np.zeros(sides, bool)
    for path in masks.of.get(name, ()):
        with open_image(masks.root / path) as image:
            if image.sides != sides:
                raise DataError(
                    f"{masks.root / path}: {image.sides[0]}x{image.sides[1]} pixels, but its image "
                    f"{name} has {sides[0]}x{sides[1]}"
                )
            pixels = image.cut()
        brightest = pixels.max()
        if brightest > 0:
            marked |= (pixels >= brightest / 2).any(axis=2)
    return marked
