"""A folder of one's own images: `train/` and `test/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.dataset import DataError, Dataset
from deepsvdd_jax.datasets.images import image_files, iter_images

NORMAL_NAMES = ("normal", "good")


def load_folder(config: DataConfig) -> Dataset:
    """Loads images from `<data_dir>/train` and `<data_dir>/test` (touches files).

    Either the training images lie directly in `train/`: they are class 0, 'normal', as are the
    images of `test/normal/` and `test/good/`; every other folder of `test/` is a class of its own,
    1, 2, ... in sorted order. Or they lie in `train/<class>/`: then the classes are the sorted
    names of the folders of `train/` and `test/`. Without `test/` the test set is empty.

    Args:
      config: `image_size` and `channels` convert all images; where they are None all images must
        agree.

    Returns:
      uint8 images `[n, height, width, channels]`, sorted by path, and their file names relative to
      `train/` and `test/`.

    Raises:
      DataError: missing or empty folders, a damaged image, images of different shapes.
    """
    if config.data_dir is None:
        raise DataError("folder: --data_dir is not given; it must hold train/ and test/")
    root = Path(config.data_dir)
    train, test = root / "train", root / "test"
    if not train.is_dir():
        raise DataError(f"{train}: no such folder; put the training images there")
    direct = image_files(train, recursive=False)
    train_folders = _subfolders(train)
    if direct and train_folders:
        raise DataError(
            f"{train}: holds images ({direct[0].name}, ...) and class folders"
            f" ({train_folders[0].name}, ...); use one or the other"
        )
    test_folders = _test_folders(test)
    if direct:
        train_files = [(path, 0) for path in direct]
        names = _one_class_names(test_folders)
    else:
        names = tuple(sorted({path.name for path in (*train_folders, *test_folders)}))
        train_files = _labelled_files(train_folders, names)
    if not train_files:
        raise DataError(f"{train}: no images in it or in its class folders")
    test_files = _labelled_files(test_folders, names)

    paths = [path for path, _ in (*train_files, *test_files)]
    images = np.concatenate(
        [batch for _, batch in iter_images(paths, config.image_size, config.channels)]
    )
    count = len(train_files)
    return Dataset(
        name=config.name,
        x_train=images[:count],
        y_train=np.array([label for _, label in train_files], np.int64),
        x_test=images[count:],
        y_test=np.array([label for _, label in test_files], np.int64),
        class_names=names,
        test_names=tuple(path.relative_to(test).as_posix() for path, _ in test_files),
        train_names=tuple(path.relative_to(train).as_posix() for path, _ in train_files),
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _test_folders(test: Path) -> list[Path]:
    """Lists the class folders of `test/`, none if it is not there."""
    if not test.is_dir():
        return []
    stray = image_files(test, recursive=False)
    if stray:
        raise DataError(
            f"{stray[0]}: a test image without a class; put it into test/normal/ or test/<class>/"
        )
    return _subfolders(test)


def _one_class_names(test_folders: Sequence[Path]) -> tuple[str, ...]:
    others = (path.name for path in test_folders if path.name not in NORMAL_NAMES)
    return (NORMAL_NAMES[0], *others)


def _labelled_files(folders: Sequence[Path], names: Sequence[str]) -> list[tuple[Path, int]]:
    """Lists the images of class folders; a folder whose name is no class holds class 0."""
    labels = {name: label for label, name in enumerate(names)}
    return [
        (path, labels.get(folder.name, 0)) for folder in folders for path in image_files(folder)
    ]
