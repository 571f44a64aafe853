"""Command-line flags for every setting of a run, and the configuration that they make."""

import dataclasses
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from absl import flags

from deepsvdd_jax import configs, datasets, recipes
from deepsvdd_jax.cli import help, paths, unread
from deepsvdd_jax.cli.run_settings import hint_at, run_settings
from deepsvdd_jax.configs import (
    MOST_SEEDS,
    ConfigError,
    DataConfig,
    RunConfig,
    SplitConfig,
)
from deepsvdd_jax.configs.checks import check_range
from deepsvdd_jax.datasets import Dataset


def require(values: flags.FlagValues, *names: str) -> None:
    """Refuses a call without one of these flags; raises ConfigError, which names it."""
    for name in names:
        if values[name].value is None:
            raise ConfigError(f"--{name} is not given")


def define_run_flags() -> None:
    """Defines a flag for the preset, the network and every single setting; None = the preset's."""
    _define_recipe_flags()
    for setting in run_settings():
        with help.topic(setting.topic):
            text = f"{setting.text.rstrip('.')} (default: the preset's)"
            _define(setting.flag, hint_at(RunConfig, setting.path), text)


@help.topic("Recipe")
def _define_recipe_flags() -> None:
    flags.DEFINE_enum("preset", "auto", list(recipes.RECIPES), "recipe to start from")
    flags.DEFINE_string(
        "config",
        None,
        "config.json of a sweep, whose settings of a run are taken instead of a preset's; flags "
        "still come on top",
    )
    flags.DEFINE_enum("network", None, list(recipes.NETWORKS), "network, instead of the preset's")
    flags.DEFINE_integer("pretrain_epochs", None, "epochs of the autoencoder; 0 = no pretraining")


@help.topic("Data")
def define_data_flags(default: str = "digits") -> None:
    """Defines the flags that say which data to read."""
    flags.DEFINE_enum("dataset", default, list(datasets.LOADERS), "data set")
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder of the original archives, TFDS tree, npz or csv file, image folder",
    )
    flags.DEFINE_list(
        "image_size", None, "height,width that folder and GTSRB images are resized to"
    )
    flags.DEFINE_integer("channels", None, "1 or 3: convert the images of a folder")
    define_column_flags()
    define_pixel_flags()
    flags.DEFINE_list(
        "pixel_range",
        None,
        "LOW,HIGH: pixel values of a folder's images that become 0 and 1 (default: 0,255; of more "
        "than 8 bits a pixel the smallest and largest value of the training images)",
    )
    flags.DEFINE_bool("prepare", False, "let TensorFlow Datasets download and prepare the data")


@help.topic("Data")
def define_pixel_flags() -> None:
    """Defines the flag that bounds the images of a folder."""
    flags.DEFINE_integer(
        "max_megapixels",
        None,
        "images of more pixels are refused; beyond 89 million, where Pillow suspects an attack, as "
        "far as memory is free (default: 89)",
        lower_bound=1,
    )


def define_unreadable_flag() -> None:
    """Defines the flag that leaves out image files that cannot be read."""
    flags.DEFINE_bool(
        "skip_unreadable", False, "leave out image files that cannot be read, and list them"
    )


@help.topic("Data")
def define_column_flags() -> None:
    """Defines the flags of the columns of a csv file."""
    flags.DEFINE_string(
        "label_column", None, "column of a csv file with its classes (default: label, if there)"
    )
    flags.DEFINE_list("ignore_columns", None, "columns of a csv file that are not looked at")
    flags.DEFINE_string("id_column", None, "column of a csv file that names its rows")


@help.topic("What is normal")
def define_split_flags() -> None:
    """Defines the flags that say what is normal."""
    flags.DEFINE_enum("protocol", "one-vs-rest", ["one-vs-rest", "rest-vs-one"], "protocol")
    flags.DEFINE_list("anomalous_classes", None, "restrict the anomalies to these classes")
    flags.DEFINE_float("outlier_fraction", 0.0, "share of anomalies in the training set")
    flags.DEFINE_float(
        "pollution_ratio",
        None,
        "share of anomalies among the unlabelled training images; another name of outlier_fraction",
    )
    flags.DEFINE_float(
        "labelled_ratio",
        None,
        "share of known anomalies in the training set, for objectives that learn from labels",
    )
    flags.DEFINE_list(
        "known_anomalous_classes",
        None,
        "classes that known anomalies come from (default: all that are anomalous)",
    )
    define_outlier_flags()
    flags.DEFINE_float("validation_fraction", 0.0, "share of normals kept from training")


@help.topic("What is normal")
def define_outlier_flags() -> None:
    """Defines the flags that name anomalies which have nothing to do with the task."""
    flags.DEFINE_string(
        "outliers",
        None,
        "known anomalies that have nothing to do with the task: an npz file, a folder of images, "
        "or a data set of --data_dir, whose training images are taken",
    )
    flags.DEFINE_integer(
        "outlier_count", None, "how many of --outliers (default: all)", lower_bound=1
    )


def data_config(values: flags.FlagValues) -> DataConfig:
    """Builds the data configuration from parsed flags."""
    unread.check_data(values)
    if values.data_dir is not None:
        paths.to_read("data_dir", values.data_dir)
    size = _integers("image_size", values.image_size)
    if size is not None and len(size) == 1:
        size = size * 2
    return DataConfig(
        name=values.dataset,
        data_dir=values.data_dir,
        image_size=typing.cast(Any, size),
        channels=values.channels,
        prepare=values.prepare,
        label_column=values.label_column,
        ignore_columns=tuple(values.ignore_columns) if values.ignore_columns else None,
        id_column=values.id_column,
        max_megapixels=values.max_megapixels,
        pixel_range=_pixel_range(values.pixel_range),
    )


def _pixel_range(parts: list[str] | None) -> tuple[float, float] | None:
    if parts is None:
        return None
    try:
        low, high = map(float, parts)
    except ValueError:
        raise ConfigError(
            f"pixel_range is {','.join(parts)!r}; give two numbers LOW,HIGH, as 0,4095"
        ) from None
    return low, high


def split_config(values: flags.FlagValues) -> SplitConfig:
    """Builds the split configuration from parsed flags."""
    pollution = values.outlier_fraction
    if values.pollution_ratio is not None:
        if values["outlier_fraction"].present:
            raise ConfigError("give --pollution_ratio or --outlier_fraction, which are one setting")
        pollution = values.pollution_ratio
        check_range("pollution_ratio", pollution, 0.0, 1.0, right_open=True)
    return SplitConfig(
        protocol=values.protocol,
        anomalous_classes=_integers("anomalous_classes", values.anomalous_classes),
        outlier_fraction=pollution,
        validation_fraction=values.validation_fraction,
        known_anomalous_classes=_integers(
            "known_anomalous_classes", values.known_anomalous_classes
        ),
        labelled_ratio=values.labelled_ratio or None,
    )


def load_outliers(values: flags.FlagValues, dataset: Dataset) -> npt.NDArray[Any] | None:
    """Returns the images or rows that --outliers names (touches files); None where it is not given.

    Raises:
      ConfigError, DataError: they are not there, or cannot be read.
    """
    source = values.outliers
    if source is None:
        if values.outlier_count is not None:
            raise ConfigError("outlier_count is of --outliers, which is not given")
        return None
    shape = dataset.x_train.shape[1:]
    if source in datasets.LOADERS and source not in ("npz", "folder", "csv"):
        if source == dataset.name:
            raise ConfigError(
                f"outliers {source}: the data set itself, of whose images some are normal; give "
                "another one"
            )
        config = DataConfig(source, values.data_dir)
    else:
        path = paths.to_read("outliers", source)
        if not path.is_dir():
            config = DataConfig("npz", source)
        elif len(shape) != 3:
            raise ConfigError(f"outliers {source}: a folder of images; the data are a table")
        else:
            # Outliers come in the units of the data, whose range is not their own.
            every = DataConfig(
                "folder",
                str(path),
                image_size=shape[:2],
                channels=shape[2],
                max_megapixels=values.max_megapixels,
                pixel_range=dataset.pixel_range,
            )
            images = datasets.folder.load_every_image(every)
            return datasets.chosen_outliers(images, values.outlier_count, source)
    found = datasets.load(config).x_train
    return datasets.chosen_outliers(found, values.outlier_count, source)


def run_config(values: flags.FlagValues, dataset: str, image_shape: tuple[int, ...]) -> RunConfig:
    """Builds the configuration of a run: the preset, then every flag that was given.

    Raises:
      ConfigError: a value that is not allowed, or a setting of a phase that is switched off.
    """
    config = _base_config(values, dataset, image_shape)
    if values.network is not None:
        config = _with_network(config, values.network)
    config = _with_pretraining(config, values.pretrain_epochs)
    for name, path, *_ in run_settings():
        value = values[name].value
        if value is None:
            continue
        if path.startswith("pretraining.") and config.pretraining is None:
            raise ConfigError(f"--{name} needs an autoencoder phase; give --pretrain_epochs too")
        _check_objective(config, name, path)
        hint = hint_at(RunConfig, path)
        if hint == tuple[str, ...]:
            value = tuple(value)
        elif typing.get_origin(hint) is tuple:
            value = _integers(name, value)
        config = configs.replace_at(config, path, value)
    error = values["reconstruction_error"].value
    if error is not None and config.pretraining is not None:
        config = configs.replace_at(config, "pretraining.objective.reconstruction_error", error)
    return config


def _check_objective(config: RunConfig, name: str, path: str) -> None:
    """Refuses a flag of a setting that the chosen objective does not have."""
    part, _, field = path.rpartition(".")
    if part.rpartition(".")[2] != "objective" or field == "kind":
        return
    objective = config.training.objective
    if part != "training.objective" or hasattr(objective, field):
        return
    kinds = [
        one for one in configs.objective_kinds() if hasattr(configs.objective_class(one), field)
    ]
    raise ConfigError(
        f"--{name} has no effect here: it is of --objective={' or '.join(kinds)}, and the "
        f"objective is {objective.kind}"
    )


def given(values: flags.FlagValues) -> list[tuple[str, str]]:
    """Returns the flags of a run that were given, each with the place of its setting."""
    others = (("network", "network"), ("pretrain_epochs", "pretraining"))
    places = [(name, path) for name, path, *_ in run_settings()]
    return [(name, path) for name, path in (*others, *places) if values[name].value is not None]


def given_in(values: flags.FlagValues, part: str) -> list[str]:
    """Returns the flags that were given and whose setting lies in a part of a `RunConfig`."""
    return [
        name
        for name, path, *_ in run_settings()
        if path.startswith(part)
        and values[name].value is not None
        and name != "reconstruction_error"
    ]


def _base_config(values: flags.FlagValues, dataset: str, image_shape: tuple[int, ...]) -> RunConfig:
    if values.config is None:
        return recipes.preset(values.preset, dataset, image_shape)
    if values["preset"].present:
        raise ConfigError("give --preset or --config, not both")
    return read_config(paths.to_read("config", values.config))


def read_config(path: Path) -> RunConfig:
    """Reads the settings of a Deep SVDD run from a sweep's `config.json` (touches files).

    Raises:
      ConfigError: no such file, or not the settings of a run.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["deep_svdd"]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(f"{path}: not the config.json of a sweep of deep_svdd") from None
    return configs.from_dict(RunConfig, settings, str(path))


def _with_network(config: RunConfig, name: str) -> RunConfig:
    # A recipe sets slope and initialisation for every network; these stay.
    network = dataclasses.replace(
        recipes.named_network(name),
        leaky_slope=config.network.leaky_slope,
        initializer=config.network.initializer,
        decoder=config.network.decoder,
    )
    return dataclasses.replace(config, network=network)


def _with_pretraining(config: RunConfig, epochs: int | None) -> RunConfig:
    if epochs is None:
        return config
    if epochs < 0:
        raise ConfigError(f"pretrain_epochs is {epochs}; it must be 0 (none) or more")
    if epochs == 0:
        return recipes.without_pretraining(config)
    phase = config.pretraining or recipes.default_autoencoder(config.training)
    return dataclasses.replace(config, pretraining=dataclasses.replace(phase, epochs=epochs))


def seed_list(text: str) -> tuple[int, ...]:
    """Parses seeds: a count, or a list; `7,` is the list of one seed."""
    numbers = integer_list("seeds", text)
    if "," not in text:
        if len(numbers) != 1 or not 1 <= numbers[0] <= MOST_SEEDS:
            raise ConfigError(
                f"seeds is {text[:40]!r}; give a count of 1 to {MOST_SEEDS}, or a list as 0,1,7"
            )
        return tuple(range(numbers[0]))
    if not numbers or any(seed < 0 or seed >= 2**31 for seed in numbers):
        raise ConfigError(f"seeds is {text!r}; seeds lie between 0 and 2147483647")
    return tuple(dict.fromkeys(numbers))


def class_list(text: str, dataset: Dataset, flag: str = "normal_classes") -> tuple[int, ...]:
    """Parses classes of a data set: `all` that have training images, or a list as 0,3,8."""
    there = tuple(range(len(dataset.class_names)))
    if text == "all":
        return tuple(label for label in there if (dataset.y_train == label).any())
    classes = tuple(dict.fromkeys(integer_list(flag, text)))
    unknown = [label for label in classes if label not in there]
    if unknown or not classes:
        raise ConfigError(
            f"{flag} is {text!r}; {dataset.name} has the classes 0 to {there[-1]}, or all"
        )
    return classes


def integer_list(name: str, text: str) -> tuple[int, ...]:
    """Parses `1,2,3`; raises ConfigError that names the flag."""
    parts = [part for part in text.split(",") if part.strip()]
    return typing.cast("tuple[int, ...]", _integers(name, parts))


def _integers(name: str, parts: list[str] | None) -> tuple[int, ...] | None:
    if parts is None:
        return None
    try:
        return tuple(int(part) for part in parts)
    except ValueError:
        raise ConfigError(f"{name} is {','.join(parts)!r}; give whole numbers, as 1,2") from None


def _define(name: str, hint: Any, text: str) -> None:
    if typing.get_origin(hint) is Literal:
        flags.DEFINE_enum(name, None, list(typing.get_args(hint)), text)
    elif typing.get_origin(hint) is tuple:
        flags.DEFINE_list(name, None, text)
    elif name in ("optimizer", "pretrain_optimizer"):
        flags.DEFINE_enum(name, None, list(configs.OPTIMIZERS), text)
    else:
        defines: dict[Any, Callable[..., Any]] = {
            float: flags.DEFINE_float,
            int: flags.DEFINE_integer,
            bool: flags.DEFINE_bool,
            str: flags.DEFINE_string,
        }
        defines[hint](name, None, text)
