"""The true kinds of scored images, where the folders in their names say so."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.datasets import DataError, layout

NORMAL = ""


class Kinds(NamedTuple):
    """The kinds of rows.

    Attributes:
      names: of each row, `NORMAL`, a kind of defect, or None without a folder; empty where no
        folder has a name of normal images.
      problem: why the folders do not tell the kinds; "" without a problem.
    """

    names: tuple[str | None, ...]
    problem: str = ""

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """Which rows are normal, `[n]`."""
        return np.array([name == NORMAL for name in self.names], bool)

    @property
    def defective(self) -> npt.NDArray[np.bool_]:
        """Which rows are defects, `[n]`."""
        return np.array([bool(name) for name in self.names], bool)


def kinds_of(names: Sequence[str]) -> Kinds:
    """Returns which rows are normal, and the kinds of defects of the others, by the folders in
    their names, as `fit` and `threshold` do."""
    if not any(_has_normal_folder(name) for name in names):
        return Kinds(())
    try:
        # A name without a folder tells nothing, and would hide the folder that the others share.
        found = layout.understand([name for name in names if "/" in name], "the scores")
    except DataError as error:
        return Kinds((), str(error))
    if found.normal is None:
        return Kinds((), "the folders in the names do not tell which rows are normal")
    kinds: dict[str, str] = dict.fromkeys((*found.normals, *found.test_normals), NORMAL)
    for part in (found.known_defects, found.defects):
        for kind, paths in part.items():
            if kind != layout.DIRECT:
                kinds |= dict.fromkeys(paths, kind)
    return Kinds(tuple(kinds.get(name) for name in names))


def _has_normal_folder(name: str) -> bool:
    return any(part.lower() in layout.NORMAL_NAMES for part in name.split("/")[:-1])
