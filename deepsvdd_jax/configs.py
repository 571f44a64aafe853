"""Every setting as a frozen, hashable dataclass, the presets, and JSON to and from.

A configuration is static: it is closed over when a program is compiled. What is to be vmapped
(key, class, nu, weight decay, learning rate) travels as an array beside it.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

DATASETS = (
    "digits",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "cifar10",
    "gtsrb",
    "npz",
    "folder",
    "csv",
)
EXPORT_PLATFORMS = ("cpu", "cuda", "tpu")

OPTIMIZERS = (
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adadelta",
    "adam",
    "adamax",
    "amsgrad",
)


class ConfigError(ValueError):
    """A setting that is wrong; the message names it and says what is allowed."""


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be positive")


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}; it must not be negative")


def _check_range(name: str, value: float, low: float, high: float, *, right_open: bool) -> None:
    if not (low <= value < high if right_open else low <= value <= high):
        interval = f"[{low:g}, {high:g}" + (")" if right_open else "]")
        raise ConfigError(f"{name} is {value}; it must lie in {interval}")


def _check_literals(config: Any) -> None:
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal:
            _check_choice(name, getattr(config, name), typing.get_args(hint))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where a data set comes from.

    Attributes:
      name: one of `DATASETS`.
      data_dir: folder of the original archives, prepared TFDS tree, npz or csv file, image folder.
      image_size: `(height, width)` that folder and GTSRB images are resized to; None keeps them.
      channels: 1 or 3 for folder images; None keeps what is found.
      prepare: let TFDS download and prepare what is not there.
      label_column: of a csv file, the column of its classes; None takes `label` where it is.
      ignore_columns: of a csv file, columns that are not looked at.
      id_column: of a csv file, the column that names its rows.
      max_megapixels: folder images of more pixels are refused; None takes Pillow's bound, 89.
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

    def __post_init__(self) -> None:
        _check_choice("dataset", self.name, DATASETS)
        self._check_columns()
        if self.data_dir is not None and "\0" in self.data_dir:
            raise ConfigError(f"data_dir is {self.data_dir!r}; no path holds a null character")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels is {self.channels}; allowed: 1, 3")
        if self.image_size is not None and (
            len(self.image_size) != 2 or any(side < 1 for side in self.image_size)
        ):
            raise ConfigError(f"image_size is {self.image_size}; give height,width, both positive")

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
    """

    protocol: Literal["one-vs-rest", "rest-vs-one"] = "one-vs-rest"
    anomalous_classes: tuple[int, ...] | None = None
    outlier_fraction: float = 0.0
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_range("outlier_fraction", self.outlier_fraction, 0.0, 1.0, right_open=True)
        _check_range("validation_fraction", self.validation_fraction, 0.0, 1.0, right_open=True)


@dataclasses.dataclass(frozen=True)
class PreprocessingConfig:
    """Steps between pixels in [0, 1] and the network, in this order.

    Attributes:
      contrast: global contrast normalisation of each image by its standard deviation, L1 or L2
        norm after its mean is taken off.
      zca: whiten with the training normals' covariance.
      zca_epsilon: added to its eigenvalues.
      min_max: scale to [0, 1] with the training normals' minimum and maximum.
      standardize: per feature zero mean and unit deviation of the training normals (tables).
    """

    contrast: Literal["none", "std", "l1", "l2"] = "none"
    zca: bool = False
    zca_epsilon: float = 0.1
    min_max: bool = True
    standardize: bool = False

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive("zca_epsilon", self.zca_epsilon)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """An encoder of convolution stages and dense layers, and the decoder that mirrors it.

    Attributes:
      name: the name it is known by.
      stages: output channels of the convolutions of each stage; a 2x2 max-pool ends a stage.
      hidden: widths of the dense layers between the last stage and the representation.
      hidden_style: what follows each of them: nothing, the activation, or batch normalisation and
        the activation.
      rep_dim: width D of the representation.
      kernel_size: side of every convolution kernel.
      padding: `same` or `valid`.
      activation: of the stages (and of hidden layers that have one).
      leaky_slope: negative slope of the leaky ReLU.
      batch_norm: normalise after each convolution.
      affine: trainable scale and offset of the batch normalisation (an offset is a bias).
      bias: bias terms in convolutions and dense layers. With them the hypersphere can collapse
        (Ruff et al. 2018, proposition 2).
      initializer: `glorot` (uniform; gain sqrt(2 / (1 + 0.01^2)) for convolutions, 1 for dense),
        `glorot_unit` (gain 1 for all) or `torch` (uniform, +-1/sqrt(fan_in)).
      decoder: `theano` or `pytorch`, the two decoders of the authors.
      dropout: rate of the dropout; 0 is none.
      dropout_on: after the `dense` hidden layers' inputs only, or after `all` stages too.
    """

    name: str = "lenet"
    stages: tuple[tuple[int, ...], ...] = ((32,), (16,))
    hidden: tuple[int, ...] = ()
    hidden_style: Literal["linear", "activation", "batch_norm"] = "linear"
    rep_dim: int = 32
    kernel_size: int = 5
    padding: Literal["same", "valid"] = "same"
    activation: Literal["leaky_relu", "relu", "elu"] = "leaky_relu"
    leaky_slope: float = 0.01
    batch_norm: bool = True
    affine: bool = False
    bias: bool = False
    initializer: Literal["glorot", "glorot_unit", "torch"] = "glorot"
    decoder: Literal["theano", "pytorch"] = "theano"
    dropout: float = 0.0
    dropout_on: Literal["dense", "all"] = "dense"

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive("rep_dim", self.rep_dim)
        _check_positive("kernel_size", self.kernel_size)
        # A negative slope is not monotone, which the pool before the activation needs.
        _check_not_negative("leaky_slope", self.leaky_slope)
        _check_range("dropout", self.dropout, 0.0, 1.0, right_open=True)
        widths = [width for stage in self.stages for width in stage] + list(self.hidden)
        if any(width < 1 for width in widths) or any(not stage for stage in self.stages):
            raise ConfigError(f"network {self.name}: every layer needs a width of at least 1")

    @property
    def is_dense(self) -> bool:
        """True for a network of dense layers only, which takes `[n, features]`."""
        return not self.stages

    @property
    def has_bias_terms(self) -> bool:
        """Whether some layer adds a trained offset, with which the hypersphere can collapse."""
        return self.bias or (self.batch_norm and self.affine)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """A solver and the schedule of its learning rate.

    Attributes:
      name: one of `OPTIMIZERS`.
      learning_rate: of the first epoch.
      milestones: epochs (counted from 0) from which the rate is multiplied by `drop_factor`,
        once more at each.
      drop_factor: see `milestones`.
      decay_after_epoch: from this epoch e0 on the rate is multiplied by e0 / e; None never.
      momentum: of `momentum` and `nesterov`.
      rho: decay of the squared gradients: 0.9 for rmsprop, 0.95 for adadelta when None.
    """

    name: str = "adam"
    learning_rate: float = 1e-4
    milestones: tuple[int, ...] = ()
    drop_factor: float = 0.1
    decay_after_epoch: int | None = None
    momentum: float = 0.9
    rho: float | None = None

    def __post_init__(self) -> None:
        _check_choice("optimizer", self.name, OPTIMIZERS)
        _check_positive("learning_rate", self.learning_rate)
        _check_positive("drop_factor", self.drop_factor)
        _check_range("momentum", self.momentum, 0.0, 1.0, right_open=True)
        if any(epoch < 1 for epoch in self.milestones):
            raise ConfigError(f"milestones are {self.milestones}; every one must be at least 1")
        if self.decay_after_epoch is not None and self.decay_after_epoch < 1:
            raise ConfigError(f"decay_after_epoch is {self.decay_after_epoch}; at least 1")
        if self.rho is not None:
            _check_range("rho", self.rho, 0.0, 1.0, right_open=True)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What a phase minimises.

    Attributes:
      kind: `one-class` (equation 4 of Ruff et al. 2018), `soft-boundary` (equation 3) or
        `reconstruction` (the autoencoder).
      nu: upper bound of the share of training points outside the sphere (soft-boundary).
      radius_rule: of the soft boundary: `quantile` of every batch after the warm-up (PyTorch
        code), `gradient` or `block-coordinate` exact solution (Theano code).
      warm_up_epochs: `quantile`: epochs with radius 0; `block-coordinate`: epochs after each of
        which the radius is reset to the quantile; ignored by `gradient`.
      radius_every: `block-coordinate`: epochs between two exact solutions after the warm-up.
      radius_rate: `gradient`: what the learning rate is multiplied by for R^2. Adam moves R^2 by
        about one learning rate a step, however far it is from where it should be: at 1 (Theano
        code) it lags behind distances that shrink fast.
      center_init: `mean` of the training representations or a `constant` 0.5.
      center_batches: batches whose mean is taken; None takes the whole training set.
      center_floor: components closer to 0 than this are moved to it, sign kept; 0 does nothing.
      center_rule: `fixed`, trained by `gradient`, or solved with the radius from the SVDD `dual`.
      statistics_first: set the running batch statistics from the training set before the center
        and the untrained scores; False evaluates with (0, 1) as both original codes do.
      reconstruction_error: `squared` (summed over an image) or `cross-entropy`.
      reconstruction_penalty: weight of the mean summed reconstruction error in the loss of a
        hypersphere objective, the decoder trained jointly (Theano code: 1 / (2 C_rec)); 0 is none.
    """

    kind: Literal["one-class", "soft-boundary", "reconstruction"] = "one-class"
    nu: float = 0.1
    radius_rule: Literal["quantile", "gradient", "block-coordinate"] = "quantile"
    warm_up_epochs: int = 10
    radius_every: int = 5
    radius_rate: float = 1.0
    center_init: Literal["mean", "constant"] = "mean"
    center_batches: int | None = None
    center_floor: float = 0.1
    center_rule: Literal["fixed", "gradient", "dual"] = "fixed"
    statistics_first: bool = True
    reconstruction_error: Literal["squared", "cross-entropy"] = "squared"
    reconstruction_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check_literals(self)
        if not 0.0 < self.nu <= 1.0:
            raise ConfigError(f"nu is {self.nu}; it must lie in (0, 1]")
        if self.warm_up_epochs < 0:
            raise ConfigError(f"warm_up_epochs is {self.warm_up_epochs}; it must be 0 or more")
        if self.radius_every < 1:
            raise ConfigError(f"radius_every is {self.radius_every}; it must be at least 1")
        _check_positive("radius_rate", self.radius_rate)
        if self.center_batches is not None:
            _check_positive("center_batches", self.center_batches)
        _check_not_negative("center_floor", self.center_floor)
        _check_not_negative("reconstruction_penalty", self.reconstruction_penalty)
        if self.center_rule == "dual" and (self.kind, self.radius_rule) != (
            "soft-boundary",
            "block-coordinate",
        ):
            raise ConfigError(
                "center_rule dual solves for radius and center together: it needs "
                "objective=soft-boundary and radius_rule=block-coordinate"
            )

    @property
    def center_from_data(self) -> bool:
        """Whether the center starts as a mean over training images."""
        return self.kind != "reconstruction" and self.center_init == "mean"

    @property
    def radius_from_data(self) -> bool:
        """Whether the radius starts as the solution for the training set."""
        return self.kind != "reconstruction" and self.radius_rule == "gradient"

    @property
    def solves_radius(self) -> bool:
        """Whether the radius is solved for between epochs."""
        return self.kind == "soft-boundary" and self.radius_rule == "block-coordinate"


@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """One phase of training: an objective, a solver, a length.

    Attributes:
      objective: what is minimised.
      optimizer: the solver.
      epochs: passes over the training set.
      batch_size: images a step.
      weight_decay: lambda; the loss gets `weight_decay_factor * lambda * sum ||W||^2`.
      weight_decay_factor: 1/2 in the paper, 2 in the ITU report.
      whole_batches: leave out the images of the last partial batch and shuffle only the order of
        fixed batches (Theano code); False shuffles images and trains on a partial last batch.
      stop_below: stop a run once an epoch's mean loss is below this; None never.
    """

    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = 50
    batch_size: int = 200
    weight_decay: float = 1e-6
    weight_decay_factor: float = 0.5
    whole_batches: bool = False
    stop_below: float | None = None

    def __post_init__(self) -> None:
        _check_positive("epochs", self.epochs)
        _check_positive("batch_size", self.batch_size)
        _check_not_negative("weight_decay", self.weight_decay)
        _check_not_negative("weight_decay_factor", self.weight_decay_factor)
        if self.stop_below is not None:
            _check_not_negative("stop_below", self.stop_below)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that a run needs besides its key and its data.

    Attributes:
      preset: the name of the preset it started from.
      preprocessing: pixels to network input.
      network: encoder and decoder.
      pretraining: autoencoder phase that initialises the encoder; None starts from random weights.
      training: the phase that is evaluated; with a `reconstruction` objective the run is a DCAE.
      first_layer: `random`, or the atoms of a `dictionary` learned from training images.
      initial_model: folder of a saved model whose weights a run starts from; None draws them.
      threshold_quantile: quantile of the training scores above which a score is anomalous.
    """

    preset: str = "custom"
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    network: NetworkConfig = NetworkConfig()
    pretraining: PhaseConfig | None = None
    training: PhaseConfig = PhaseConfig()
    first_layer: Literal["random", "dictionary"] = "random"
    initial_model: str | None = None
    threshold_quantile: float = 0.99

    def __post_init__(self) -> None:
        _check_literals(self)
        if not 0.0 < self.threshold_quantile <= 1.0:
            raise ConfigError(
                f"threshold_quantile is {self.threshold_quantile}; it must lie in (0, 1]"
            )
        if self.pretraining is not None and self.pretraining.objective.kind != "reconstruction":
            raise ConfigError("pretraining must have a reconstruction objective")
        if self.first_layer == "dictionary" and self.network.is_dense:
            raise ConfigError(
                f"first_layer dictionary needs convolutions; network {self.network.name} has none"
            )

    @property
    def needs_decoder(self) -> bool:
        """Whether any phase reconstructs its input."""
        return self.pretraining is not None or self.training_reconstructs

    @property
    def training_reconstructs(self) -> bool:
        """Whether the evaluated phase uses the decoder."""
        objective = self.training.objective
        return objective.kind == "reconstruction" or objective.reconstruction_penalty > 0.0


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """A scorer with a threshold: what to train, how often, and from where a score is anomalous.

    Attributes:
      run: of every member.
      seeds: one member each; several make an ensemble.
      calibration_fraction: share of the normals that is held out of training, for p-values and the
        `conformal` threshold.
      threshold_rule: `quantile` (`run.threshold_quantile` of the training scores), `contamination`
        (a share of all given samples lies above), `radius` (outside the sphere: d > R^2, whose nu
        is the objective's) or `conformal` (a normal lies above with probability `alarm_rate` at
        most). Where there are few samples for the network, those that it was trained on lie much
        closer to the center than new ones: `conformal` alone knows about that.
      contamination: share of the samples that is anomalous, for the rule of that name.
      alarm_rate: bound of the false-alarm rate, for the rule `conformal`.
    """

    run: RunConfig = RunConfig()
    seeds: tuple[int, ...] = (0,)
    calibration_fraction: float = 0.0
    threshold_rule: Literal["quantile", "contamination", "radius", "conformal"] = "quantile"
    contamination: float = 0.1
    alarm_rate: float = 0.01

    def __post_init__(self) -> None:
        _check_literals(self)
        if not self.seeds:
            raise ConfigError("seeds is empty; give at least one")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds are {self.seeds}; they must be distinct and not negative")
        _check_range("calibration_fraction", self.calibration_fraction, 0.0, 1.0, right_open=True)
        if self.threshold_rule == "conformal" and not self.calibration_fraction:
            raise ConfigError("threshold_rule conformal needs a calibration_fraction above 0")
        if not 0.0 < self.contamination <= 0.5:
            raise ConfigError(f"contamination is {self.contamination}; it must lie in (0, 0.5]")
        if not 0.0 < self.alarm_rate < 1.0:
            raise ConfigError(f"alarm_rate is {self.alarm_rate}; it must lie in (0, 1)")


# --- JSON ---------------------------------------------------------------------------------------

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def to_json(config: Any) -> str:
    """Returns a configuration as readable JSON."""
    return json.dumps(to_dict(config), indent=2, allow_nan=False)


def from_dict(kind: type[Config], values: Any, where: str = "config") -> Config:
    """Builds a configuration of `kind` from nested dicts, the inverse of `to_dict`.

    Raises:
      ConfigError: a key that is unknown, a value of a wrong type or out of range; names its place.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected an object, found {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown setting {unknown[0]!r}; allowed: {', '.join(hints)}")
    arguments = {
        name: _from_json(hints[name], value, f"{where}.{name}") for name, value in values.items()
    }
    return kind(**arguments)


def from_json(kind: type[Config], text: str, where: str = "config") -> Config:
    """Builds a configuration of `kind` from JSON text, the inverse of `to_json`.

    Raises:
      ConfigError: not JSON, or as `from_dict`.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    try:
        return from_dict(kind, values, where)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None


def _from_json(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
        return _from_json(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _tuple_from_json(typing.get_args(hint), value, where)
    if origin is Literal:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: too large for a number with a fraction") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _tuple_from_json(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, found {value!r}")
    if parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{where}: expected {len(parts)} values, found {len(value)}")
    return tuple(
        _from_json(part, item, f"{where}[{index}]")
        for index, (part, item) in enumerate(zip(parts, value, strict=True))
    )


# --- overriding single settings -----------------------------------------------------------------


def replace_at(config: Config, path: str, value: Any) -> Config:
    """Returns `config` with the setting at a dotted path replaced, as `training.optimizer.name`."""
    head, _, rest = path.partition(".")
    if rest:
        value = replace_at(getattr(config, head), rest, value)
    return dataclasses.replace(typing.cast(Any, config), **{head: value})


def value_at(config: Any, path: str) -> Any:
    """Returns the setting at a dotted path; None where a parent on the way is None."""
    for name in path.split("."):
        if config is None:
            return None
        config = getattr(config, name)
    return config


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Returns one line for each setting in which two nested dicts differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return [
            line
            for name in sorted(set(first) | set(second))
            for line in differences(
                first.get(name), second.get(name), f"{where}.{name}" if where else name
            )
        ]
    same = json.dumps(first) == json.dumps(second)
    return [] if same else [f"{where} is {json.dumps(first)} there, {json.dumps(second)} here"]
