"""Decides from their paths alone what the images below a folder are: normal, a defect, a mask.

Pure: paths in, a `Layout` out. `files.find_images` lists the paths, `folder.load_folder` reads the
images. It understands these layouts, each also below a single folder that holds all of it:

* images alone, or in folders none of which is named as below: nothing tells them apart;
* `good/` (`normal/`, `ok/`) beside other folders, `defects/<kind>/` among them;
* `train/` and `test/<class>/`, the images directly in `train/` or in `train/<class>/`: MVTec AD's;
* masks of defects in `masks/`, `mask/` or `ground_truth/`, or beside their images as `x_mask.png`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from posixpath import commonprefix, splitext
from typing import NamedTuple

from deepsvdd_jax.datasets.dataset import DataError

NORMAL_NAMES = ("normal", "good", "ok")
MASK_NAMES = ("mask", "masks", "ground_truth", "groundtruth")
DEFECT_NAMES = (
    *("defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal", "bad"),
    *("ng", "nok", "ko", "fault", "faults", "faulty", "broken", "damaged", "reject", "rejects"),
)
"""Folders that hold defects; their own folders, where they have some, are the kinds."""

DIRECT = "."
"""Class of the images that lie in a part's folder itself, beside its class folders."""

_MASK_ENDING = re.compile(r"(?<=.)[_-](mask|gt)$", re.IGNORECASE)


class LeftOut(NamedTuple):
    """A path that is not used, relative to the folder that was searched, and the reason."""

    path: str
    reason: str


class Layout(NamedTuple):
    """The images below a folder by what they are; paths are relative to it, with slashes, sorted.

    Attributes:
      classes: names of all classes, in the order of their numbers.
      train: images to train on by class, in the order of `classes`.
      test: images to test on by class: kinds of defects, and normal ones where they are apart.
      normal: the class that is normal; None where no name tells.
      has_parts: whether the folder itself sets test images apart from training images.
      masks: for each image that has some, the masks whose union marks its defect.
      left_out: images and masks with no place in the layout.
    """

    classes: tuple[str, ...]
    train: Mapping[str, tuple[str, ...]]
    test: Mapping[str, tuple[str, ...]]
    normal: str | None
    has_parts: bool
    masks: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]

    @property
    def normals(self) -> tuple[str, ...]:
        """Normal images to train on."""
        return self.train.get(self.normal, ()) if self.normal is not None else ()

    @property
    def test_normals(self) -> tuple[str, ...]:
        """Normal images that are not trained on."""
        return self.test.get(self.normal, ()) if self.normal is not None else ()

    @property
    def defects(self) -> dict[str, tuple[str, ...]]:
        """Images to test on by kind of defect."""
        return {name: paths for name, paths in self.test.items() if name != self.normal}

    @property
    def known_defects(self) -> dict[str, tuple[str, ...]]:
        """Defects in the training part, by kind."""
        return {name: paths for name, paths in self.train.items() if name != self.normal}


def understand(paths: Iterable[str], source: str) -> Layout:
    """Decides from the paths of images what each of them is; see the module's docstring.

    Args:
      paths: of image files, relative to the folder, with slashes.
      source: the folder, for messages.

    Raises:
      DataError: masks alone, or several folders that each hold train/ and test/.
    """
    ordered = sort_paths(paths)
    images, masks = _without_masks(ordered)
    if masks and not images:
        raise DataError(f"{source}: holds masks ({masks[0]}, ...) and no images")
    depth = _shared_depth(images)
    _check_one_data_set(images, depth, source)
    parts = _Parts({}, {}, [])
    for path in images:
        _place(parts, path, _parts_of(path)[depth:])
    layout = _without_train(parts) if not parts.train else _with_train(parts)
    return _with_masks(layout, masks)


def choose(layout: Layout, name: str, source: str) -> Layout:
    """Returns the layout with another class as the normal one.

    Args:
      layout: of a folder.
      name: of a class, or its number in `layout.classes`.
      source: the folder, for messages.

    Raises:
      DataError: no such class, or one without training images.
    """
    if name not in layout.classes and name.isdecimal() and int(name) < len(layout.classes):
        name = layout.classes[int(name)]
    if name not in layout.classes:
        shown = ", ".join(f"{i} ({label})" for i, label in enumerate(layout.classes[:10]))
        raise DataError(f"{source}: normal_class is {name!r}; its classes are {shown}")
    if layout.has_parts:
        if not layout.train.get(name):
            raise DataError(
                f"{source}: normal_class is {name!r}, which has no training images; those are of"
                f" {', '.join(layout.train)}"
            )
        return layout._replace(normal=name)
    everything = {**layout.train, **layout.test}
    stray = tuple(LeftOut(path, _NO_CLASS) for path in everything.pop(DIRECT, ()))
    train = {name: everything.pop(name)}
    test = {label: everything[label] for label in layout.classes if label in everything}
    left_out = (*layout.left_out, *stray)
    return layout._replace(train=train, test=test, normal=name, left_out=left_out)


def all_normal(layout: Layout, source: str) -> Layout:
    """Returns the layout of a folder without telling names: every image is normal.

    Raises:
      DataError: a folder is named as defects are, and none says which images are normal.
    """
    suspects = [name for name in layout.train if _is_defect(name.removeprefix(_TEST))]
    suspects += [name for name in layout.train if f"{name}/".startswith(_TEST)]
    if suspects:
        raise DataError(
            f"{source}: holds {suspects[0]}/ and no folder named {', '.join(NORMAL_NAMES)}; name"
            " that of the normal images so, or pass --normal_class=NAME"
        )
    merged = sort_paths(path for paths in layout.train.values() for path in paths)
    name = NORMAL_NAMES[0]
    return layout._replace(classes=(name,), train={name: merged}, normal=name)


def images_to_score(layout: Layout) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    """Returns the images to score, and those that are left out.

    Scored are all images, or only the test part where the folder has one.
    """
    if layout.has_parts and layout.test:
        trained = (LeftOut(path, "the training part") for path in _joined(layout.train))
        return _joined(layout.test), (*trained, *layout.left_out)
    return every_image(layout)


def every_image(layout: Layout) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    """Returns the images of all parts and classes, and what is left out."""
    stray = [item.path for item in layout.left_out if item.reason == _NO_CLASS]
    rest = tuple(item for item in layout.left_out if item.reason != _NO_CLASS)
    everything = (*_joined(layout.train), *_joined(layout.test), *stray)
    return sort_paths(everything), rest


def is_mask_name(path: str) -> bool:
    """Returns whether a path alone says that it is a mask: in a folder of masks, or named
    `x_mask.png`, whose image may be elsewhere or not there yet."""
    return _mask_depth(path) is not None or _MASK_ENDING.search(splitext(path)[0]) is not None


def sort_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Sorts paths folder by folder: `a/z` comes before `a.b`."""
    return tuple(sorted(paths, key=lambda path: path.split("/")))


class _Parts(NamedTuple):
    """Images by part and class; `others` are those in no part."""

    train: dict[str, list[str]]
    test: dict[str, list[str]]
    others: list[tuple[str, tuple[str, ...]]]


_TEST = "test/"
_NO_CLASS = "an image in no folder of a class"
_NO_PART = "beside train/ and test/"
_NO_IMAGE = "a mask of no image"


def _without_masks(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits paths into images and masks."""
    stems = {path: splitext(path)[0] for path in paths}
    known = set(stems.values())
    images: list[str] = []
    masks: list[str] = []
    for path, stem in stems.items():
        beside = _MASK_ENDING.sub("", stem)
        is_mask = _mask_depth(path) is not None or (beside != stem and beside in known)
        (masks if is_mask else images).append(path)
    return images, masks


def _parts_of(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _mask_depth(path: str) -> int | None:
    """Returns how many folders lead to a folder of masks, None outside of one."""
    folders = _parts_of(path)[:-1]
    return next((i for i, name in enumerate(folders) if name.lower() in MASK_NAMES), None)


def _shared_depth(images: Sequence[str]) -> int:
    """Returns how many leading folders all images share whose names have no meaning here."""
    telling = (*NORMAL_NAMES, *DEFECT_NAMES, "train")
    shared = commonprefix([_parts_of(path)[:-1] for path in images])
    found = (depth for depth, name in enumerate(shared) if name.lower() in telling)
    return next(found, len(shared))


def _check_one_data_set(images: Sequence[str], depth: int, source: str) -> None:
    found: dict[str, set[str]] = {}
    for path in images:
        folders = _parts_of(path)[depth:-1]
        if len(folders) > 1:
            found.setdefault(folders[0], set()).add(folders[1].lower())
    several = [name for name, below in found.items() if {"train", "test"} <= below]
    if several:
        raise DataError(
            f"{source}: holds {len(several)} data sets with train/ and test/"
            f" ({', '.join(several[:3])}{', ...' if len(several) > 3 else ''}); give one of them"
        )


def _place(parts: _Parts, path: str, names: tuple[str, ...]) -> None:
    """Puts an image into its part; `names` is its path below the shared folders."""
    part = {"train": parts.train, "test": parts.test}.get(names[0].lower())
    if part is None or len(names) == 1:
        parts.others.append((path, names))
    else:
        part.setdefault(_class_of(names[1:-1]), []).append(path)


def _class_of(folders: Sequence[str]) -> str:
    """Returns the class of an image from its folders below a part: the first of them."""
    if not folders:
        return DIRECT
    if folders[0].lower() in DEFECT_NAMES and len(folders) > 1:
        return folders[1]
    return folders[0]


def _with_train(parts: _Parts) -> Layout:
    left_out = tuple(LeftOut(path, _NO_PART) for path, _ in parts.others)
    direct = set(parts.train) == {DIRECT}
    if direct:
        normal: str | None = NORMAL_NAMES[0]
    else:
        named = [name for name in sorted(parts.train) if name.lower() in NORMAL_NAMES]
        alone = [name for name in parts.train if len(parts.train) == 1 and not _is_defect(name)]
        normal = next(iter([*named, *alone]), None)
    rename = {DIRECT: NORMAL_NAMES[0]} if direct else {}
    train = _merged(parts.train, normal, rename)
    test = _merged(parts.test, normal, {})
    names = sorted({*train, *test} - {DIRECT})
    if direct:
        names = [NORMAL_NAMES[0], *(name for name in names if name != NORMAL_NAMES[0])]
    return _layout(names, train, test, normal=normal, has_parts=True, left_out=left_out)


def _without_train(parts: _Parts) -> Layout:
    depth = next((found for _, names in parts.others if (found := _normal_depth(names)) >= 0), -1)
    if depth < 0:
        return _undivided(parts)
    train: dict[str, list[str]] = {}
    test = dict(parts.test)
    left_out: list[LeftOut] = []
    for path, names in parts.others:
        folders = names[:-1]
        if _normal_depth(names) >= 0:
            train.setdefault(folders[_normal_depth(names)], []).append(path)
        elif not folders:
            left_out.append(LeftOut(path, _NO_CLASS))
        else:
            below = folders[min(depth, len(folders) - 1) :]
            test.setdefault(_class_of(below), []).append(path)
    normal = min(train)
    merged, tested = _merged(train, normal, {}), _merged(test, normal, {})
    classes = sorted({*merged, *tested} - {DIRECT})
    return _layout(
        classes, merged, tested, normal=normal, has_parts=bool(parts.test), left_out=tuple(left_out)
    )


def _undivided(parts: _Parts) -> Layout:
    """Returns the layout of images that no name tells apart."""
    found: dict[str, list[str]] = {}
    for path, names in parts.others:
        found.setdefault(names[0] if len(names) > 1 else DIRECT, []).append(path)
    for name, paths in parts.test.items():
        found.setdefault(_TEST[:-1] if name == DIRECT else _TEST + name, []).extend(paths)
    if set(found) == {DIRECT}:
        name = NORMAL_NAMES[0]
        return _layout([name], {name: found[DIRECT]}, {}, normal=name, has_parts=False, left_out=())
    return _layout(
        sorted(found.keys() - {DIRECT}), found, {}, normal=None, has_parts=False, left_out=()
    )


def _normal_depth(names: Sequence[str]) -> int:
    """Returns where in a path a folder is named as normal images are, -1 where none is."""
    return next((i for i, name in enumerate(names[:-1]) if name.lower() in NORMAL_NAMES), -1)


def _is_defect(name: str) -> bool:
    return name.lower() in DEFECT_NAMES


def _merged(
    part: Mapping[str, list[str]], normal: str | None, rename: Mapping[str, str]
) -> dict[str, list[str]]:
    """Returns a part whose classes with a normal name are one, named `normal`."""
    merged: dict[str, list[str]] = {}
    for name, paths in part.items():
        same = normal is not None and name.lower() in NORMAL_NAMES
        merged.setdefault(rename.get(name, str(normal) if same else name), []).extend(paths)
    return merged


def _layout(
    names: Sequence[str],
    train: Mapping[str, list[str]],
    test: Mapping[str, list[str]],
    normal: str | None,
    has_parts: bool,
    left_out: tuple[LeftOut, ...],
) -> Layout:
    order = [*names, DIRECT]
    sorted_train, sorted_test = (
        {name: sort_paths(part[name]) for name in order if name in part} for part in (train, test)
    )
    return Layout(
        classes=tuple(names),
        train=sorted_train,
        test=sorted_test,
        normal=normal,
        has_parts=has_parts,
        masks={},
        left_out=left_out,
    )


def _with_masks(layout: Layout, masks: Sequence[str]) -> Layout:
    """Returns the layout with each mask at its image."""
    by_stem: dict[str, list[tuple[str, ...]]] = {}
    paths: dict[tuple[str, ...], str] = {}
    for path in (*_joined(layout.train), *_joined(layout.test)):
        key = _parts_of(splitext(path)[0])
        paths[key] = path
        by_stem.setdefault(key[-1], []).append(key)
    normals = set(layout.normals) | set(layout.test_normals)
    found: dict[str, tuple[str, ...]] = {}
    left_out = []
    for mask in masks:
        image = _image_of(mask, by_stem, paths, normals)
        if image is None:
            left_out.append(LeftOut(mask, _NO_IMAGE))
        else:
            found[image] = (*found.get(image, ()), mask)
    return layout._replace(masks=found, left_out=(*layout.left_out, *left_out))


def _image_of(
    mask: str,
    by_stem: Mapping[str, list[tuple[str, ...]]],
    paths: Mapping[tuple[str, ...], str],
    normals: set[str],
) -> str | None:
    """Returns the image whose path ends as the mask's does below its folder of masks."""
    stem = _parts_of(splitext(mask)[0])
    depth = _mask_depth(mask)
    below = stem if depth is None else stem[depth + 1 :]
    # MVTec LOCO has a folder of masks for each image, `<kind>/000/000.png`.
    for key in ((*below[:-1], _MASK_ENDING.sub("", below[-1])), below, below[:-1]):
        if not key:
            continue
        found = [paths[other] for other in by_stem.get(key[-1], ()) if other[-len(key) :] == key]
        if len(found) > 1:
            found = [path for path in found if path not in normals]
        if len(found) == 1:
            return found[0]
    return None


def _joined(part: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(path for paths in part.values() for path in paths)
