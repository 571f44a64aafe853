"""Where images come from, which are normal, and how they are preprocessed."""

import dataclasses
import math
from typing import Literal

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_literals,
    check_positive,
    check_range,
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where a data set comes from.

    Attributes:
      name: a key of `datasets.LOADERS`, where it is looked up when the data are loaded.
      data_dir: folder of the original archives, prepared TFDS tree, npz or csv file, image folder.
      image_size: `(height, width)` that folder and GTSRB images are resized to; None keeps them.
      channels: 1 or 3 for folder images; None keeps what is found.
      prepare: let TFDS download and prepare missing data.
      label_column: of a csv file, the column of its classes; None takes `label` where it is.
      ignore_columns: of a csv file, columns that are not looked at.
      id_column: of a csv file, the column that names its rows.
      max_megapixels: folder images of more pixels are refused; None takes Pillow's bound, 89.
      pixel_range: `(low, high)`, pixel values of folder images that become 0 and 1; None takes 0
        and 255, of images with more than 8 bits the range of the training images.
    """

    name: str = "digits"
    data_dir: str | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    prepare: bool = False
    label_column: str | None = None
    ignore_columns: tuple[str, ...] | None = None
    id_column: str | None = None
    max_megapixels: int | None = None
    pixel_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self._check_columns()
        if self.data_dir is not None and "\0" in self.data_dir:
            raise ConfigError(f"data_dir is {self.data_dir!r}; no path holds a null character")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels is {self.channels}; allowed: 1, 3")
        if self.image_size is not None and (
            len(self.image_size) != 2 or any(side < 1 for side in self.image_size)
        ):
            raise ConfigError(f"image_size is {self.image_size}; give height,width, both positive")

        if self.pixel_range is not None and not (
            len(self.pixel_range) == 2
            and all(map(math.isfinite, self.pixel_range))
            and self.pixel_range[0] < self.pixel_range[1]
        ):
            raise ConfigError(f"pixel_range is {self.pixel_range}; give LOW,HIGH with LOW < HIGH")
        if self.max_megapixels is not None and self.max_megapixels < 1:
            raise ConfigError(f"max_megapixels is {self.max_megapixels}; it must be 1 or more")

    def _check_columns(self) -> None:
        given = {
            "label_column": () if self.label_column is None else (self.label_column,),
            "id_column": () if self.id_column is None else (self.id_column,),
            "ignore_columns": self.ignore_columns or (),
        }
        for name, columns in given.items():
            if columns and self.name != "csv":
                raise ConfigError(f"{name} is for csv files; dataset is {self.name}")
            for other in ("id_column", "ignore_columns"):
                twice = set(columns) & set(given[other]) if other != name else set()
                if twice:
                    raise ConfigError(f"{min(twice)!r} is in both {name} and {other}")


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Which images are normal, which anomalous.

    Attributes:
      protocol: `one-vs-rest` (one class is normal) or `rest-vs-one` (all but one are).
      anomalous_classes: restricts the anomalies of the test set; None takes all that are left.
      outlier_fraction: share of the training set that is anomalous (the original's `out_frac`).
      validation_fraction: share of the normal training images that is kept from training.
      known_anomalous_classes: classes that labelled training anomalies come from; None takes all
        anomalous ones.
      labelled_ratio: share of labelled anomalies in the training set, for objectives that learn
        from labels; None is 0.
    """

    protocol: Literal["one-vs-rest", "rest-vs-one"] = "one-vs-rest"
    anomalous_classes: tuple[int, ...] | None = None
    outlier_fraction: float = 0.0
    validation_fraction: float = 0.0
    known_anomalous_classes: tuple[int, ...] | None = None
    labelled_ratio: float | None = None

    def __post_init__(self) -> None:
        check_literals(self)
        check_range("labelled_ratio", self.labelled_ratio or 0.0, 0.0, 1.0, right_open=True)
        if self.known_anomalous_classes is not None and not self.labelled_ratio:
            raise ConfigError("known_anomalous_classes needs a labelled_ratio above 0")
        check_range("outlier_fraction", self.outlier_fraction, 0.0, 1.0, right_open=True)
        check_range("validation_fraction", self.validation_fraction, 0.0, 1.0, right_open=True)


@dataclasses.dataclass(frozen=True)
class PreprocessingConfig:
    """Steps between pixels in [0, 1] and the network, in this order.

    Attributes:
      contrast: global contrast normalisation of each image by its standard deviation, L1 or L2
        norm after its mean is taken off.
      zca: whiten with the training normals' covariance.
      zca_epsilon: added to that covariance's eigenvalues.
      min_max: scale to [0, 1] with the training normals' minimum and maximum.
      standardize: per feature zero mean and unit deviation of the training normals (tables).
    """

    contrast: Literal["none", "std", "l1", "l2"] = "none"
    zca: bool = False
    zca_epsilon: float = 0.1
    min_max: bool = True
    standardize: bool = False

    def __post_init__(self) -> None:
        check_literals(self)
        check_positive("zca_epsilon", self.zca_epsilon)
