"""Data sets as numpy arrays, and the one-class problems made of them."""

from __future__ import annotations

import dataclasses
import os

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets.arrays import load_npz, read_samples
from deepsvdd_jax.datasets.dataset import DataError, Dataset, Loader, one_line
from deepsvdd_jax.datasets.digits import load_digits
from deepsvdd_jax.datasets.files import FoundImages, describe_left_out, find_images, image_files
from deepsvdd_jax.datasets.folder import load_folder, read_layout
from deepsvdd_jax.datasets.formats.images import iter_images
from deepsvdd_jax.datasets.gtsrb import load_gtsrb
from deepsvdd_jax.datasets.layout import NORMAL_NAMES, Layout, LeftOut
from deepsvdd_jax.datasets.outliers import add_outliers, chosen_outliers
from deepsvdd_jax.datasets.splits import OneClassSplit, one_class_split
from deepsvdd_jax.datasets.standard import load_cifar10, load_idx
from deepsvdd_jax.datasets.tables import Columns, Table, load_csv, read_csv, read_table

__all__ = [
    "LOADERS",
    "add_outliers",
    "chosen_outliers",
    "NORMAL_NAMES",
    "Columns",
    "DataError",
    "Dataset",
    "FoundImages",
    "Layout",
    "LeftOut",
    "Loader",
    "OneClassSplit",
    "Table",
    "describe_left_out",
    "find_images",
    "image_files",
    "iter_images",
    "load",
    "one_class_split",
    "read_layout",
    "read_csv",
    "read_samples",
    "read_table",
]

LOADERS: dict[str, Loader] = {
    "digits": load_digits,
    "mnist": load_idx,
    "fashion_mnist": load_idx,
    "kmnist": load_idx,
    "cifar10": load_cifar10,
    "gtsrb": load_gtsrb,
    "npz": load_npz,
    "folder": load_folder,
    "csv": load_csv,
}


def load(config: DataConfig) -> Dataset:
    """Loads a data set (touches files).

    Args:
      config: its name, a key of `LOADERS`, and where it is.

    Raises:
      DataError: an unknown name, or data that is missing, damaged, foreign or hostile. The message
        is one line.
    """
    if config.name not in LOADERS:
        raise DataError(
            f"data set {config.name!r} does not exist, allowed are {', '.join(LOADERS)}"
        )
    try:
        return LOADERS[config.name](_expand_home(config))
    except OSError as error:
        raise DataError(f"{config.name}: {one_line(error)}") from error


def _expand_home(config: DataConfig) -> DataConfig:
    # A shell leaves the ~ of --data_dir=~/data as it is.
    if config.data_dir is None:
        return config
    return dataclasses.replace(config, data_dir=os.path.expanduser(config.data_dir))
