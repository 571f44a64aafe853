"""The flags of maps and tiles, checked and resolved."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from deepsvdd_jax.cli import paths
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps import flow
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.cli.maps.flow import Tiling
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.io.models import Model

with lazily():
    from deepsvdd_jax.detectors import maps as detector_maps

_KINDS = ("objective", "gradient", "occlusion")
_OF_ALL_MAPS = ("map_kind", "map_format", "map_false_alarm_rate")


class Wish(NamedTuple):
    """The maps and tiles that the flags ask for.

    Attributes:
      maps: folder to write maps into; None makes none.
      kind: of the maps, see `detectors.maps`.
      ending: of the files of values.
      normals: folder of normal images that were not trained on; None has none.
      map_rate: share of normals in which some pixel may be marked; None takes the default.
      tiling: how images are cut; None leaves them whole.
      masks: folder of masks; None takes the masks beside the images.
      rate: see `thresholds.chosen_threshold`.
      threshold: see there.
      megapixels: most of them in an image.
      skip_unreadable: leave out damaged files.
    """

    maps: Path | None
    kind: str
    ending: str
    normals: Path | None
    map_rate: float | None
    tiling: Tiling | None = None
    masks: Path | None = None
    rate: float | None = None
    threshold: float | None = None
    megapixels: int | None = None
    skip_unreadable: bool = False


def define_flags() -> None:
    """Defines the flags of maps and tiles."""
    define_map_flags(
        "folder of normal images that were not trained on: they set the threshold of pixels, of "
        "tiled images also that of scores"
    )
    flags.DEFINE_string(
        "masks", None, "folder of masks of defects to measure the maps with (default: those found)"
    )
    define_tile_flags()


def define_tile_flags() -> None:
    """Defines the flags of tiles alone."""
    flags.DEFINE_integer("tile", None, "cut images into squares of so many pixels", lower_bound=1)
    flags.DEFINE_integer(
        "overlap", None, "pixels by which tiles overlap (default: 0)", lower_bound=0
    )


def define_map_flags(what_normals_do: str) -> None:
    """Defines the flags of maps alone.

    Args:
      what_normals_do: help of `--normals`.
    """
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
    flags.DEFINE_string("normals", None, what_normals_do)
    flags.DEFINE_float(
        "map_false_alarm_rate",
        None,
        "share of normal images in which some pixel may be marked (default: 0.01, or the lowest "
        "rate that --normals carry)",
    )


def refuse_without_maps(values: flags.FlagValues, more: Sequence[str] = ()) -> None:
    """Refuses flags that only --maps reads, where that is not given.

    Args:
      values: parsed.
      more: names of such flags beside those of all maps.

    Raises:
      ConfigError: one of them is given.
    """
    for name in (*_OF_ALL_MAPS, *more):
        if values[name].value != values[name].default:
            raise ConfigError(f"--{name} has no effect here: it is of --maps")


def checked_kind(
    values: flags.FlagValues, model: Model, maps: Path, normals: Path | None, out: Path
) -> str:
    """Returns the kind of the maps that flags ask for.

    Args:
      values: parsed.
      model: that scores.
      maps: folder to write them into.
      normals: folder of normal images.
      out: the table of scores.

    Raises:
      ConfigError: the model has no such map, or something that it needs is not given.
    """
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
    return kind


def tell_of_own_normals(normals: Path | None, read: Sequence[Path]) -> None:
    """Prints a line where normal images are among the scored ones."""
    if normals is not None and any(_overlap(normals, path) for path in read):
        print(
            f"{normals} is scored too: of its own images p-values and marked pixels say nothing",
            file=sys.stderr,
        )


def wish(values: flags.FlagValues, model: Model, out: Path, read: Sequence[Path]) -> Wish | None:
    """Returns the maps and tiles that the flags of `define_flags` ask for; see `resolved`.

    Args:
      values: parsed.
      model: that scores.
      out: the table of scores.
      read: files and folders that the command reads.
    """
    masks = None if values.masks is None else paths.to_read("masks", values.masks)
    also_read = () if masks is None else (masks,)

    def folder_of_maps(read: Sequence[Path]) -> Path:
        return paths.new_folder("maps", values.maps, [*read, *also_read])

    found = resolved(values, model, out, read, folder_of_maps, more=("masks",))
    return found and found._replace(
        masks=masks, megapixels=values.max_megapixels, skip_unreadable=values.skip_unreadable
    )


def resolved(
    values: flags.FlagValues,
    model: Model,
    out: Path,
    read: Sequence[Path],
    folder_of_maps: Callable[[Sequence[Path]], Path],
    more: Sequence[str] = (),
) -> Wish | None:
    """Returns the maps and tiles that flags ask for; None where images are scored whole, without
    maps.

    Args:
      values: parsed.
      model: that scores.
      out: the table of scores.
      read: files and folders that the command reads.
      folder_of_maps: checks `--maps`, given all paths that are read.
      more: see `refuse_without_maps`.

    Raises:
      ConfigError: flags without effect, flags that the model cannot follow, or a folder that holds
        something else.
    """
    tiling = flow.check_tiling(values.tile, values.overlap, model)
    if values.maps is None:
        refuse_without_maps(values, more)
        if values.normals is not None and tiling is None:
            raise ConfigError("--normals has no effect here: it is of --maps and --tile")
        if tiling is None:
            return None
    normals = None if values.normals is None else paths.to_read("normals", values.normals)
    tell_of_own_normals(normals, read)
    maps, kind = None, "none"
    if values.maps is not None:
        maps = folder_of_maps([*read, *([] if normals is None else [normals])])
        kind = checked_kind(values, model, maps, normals, out)
    return Wish(
        maps=maps,
        kind=kind,
        ending=values.map_format,
        normals=normals,
        map_rate=values.map_false_alarm_rate,
        tiling=tiling,
        rate=values.false_alarm_rate,
        threshold=values.threshold,
    )


def _overlap(one: Path, other: Path) -> bool:
    found = one.resolve(), other.resolve()
    return found[0].is_relative_to(found[1]) or found[1].is_relative_to(found[0])
