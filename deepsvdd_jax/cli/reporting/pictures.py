"""Collects the pictures of a page under their file names; formats numbers for several sections."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.pages import Picture
from deepsvdd_jax.viz.plots import Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Page(NamedTuple):
    """A report: the HTML text, and its pictures by file name."""

    html: str
    pictures: dict[str, bytes]


class Pictures(NamedTuple):
    """Collects the pictures of a page under their file names."""

    files: dict[str, bytes]

    def panels(
        self,
        name: str,
        alt: str,
        panels: int,
        draw: "Callable[[Layout], Figure]",
        layouts: tuple[Layout, Layout] = (plots.WIDE, plots.NARROW),
    ) -> Picture:
        """Draws small multiples, and a second version for narrow screens where they would not
        fit."""
        wide = plots.png_bytes(draw(layouts[0]))
        fits = panels <= layouts[1].columns
        narrow = None if fits else plots.png_bytes(draw(layouts[1]))
        self.files[f"{name}.png"] = wide
        return Picture(wide, alt, narrow)

    def photo_panels(
        self,
        name: str,
        alt: str,
        panels: Mapping[str, npt.NDArray[Any]],
        layouts: tuple[Layout, Layout] = (plots.WIDE, plots.NARROW),
    ) -> Picture:
        """Draws images as small multiples."""
        draw = functools.partial(plots.picture_figure, panels)
        return self.panels(name, alt, len(panels), draw, layouts)._replace(kind="photo")

    def photo(self, name: str, alt: str, figure: "Figure") -> Picture:
        """Draws a figure of images, whose colours dark screens keep."""
        png = plots.png_bytes(figure)
        self.files[f"{name}.png"] = png
        return Picture(png, alt, kind="photo")


def comma(values: Sequence[object]) -> str:
    """Returns values as `1, 2, 3`."""
    return ", ".join(str(value) for value in values)


def count(number: int, one: str, many: str) -> str:
    """Returns a number and its noun, as `2 runs`."""
    return f"{number} {one if number == 1 else many}"


def duration(seconds: float) -> str:
    """Returns a time in its largest fitting unit, as `3 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
