"""Command-line flags for every setting of a run, and the way from flags to a configuration."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from absl import flags

from deepsvdd_jax import configs, datasets, recipes
from deepsvdd_jax.cli import paths, unread
from deepsvdd_jax.configs import (
    MOST_SEEDS,
    BaseObjectiveConfig,
    ConfigError,
    DataConfig,
    RunConfig,
    SplitConfig,
)
from deepsvdd_jax.configs.checks import check_range
from deepsvdd_jax.datasets import Dataset

# Flag, where its setting lives in a `RunConfig`, and what it does. The type follows from there.
_SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("objective", "training.objective.kind", "what is minimised"),
    ("nu", "training.objective.nu", "share of training images outside the sphere, in (0, 1]"),
    ("radius_rule", "training.objective.radius_rule", "soft boundary: how the radius is set"),
    ("warm_up_epochs", "training.objective.warm_up_epochs", "soft boundary: epochs of warm-up"),
    (
        "radius_every",
        "training.objective.radius_every",
        "block-coordinate: epochs between two solutions for the radius",
    ),
    (
        "radius_rate",
        "training.objective.radius_rate",
        "soft boundary by gradient: factor of the learning rate of R^2",
    ),
    ("center_init", "training.objective.center_init", "where the center starts"),
    ("center_batches", "training.objective.center_batches", "batches whose mean is the center"),
    ("center_floor", "training.objective.center_floor", "least absolute center component"),
    ("center_rule", "training.objective.center_rule", "what becomes of the center in training"),
    ("augment", "training.augment", "random changes of training images: shift,flip,jitter,noise"),
    (
        "synthetic_anomalies",
        "training.synthetic_anomalies",
        "make every other normal image of a batch an anomaly: confetti, cutpaste, lines or mix",
    ),
    (
        "map_share",
        "training.objective.map_share",
        "fcdd: share of the map, its highest values, whose mean is the score",
    ),
    ("eta", "training.objective.eta", "deep-sad: weight of a labelled example"),
    ("focus", "training.objective.focus", "bce: exponent of the focal loss; 0 is none"),
    (
        "balanced_batches",
        "training.objective.balanced_batches",
        "objectives with labels: batches half known anomalies, half all others",
    ),
    (
        "statistics_first",
        "training.objective.statistics_first",
        "set the batch statistics from the training set before the center",
    ),
    (
        "reconstruction_penalty",
        "training.objective.reconstruction_penalty",
        "weight of the reconstruction error in the hypersphere loss; 0 is none",
    ),
    ("optimizer", "training.optimizer.name", "solver"),
    ("learning_rate", "training.optimizer.learning_rate", "learning rate"),
    ("milestones", "training.optimizer.milestones", "epochs at which the learning rate drops"),
    ("drop_factor", "training.optimizer.drop_factor", "what it is multiplied by at each"),
    (
        "decay_after_epoch",
        "training.optimizer.decay_after_epoch",
        "epoch e0 after which the learning rate is multiplied by e0 / epoch",
    ),
    ("momentum", "training.optimizer.momentum", "of momentum and nesterov"),
    ("rho", "training.optimizer.rho", "of rmsprop and adadelta"),
    ("epochs", "training.epochs", "epochs of training"),
    ("batch_size", "training.batch_size", "images a step"),
    ("weight_decay", "training.weight_decay", "lambda"),
    ("weight_decay_factor", "training.weight_decay_factor", "factor of lambda sum ||W||^2"),
    ("whole_batches", "training.whole_batches", "leave out a partial batch, shuffle batches only"),
    ("stop_below", "training.stop_below", "stop a run once an epoch's mean loss is below this"),
    ("pretrain_optimizer", "pretraining.optimizer.name", "autoencoder: solver"),
    ("pretrain_learning_rate", "pretraining.optimizer.learning_rate", "autoencoder: rate"),
    ("pretrain_milestones", "pretraining.optimizer.milestones", "autoencoder: milestones"),
    ("pretrain_drop_factor", "pretraining.optimizer.drop_factor", "autoencoder: drop factor"),
    ("pretrain_momentum", "pretraining.optimizer.momentum", "autoencoder: momentum"),
    ("pretrain_rho", "pretraining.optimizer.rho", "autoencoder: of rmsprop and adadelta"),
    (
        "pretrain_decay_after_epoch",
        "pretraining.optimizer.decay_after_epoch",
        "autoencoder: epoch after which its learning rate decays",
    ),
    ("pretrain_batch_size", "pretraining.batch_size", "autoencoder: images a step"),
    ("pretrain_weight_decay", "pretraining.weight_decay", "autoencoder: lambda"),
    (
        "pretrain_whole_batches",
        "pretraining.whole_batches",
        "autoencoder: leave out a partial batch, shuffle batches only",
    ),
    (
        "reconstruction_error",
        "training.objective.reconstruction_error",
        "error of a pixel: of the autoencoder and of the penalty",
    ),
    ("rep_dim", "network.rep_dim", "width of the representation"),
    ("kernel_size", "network.kernel_size", "side of the convolution kernels"),
    ("padding", "network.padding", "padding of the convolutions"),
    ("hidden", "network.hidden", "widths of the dense layers before the representation"),
    ("activation", "network.activation", "activation function"),
    ("leaky_slope", "network.leaky_slope", "negative slope of the leaky ReLU"),
    ("batch_norm", "network.batch_norm", "batch normalisation"),
    ("affine", "network.affine", "trainable scale and offset of the batch normalisation"),
    ("bias", "network.bias", "bias terms (the sphere can collapse)"),
    ("initializer", "network.initializer", "how weights are drawn"),
    ("decoder", "network.decoder", "which of the authors' decoders"),
    ("dropout", "network.dropout", "rate of dropout"),
    ("dropout_on", "network.dropout_on", "which layers dropout follows"),
    ("contrast", "preprocessing.contrast", "global contrast normalisation"),
    ("zca", "preprocessing.zca", "ZCA whitening"),
    ("zca_epsilon", "preprocessing.zca_epsilon", "added to its eigenvalues"),
    ("min_max", "preprocessing.min_max", "scale to [0, 1] by the training normals"),
    ("standardize", "preprocessing.standardize", "standardise the features of a table"),
    ("first_layer", "first_layer", "how the first convolution starts"),
    ("initial_model", "initial_model", "folder of a saved model to start from"),
    ("threshold_quantile", "threshold_quantile", "training quantile that is the threshold"),
)


def require(values: flags.FlagValues, *names: str) -> None:
    """Refuses a call without one of these flags; raises ConfigError, which names it."""
    for name in names:
        if values[name].value is None:
            raise ConfigError(f"--{name} is not given")


def define_run_flags() -> None:
    """Defines a flag for the preset, the network and every single setting; None = the preset's."""
    flags.DEFINE_enum("preset", "auto", recipes.PRESETS, "recipe to start from")
    flags.DEFINE_string(
        "config",
        None,
        "config.json of a sweep, whose settings of a run are taken instead of a preset's; flags "
        "still come on top",
    )
    flags.DEFINE_enum("network", None, list(recipes.NETWORKS), "network, instead of the preset's")
    flags.DEFINE_integer("pretrain_epochs", None, "epochs of the autoencoder; 0 = no pretraining")
    for name, path, text in _SETTINGS:
        _define(name, _hint_at(RunConfig, path), f"{text} (default: the preset's)")


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
    """Defines the flag that goes on where an image file cannot be read."""
    flags.DEFINE_bool(
        "skip_unreadable", False, "leave out image files that cannot be read, and list them"
    )


def define_column_flags() -> None:
    """Defines the flags that say what the columns of a csv file are."""
    flags.DEFINE_string(
        "label_column", None, "column of a csv file with its classes (default: label, if there)"
    )
    flags.DEFINE_list("ignore_columns", None, "columns of a csv file that are not looked at")
    flags.DEFINE_string("id_column", None, "column of a csv file that names its rows")


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
        config = DataConfig(source, values.data_dir)
    else:
        path = paths.to_read("outliers", source)
        if not path.is_dir():
            config = DataConfig("npz", source)
        elif len(shape) != 3:
            raise ConfigError(f"outliers {source}: a folder of images; the data are a table")
        else:
            config = DataConfig("folder", source, image_size=shape[:2], channels=shape[2])
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
    for name, path, _ in _SETTINGS:
        value = values[name].value
        if value is None:
            continue
        if path.startswith("pretraining.") and config.pretraining is None:
            raise ConfigError(f"--{name} needs an autoencoder phase; give --pretrain_epochs too")
        hint = _hint_at(RunConfig, path)
        if hint == tuple[str, ...]:
            value = tuple(value)
        elif typing.get_origin(hint) is tuple:
            value = _integers(name, value)
        config = configs.replace_at(config, path, value)
    error = values["reconstruction_error"].value
    if error is not None and config.pretraining is not None:
        config = configs.replace_at(config, "pretraining.objective.reconstruction_error", error)
    return config


def given(values: flags.FlagValues) -> list[tuple[str, str]]:
    """Returns the flags of a run that were given, each with the place of its setting."""
    others = (("network", "network"), ("pretrain_epochs", "pretraining"))
    places = [(name, path) for name, path, _ in _SETTINGS]
    return [(name, path) for name, path in (*others, *places) if values[name].value is not None]


def given_in(values: flags.FlagValues, part: str) -> list[str]:
    """Returns the flags that were given and whose setting lies in a part of a `RunConfig`."""
    return [
        name
        for name, path, _ in _SETTINGS
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
    # What a recipe sets for every network stays: slope and initialisation.
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


def _hint_at(kind: type, path: str) -> Any:
    head, _, rest = path.partition(".")
    is_objective = issubclass(kind, BaseObjectiveConfig)
    hint = _hint_of_objective(head) if is_objective else typing.get_type_hints(kind)[head]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
    return _hint_at(hint, rest) if rest else hint


def _hint_of_objective(name: str) -> Any:
    """Returns the type of a setting that some objective has; of `kind` all that there are."""
    kinds = configs.objective_kinds()
    if name == "kind":
        return Literal[kinds]
    hints = [typing.get_type_hints(configs.objective_class(kind)) for kind in kinds]
    return next(known[name] for known in hints if name in known)


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
