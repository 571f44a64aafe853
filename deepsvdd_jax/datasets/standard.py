"""Data sets that exist both as original archives and in TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import cifar, idx
from deepsvdd_jax.datasets.dataset import DataError, Dataset
from deepsvdd_jax.datasets.formats import prepared
from deepsvdd_jax.datasets.formats.archives import data_folders


def load_idx(config: DataConfig) -> Dataset:
    """Loads MNIST, Fashion-MNIST or KMNIST (touches files); see `load_standard`.

    Returns:
      60,000 training and 10,000 test images, uint8 `[n, 28, 28, 1]`.
    """
    names = idx.CLASS_NAMES[config.name]
    return load_standard(config, idx.read_idx_folder, "train-images-idx3-ubyte.gz, ...", names)


def load_cifar10(config: DataConfig) -> Dataset:
    """Loads CIFAR-10 (touches files); see `load_standard`.

    Returns:
      50,000 training and 10,000 test images, uint8 `[n, 32, 32, 3]`.
    """
    return load_standard(
        config, cifar.read_cifar10_folder, "cifar-10-binary.tar.gz", cifar.CLASS_NAMES
    )


def load_standard(
    config: DataConfig,
    read_folder: Callable[[Path, str], Dataset | None],
    archives: str,
    class_names: tuple[str, ...],
) -> Dataset:
    """Loads a data set from its archives, or else as TFDS prepared it (touches files).

    Looks for the original archives in `<data_dir>/<name>` and `data_dir`, then for a prepared tree
    in `data_dir`, or without one in TFDS's default folder. Nothing is downloaded unless
    `config.prepare` is set: then a prepared tree comes first, and one that is missing is prepared,
    from the archives where they are there.

    Args:
      config: name, `data_dir` and `prepare` count.
      read_folder: reads the archives of one folder, None if there are none.
      archives: what the archives are called, for messages.
      class_names: names of the classes in TFDS.

    Raises:
      DataError: nothing found, or what was found is unusable.
    """
    root = prepared.default_data_dir() if config.data_dir is None else Path(config.data_dir)
    may_be_created = config.prepare and not root.exists()
    folders = [] if may_be_created else data_folders(config.data_dir, config.name)
    if not config.prepare:
        for folder in folders:
            dataset = read_folder(folder, config.name)
            if dataset is not None:
                return dataset
    tree = prepared.find_prepared(root, config.name)
    if tree is None and config.prepare:
        prepared.prepare(root, config.name, folders[0] if folders else None)
        tree = prepared.find_prepared(root, config.name)
    if tree is None:
        raise DataError(
            f"{config.name}: neither original archives nor data prepared by TFDS in {root}; put"
            f" {archives} into --data_dir, or pass --prepare to download and prepare it"
        )
    return prepared.read_prepared(tree, config.name, class_names)
