"""Refuses flags that nothing reads by name, because a flag without effect misleads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.configs import (
    ConfigError,
    NetworkConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.io.models import ModelError, load_model


class Need(NamedTuple):
    """When a setting is read, and the message where it is not."""

    holds: Callable[[RunConfig, PhaseConfig], bool]
    reason: str


def _has_center(_: RunConfig, phase: PhaseConfig) -> bool:
    return phase.objective.has_center


def _takes_a_mean(config: RunConfig, phase: PhaseConfig) -> bool:
    return _has_center(config, phase) and phase.objective.center_init == "mean"


def _brings_center(config: RunConfig) -> bool:
    """Whether a run starts from a saved model and keeps its center (touches files)."""
    if config.initial_model is None or config.pretraining is not None:
        return False
    try:
        model = load_model(os.path.expanduser(config.initial_model))
    except ModelError:
        return False  # The run itself will say what is wrong with the model.
    return _has_center(model.config, model.config.training)


_NO_CENTER = "an autoencoder has no center, nor has a classifier"


def _has_milestone(_: RunConfig, phase: PhaseConfig) -> bool:
    return any(epoch < phase.epochs for epoch in phase.optimizer.milestones)


def _decays(_: RunConfig, phase: PhaseConfig) -> bool:
    start = phase.optimizer.decay_after_epoch
    return start is not None and start + 1 < phase.epochs


def _normalizes(network: NetworkConfig) -> bool:
    dense = bool(network.hidden) and network.hidden_style == "batch_norm"
    return bool(network.stages) and (network.batch_norm or dense)


def _activates(network: NetworkConfig) -> bool:
    return bool(network.stages or network.hidden)


def _has_two_decoders(config: RunConfig, _: PhaseConfig) -> bool:
    network = config.network
    two = ("cifar10_lenet", "cifar10_lenet_deep", "gtsrb_lenet")
    differ = network.decoder_layout in two or network.initializer == "torch"
    return config.needs_decoder and bool(network.stages) and differ


_OF_A_NEW_CENTER = ("objective.center_init", "objective.center_batches", "objective.center_floor")
_CONVOLUTIONS = "the network has no convolution"

# Settings that are not always read, by their place in a phase or in a `RunConfig`.
_NEEDS: dict[str, Need] = {
    "objective.center_init": Need(_has_center, _NO_CENTER),
    "objective.center_rule": Need(_has_center, _NO_CENTER),
    "objective.reconstruction_penalty": Need(_has_center, "it is of an objective with a center"),
    "objective.center_batches": Need(_takes_a_mean, "the center is no mean of batches"),
    "objective.center_floor": Need(_takes_a_mean, "the center is no mean of batches"),
    "objective.statistics_first": Need(
        lambda config, _: _normalizes(config.network), "the network has no batch normalisation"
    ),
    "objective.reconstruction_error": Need(
        lambda config, _: config.needs_decoder,
        "nothing is reconstructed; it needs pretrain_epochs, reconstruction_penalty or dcae",
    ),
    "optimizer.momentum": Need(
        lambda _, phase: phase.optimizer.name in ("momentum", "nesterov"),
        "it is of the optimizers momentum and nesterov",
    ),
    "optimizer.rho": Need(
        lambda _, phase: phase.optimizer.name in ("rmsprop", "adadelta"),
        "it is of the optimizers rmsprop and adadelta",
    ),
    "optimizer.milestones": Need(
        lambda config, phase: not phase.optimizer.milestones or _has_milestone(config, phase),
        "training ends before the first of them",
    ),
    "optimizer.drop_factor": Need(_has_milestone, "training ends before any milestone"),
    "optimizer.decay_after_epoch": Need(_decays, "training ends before it"),
    "weight_decay_factor": Need(lambda _, phase: phase.weight_decay > 0, "weight_decay is 0"),
    "network.kernel_size": Need(lambda config, _: not config.network.is_dense, _CONVOLUTIONS),
    "network.padding": Need(lambda config, _: not config.network.is_dense, _CONVOLUTIONS),
    "network.batch_norm": Need(lambda config, _: not config.network.is_dense, _CONVOLUTIONS),
    "network.activation": Need(
        lambda config, _: _activates(config.network), "the network has no layer that has one"
    ),
    "network.leaky_slope": Need(
        lambda config, _: _activates(config.network) and config.network.activation == "leaky_relu",
        "no layer of the network has a leaky ReLU",
    ),
    "network.affine": Need(
        lambda config, _: _normalizes(config.network), "the network has no batch normalisation"
    ),
    "network.decoder": Need(_has_two_decoders, "the network has one decoder, or none is trained"),
    "network.dropout_on": Need(
        lambda config, _: config.network.dropout > 0 and not config.network.is_dense,
        "it is of convolutions with a dropout above 0",
    ),
    "preprocessing.zca_epsilon": Need(lambda config, _: config.preprocessing.zca, "zca is off"),
    "preprocessing.min_max": Need(
        lambda config, _: not config.preprocessing.standardize, "standardize takes its place"
    ),
    "first_layer": Need(
        lambda config, _: config.initial_model is None, "initial_model brings the weights along"
    ),
}


class Reader(Protocol):
    """The part of a method that this check needs: its name, and a function of a setting's place in
    a `RunConfig` and of the flags' configuration, which returns why the method never reads the
    setting, as words that follow its name; None where it may read it."""

    @property
    def name(self) -> str: ...

    @property
    def unread(self) -> Callable[[str, RunConfig], str | None]: ...


def why_unread(
    path: str, method: Reader, base: RunConfig, config: RunConfig | None, keeps_radius: bool
) -> str | None:
    """Returns why a method does not read a setting; None where it does.

    Args:
      path: of the setting in a `RunConfig`.
      method: the method.
      base: the configuration of the flags.
      config: of the method, which a DCAE has without the training phase; None for a baseline.
      keeps_radius: whether a model is kept, whose radius follows from nu in any case.
    """
    if path == "threshold_quantile":
        return None
    words = method.unread(path, base)
    if words is not None:
        return f"{method.name} {words}"
    if config is None:
        return _reason(path, base, base.training)
    phase = config.training
    if path == "training.objective.nu":
        return None if keeps_radius or phase.objective.has_boundary else _NU
    if path.startswith("pretraining.") and config.pretraining is not None:
        phase = config.pretraining
    rest = path.removeprefix("pretraining.").removeprefix("training.")
    return _reason(rest, config, phase)


_NU = "it is of the objective soft-boundary (of one-class, of the radius of saved models alone)"


def _reason(rest: str, config: RunConfig, phase: PhaseConfig) -> str | None:
    if rest in _OF_A_NEW_CENTER and _brings_center(config):
        return "initial_model brings its center along"
    part, _, name = rest.partition(".")
    reason = phase.objective.why_unread(name) if part == "objective" else None
    if reason is not None:
        return reason
    need = _NEEDS.get(rest)
    return None if need is None or need.holds(config, phase) else need.reason


def check_settings(
    given: Iterable[tuple[str, str]],
    base: RunConfig,
    methods: Iterable[tuple[Reader, RunConfig | None]],
    keeps_radius: bool,
) -> None:
    """Refuses settings that no method reads.

    Args:
      given: flags that were given, each with the place of its setting.
      base: the configuration of the flags.
      methods: of the call, each with its configuration, None for a baseline.
      keeps_radius: see `why_unread`.

    Raises:
      ConfigError: names the flag and says why it has no effect.
    """
    for name, path in given:
        reasons = [
            why_unread(path, method, base, config, keeps_radius) for method, config in methods
        ]
        if None not in reasons:
            raise ConfigError(f"--{name} has no effect here: {reasons[0]}")


# Flags of the data, and the data sets that read them; all but embedded ones read `data_dir`.
_DATA_READERS = {
    "image_size": ("folder", "gtsrb"),
    "channels": ("folder",),
    "pixel_range": ("folder",),
    "max_megapixels": ("folder",),
    "prepare": ("mnist", "fashion_mnist", "kmnist", "cifar10"),
}
_EMBEDDED = ("digits",)


def check_data(values: flags.FlagValues) -> None:
    """Refuses flags of the data that the data set does not read.

    Raises:
      ConfigError: names the flag and the data sets that it is for.
    """
    # Outliers may be a folder of images, or a data set below the same folder.
    of_outliers = ("max_megapixels", "data_dir") if "outliers" in values and values.outliers else ()
    of_folders = tuple(name for name in datasets.LOADERS if name not in _EMBEDDED)
    for name, readers in {**_DATA_READERS, "data_dir": of_folders}.items():
        given = values[name].value not in (None, False)
        if given and values.dataset not in readers and name not in of_outliers:
            raise ConfigError(
                f"--{name} has no effect here: it is for --dataset={' or '.join(readers)}, and "
                f"the data set is {values.dataset}"
            )


def check_label_flags(values: flags.FlagValues, has_labels: bool, has_anomalies: bool) -> None:
    """Refuses flags on known anomalies where there are none.

    Args:
      values: parsed flags.
      has_labels: whether samples of the training set are known anomalies.
      has_anomalies: whether there are any, synthetic ones included.

    Raises:
      ConfigError: names the flag and those that would give it an effect.
    """
    sources = "--labelled_ratio or --outliers"
    if values.balanced_batches is not None and not has_labels:
        raise ConfigError(f"--balanced_batches has no effect here: it needs {sources}")
    if values.eta is not None and not has_anomalies:
        raise ConfigError(f"--eta has no effect here: it needs {sources}, or --synthetic_anomalies")


def check_threshold(values: flags.FlagValues) -> None:
    """Refuses flags of another rule for the threshold than the chosen one.

    Raises:
      ConfigError: names the flag and the rule that it is of.
    """
    rules = {
        "threshold_quantile": "quantile",
        "false_alarm_rate": "conformal",
        "contamination": "contamination",
    }
    for name, rule in rules.items():
        if values[name].value != values[name].default and values.threshold != rule:
            raise ConfigError(f"--{name} has no effect here: it is of --threshold={rule}")
    fraction = values["calibration_fraction"]
    if values.calibration == "cross" and fraction.value != fraction.default:
        raise ConfigError(
            "--calibration_fraction has no effect here: it is of --calibration=held-out"
        )
