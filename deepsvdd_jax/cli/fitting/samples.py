"""Loads the samples of a fit: normal samples, labelled defects, and those to test on."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.maps import masks
from deepsvdd_jax.configs import ConfigError, DataConfig
from deepsvdd_jax.datasets import DataError, Dataset, Layout, folder
from deepsvdd_jax.datasets.dataset import printable
from deepsvdd_jax.datasets.formats.pieces import open_image

Images = npt.NDArray[Any]
Regions = npt.NDArray[np.bool_]


class Defects(NamedTuple):
    """Labelled defects: images or rows `[n, ...]`, the kind of each, and the pixels that its masks
    mark, bool `[n, height, width]`, no pixel where it has no mask; None where masks are not
    read."""

    images: Images
    kinds: tuple[str, ...]
    regions: Regions | None = None


class Samples(NamedTuple):
    """The samples that a detector is trained on, and those that it is tested on.

    Attributes:
      images: `[n, ...]`, all normal.
      test_images: `[m, ...]`, empty without a test part.
      test_kinds: `[m]`, kinds of defects; "" is normal.
      normal: name of the normal class.
      has_test_part: whether the source itself has a test part with defects.
      read_defects: reads the defects that are not among the test images (touches files).
      feature_names: columns of a table.
      names: of the images or rows, `[n]`, if they have names.
      pixel_range: see `Dataset.pixel_range`.
      places: in words, where the normal samples come from.
      test_regions: of the test images, see `Defects`.
    """

    images: Images
    test_images: Images
    test_kinds: tuple[str, ...]
    normal: str
    has_test_part: bool
    read_defects: Callable[[], Defects]
    feature_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    pixel_range: tuple[float, float] | None = None
    places: str = ""
    test_regions: Regions | None = None

    @property
    def test_labels(self) -> npt.NDArray[np.uint8]:
        """1 for anomalous test images, `[m]`."""
        return np.array([bool(kind) for kind in self.test_kinds], np.uint8)


def load(
    config: DataConfig,
    normal_class: str | None,
    skip_unreadable: bool = False,
    with_masks: bool = False,
) -> Samples:
    """Loads the samples of a fit (touches files), and prints how many come from where.

    Args:
      config: where it is.
      normal_class: of labelled data, its number or name; None takes the class with a normal name,
        else 0, or all of a folder without telling names.
      skip_unreadable: of a folder: leave out files that cannot be read.
      with_masks: of a folder: read the masks of its defects.

    Raises:
      DataError: no such data, or no such class.
    """
    if config.name == "folder" and config.data_dir is not None:
        return _load_folder(config, normal_class, skip_unreadable, with_masks)
    if skip_unreadable:
        raise ConfigError("--skip_unreadable is for a folder of images")
    dataset = datasets.load(config)
    number = _class_number(dataset, normal_class)
    print(f"normal: class {number}, {dataset.class_names[number]}", file=sys.stderr)
    split = datasets.one_class_split(dataset, number, require_test=False)
    train_defects = np.flatnonzero(dataset.y_train != number)
    trained = Defects(
        dataset.x_train[train_defects],
        tuple(dataset.class_names[label] for label in dataset.y_train[train_defects]),
    )
    tested = dataset.y_test[split.test_indices]
    return Samples(
        images=dataset.x_train[split.train_indices],
        test_images=dataset.x_test[split.test_indices],
        test_kinds=tuple("" if label == number else dataset.class_names[label] for label in tested),
        normal=dataset.class_names[number],
        has_test_part=any(label != number for label in tested),
        read_defects=lambda: trained,
        feature_names=dataset.feature_names,
        names=tuple(dataset.train_names[index] for index in split.train_indices)
        if dataset.train_names
        else (),
        pixel_range=dataset.pixel_range,
        places=f"{config.data_dir or dataset.name}, class {dataset.class_names[number]}",
    )


def _class_number(dataset: Dataset, given: str | None) -> int:
    names = dataset.class_names
    if given is None:
        return next((names.index(name) for name in datasets.NORMAL_NAMES if name in names), 0)
    if given in names:
        return names.index(given)
    if not given.isdecimal() or int(given) >= len(names):
        raise DataError(
            f"{dataset.name}: normal_class is {given!r}; allowed are 0 to {len(names) - 1}, or a "
            "class's name"
        )
    return int(given)


def _load_folder(
    config: DataConfig, normal_class: str | None, skip_unreadable: bool, with_masks: bool
) -> Samples:
    root = Path(str(config.data_dir)).expanduser()
    layout = folder.read_layout(root)
    folder.check_parts(layout, root)
    layout = _with_normal(layout, normal_class, root)
    tested = dict(layout.test)
    tests = datasets.layout.sort_paths(path for paths in tested.values() for path in paths)
    _tell_layout(layout)
    folder.tell_left_out(layout)
    images, names = _read(root, (*layout.normals, *tests), config, skip_unreadable)
    normals = set(layout.normals)
    count = sum(name in normals for name in names)
    if not count:
        raise DataError(f"{root}: none of its {len(normals)} normal images can be read")
    pixel_range = folder.range_of_pixels(config, images[:count])
    images = folder.in_range(images, pixel_range)
    folder.tell_repeated(images[:count], images[count:], names[count:])
    kind_of = {path: kind for kind, paths in layout.defects.items() for path in paths}

    @functools.cache
    def read_defects() -> Defects:
        kinds = {path: kind for kind, paths in layout.known_defects.items() for path in paths}
        if not kinds:
            return Defects(images[:0], (), regions_of(()))
        paths = datasets.layout.sort_paths(kinds)
        found, paths_read = _read(root, paths, config, skip_unreadable)
        found = folder.in_range(found, pixel_range)
        if found.shape[1:] != images.shape[1:]:
            raise DataError(
                f"{root}: {paths_read[0]} has the shape {found.shape[1:]}, normal images "
                f"{images.shape[1:]}; --image_size and --channels make them alike"
            )
        return Defects(found, tuple(kinds[path] for path in paths_read), regions_of(paths_read))

    def regions_of(paths: Sequence[str]) -> Regions | None:
        return _regions(root, layout, paths, images.shape[1:3]) if with_masks else None

    has_test_part = layout.has_parts and bool(layout.defects)
    return Samples(
        images=images[:count],
        test_images=images[count:],
        test_kinds=tuple(kind_of.get(name, "") for name in names[count:]),
        normal=str(layout.normal),
        has_test_part=has_test_part,
        read_defects=read_defects,
        names=tuple(folder.name_in_part(layout, name) for name in names[:count]),
        pixel_range=pixel_range,
        places=f"{root}: {folder.describe_places(names[:count])}",
        # No image of a test part is trained on.
        test_regions=None if has_test_part else regions_of(names[count:]),
    )


def _with_normal(layout: Layout, normal_class: str | None, root: Path) -> Layout:
    if normal_class is not None:
        return datasets.layout.choose(layout, normal_class, str(root))
    if layout.normal is not None:
        return layout
    if layout.has_parts:
        return datasets.layout.choose(layout, next(iter(layout.train)), str(root))
    return datasets.layout.all_normal(layout, str(root))


def _tell_layout(layout: Layout) -> None:
    """Prints how many images come from where."""
    number = layout.classes.index(str(layout.normal))
    normals = layout.normals
    name = f"class {number}, {printable(str(layout.normal))}: " if len(layout.classes) > 1 else ""
    lines = [f"normal: {name}{len(normals)} images: {folder.describe_places(normals)}"]
    if layout.test:
        tests = [path for paths in layout.test.values() for path in paths]
        lines.append(f"to test on: {len(tests)} images: {folder.describe_places(tests)}")
    if layout.known_defects:
        others = [path for paths in layout.known_defects.values() for path in paths]
        lines.append(
            f"defects of the training part, for objectives that learn from labels: {len(others)} "
            f"images: {folder.describe_places(others)}"
        )
    if layout.masks:
        lines.append(f"masks: of {len(layout.masks)} images")
    marked = [path for path in normals if path in layout.masks]
    if marked:
        first = printable(marked[0])
        lines.append(f"{len(marked)} of the normal images have a mask, as defects do: {first}")
    print("\n".join(lines), file=sys.stderr)


def _regions(root: Path, layout: Layout, paths: Sequence[str], size: tuple[int, ...]) -> Regions:
    """Returns the pixels that the masks of images mark, bool `[n, *size]` (touches files)."""
    known = masks.Masks(root, layout.masks)
    regions = np.zeros((len(paths), *size), bool)
    for region, path in zip(regions, paths, strict=True):
        if path in layout.masks:
            with open_image(root / path) as image:
                sides = image.sides
            region[:] = resized_region(masks.read_mask(known, path, sides), size)
    return regions


def resized_region(region: Regions, size: tuple[int, ...]) -> Regions:
    """Returns a region `[height, width]` at another size without losing a marked pixel."""
    grids = [np.arange(new) * old // new for old, new in zip(region.shape, size, strict=True)]
    resized = region[np.ix_(*grids)]
    rows, columns = np.nonzero(region)
    resized[rows * size[0] // region.shape[0], columns * size[1] // region.shape[1]] = True
    return resized


def _read(
    root: Path, paths: Sequence[str], config: DataConfig, skip_unreadable: bool
) -> tuple[Images, list[str]]:
    """Returns images and their paths below the folder."""
    parts = list(
        datasets.iter_images(
            [root / path for path in paths],
            config.image_size,
            config.channels,
            skip_unreadable=skip_unreadable,
            megapixels=config.max_megapixels,
        )
    )
    if not parts:
        raise DataError(f"{root}: none of its {len(paths)} images can be read")
    names = [Path(name).relative_to(root).as_posix() for part, _ in parts for name in part]
    return np.concatenate([images for _, images in parts]), names
