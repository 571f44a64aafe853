"""A phase of training, a run of one or two phases, and a detector of several runs.

A configuration is static: a program is compiled for it. What may differ between the runs of a
program (key, class, nu, weight decay, learning rate) is an array beside it.
"""

import dataclasses
from typing import Literal, get_args

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_choice,
    check_count,
    check_literals,
    check_not_negative,
    check_range,
)
from deepsvdd_jax.configs.data import PreprocessingConfig
from deepsvdd_jax.configs.network import NetworkConfig
from deepsvdd_jax.configs.objective import BaseObjectiveConfig, ObjectiveConfig
from deepsvdd_jax.configs.optimizer import OptimizerConfig

AUGMENTATIONS = ("shift", "flip", "jitter", "noise")

SyntheticKind = Literal[
    "confetti",
    "cutpaste",
    "lines",
    "mix",
    "blobs",
    "cracks",
    "surface",
    "rotate",
    "shuffle",
    "recolor",
    "whole",
]
# Each image gets one kind of these at random.
SYNTHETIC_MIXTURES: dict[str, tuple[SyntheticKind, ...]] = {
    "mix": ("confetti", "cutpaste", "lines"),
    "surface": ("confetti", "cutpaste", "lines", "blobs", "cracks"),
    "whole": ("rotate", "shuffle", "recolor"),
}

EXPORT_PLATFORMS = ("cpu", "cuda", "tpu")


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
      augment: random changes of training images, any of `shift`, `flip`, `jitter` and `noise`;
        None makes none.
      synthetic_anomalies: turns every second image of a batch that is not a known anomaly into an
        anomaly: by small defects (`confetti`, `cutpaste`, `lines` or a `mix` of them), or as a
        whole (`rotate` by right angles, `shuffle` its quarters, `recolor`, or any of these:
        `whole`); None makes none.
    """

    objective: BaseObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = 50
    batch_size: int = 200
    weight_decay: float = 1e-6
    weight_decay_factor: float = 0.5
    whole_batches: bool = False
    stop_below: float | None = None
    augment: tuple[str, ...] | None = None
    synthetic_anomalies: SyntheticKind | None = None

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        for name in self.augment or ():
            check_choice("augment", name, AUGMENTATIONS)
        if self.synthetic_anomalies is not None:
            check_choice("synthetic_anomalies", self.synthetic_anomalies, get_args(SyntheticKind))
            if not self.objective.uses_labels:
                raise ConfigError(
                    f"synthetic_anomalies: objective {self.objective.kind} does not learn from "
                    "anomalies; take hsc, fcdd, bce or deep-sad"
                )
        check_not_negative("weight_decay", self.weight_decay)
        check_not_negative("weight_decay_factor", self.weight_decay_factor)
        if self.stop_below is not None:
            check_not_negative("stop_below", self.stop_below)
        if self.whole_batches and self.objective.draws_balanced:
            raise ConfigError(
                "whole_batches shuffles fixed batches, balanced_batches draws them; give one"
            )

    @property
    def stochastic(self) -> bool:
        """Whether a step draws random numbers beside those of dropout."""
        return bool(self.augment or self.synthetic_anomalies or self.objective.stochastic)


# Each seed of a sweep or an ensemble is a network to train.
MOST_SEEDS = 100_000


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of a run, which needs only its key and its data beside them.

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
        check_literals(self)
        if not 0.0 < self.threshold_quantile <= 1.0:
            raise ConfigError(
                f"threshold_quantile is {self.threshold_quantile}; it must lie in (0, 1]"
            )
        if self.pretraining is not None and not self.pretraining.objective.is_autoencoder:
            raise ConfigError("pretraining must have a reconstruction objective")
        maps = getattr(self.network, "fully_convolutional", True)
        if self.training.objective.needs_map and not maps:
            raise ConfigError(
                f"objective {self.training.objective.kind} needs a fully convolutional network, as "
                "network=fcdd"
            )
        self._check_logits()
        if self.training.objective.needs_masks and getattr(self.network, "padding", "") != "same":
            raise ConfigError("map_masks needs a network of this package with padding=same")
        if self.needs_decoder and maps and hasattr(self.network, "fully_convolutional"):
            raise ConfigError(
                f"network {self.network.name} is fully convolutional and has no decoder; train "
                "without autoencoder (pretrain_epochs=0)"
            )
        if self.first_layer == "dictionary" and self.network.is_dense:
            raise ConfigError(
                f"first_layer dictionary needs convolutions; network {self.network.name} has none"
            )

    def _check_logits(self) -> None:
        logits, network = self.training.objective.logits, self.network
        if not logits:
            return
        what = f"objective {self.training.objective.kind} takes {logits} entries of an embedding"
        if getattr(network, "fully_convolutional", None):
            raise ConfigError(f"{what}; network {network.name} makes a map")
        if getattr(network, "rep_dim", logits) < logits:
            raise ConfigError(f"{what}; rep_dim is {network.rep_dim}")

    @property
    def needs_decoder(self) -> bool:
        """Whether any phase reconstructs its input."""
        return self.pretraining is not None or self.training_reconstructs

    @property
    def training_reconstructs(self) -> bool:
        """Whether the evaluated phase uses the decoder."""
        return self.training.objective.reconstructs


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """A detector: the runs to train, and the rule for the threshold.

    Attributes:
      run: of every member.
      seeds: one member each; several make an ensemble.
      calibration_fraction: share of the normals that is held out of training, for p-values and the
        `conformal` threshold.
      threshold_rule: `quantile` (`run.threshold_quantile` of the training scores), `contamination`
        (a share of all given samples lies above), `radius` (outside the sphere: d > R^2, whose nu
        is the objective's) or `conformal` (a normal lies above with probability `alarm_rate` at
        most). With few samples for the network, training samples lie much closer to the center than
        new ones; only `conformal` allows for that.
      contamination: share of the samples that is anomalous, for the rule of that name.
      alarm_rate: bound of the false-alarm rate, for the rule `conformal` (the flag
        `--false_alarm_rate`).
      calibration: `held-out` takes p-values and threshold from a share of the normals that no
        member is trained on; `cross`, for small sets, deals the normals into as many folds as there
        are members, each of which is trained on all but one.
      embedding_score: compares new embeddings with the `center`, the five nearest training
        embeddings (`neighbors`), or their mean and covariance (`mahalanobis`).
    """

    run: RunConfig = RunConfig()
    seeds: tuple[int, ...] = (0,)
    calibration_fraction: float = 0.0
    threshold_rule: Literal["quantile", "contamination", "radius", "conformal"] = "quantile"
    contamination: float = 0.1
    alarm_rate: float = 0.01
    calibration: Literal["held-out", "cross"] = "held-out"
    embedding_score: Literal["center", "neighbors", "mahalanobis"] = "center"

    def __post_init__(self) -> None:
        check_literals(self)
        if not self.seeds:
            raise ConfigError("seeds is empty; give at least one")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds are {self.seeds}; they must be distinct and not negative")
        check_range("calibration_fraction", self.calibration_fraction, 0.0, 1.0, right_open=True)
        if self.calibration == "cross":
            if self.threshold_rule != "conformal":
                raise ConfigError("calibration cross needs threshold_rule conformal")
            if len(self.seeds) < 2:
                raise ConfigError("calibration cross needs at least 2 seeds, one a fold")
        elif self.threshold_rule == "conformal" and not self.calibration_fraction:
            raise ConfigError("threshold_rule conformal needs a calibration_fraction above 0")
        if not 0.0 < self.contamination <= 0.5:
            raise ConfigError(f"contamination is {self.contamination}; it must lie in (0, 0.5]")
        if not 0.0 < self.alarm_rate < 1.0:
            raise ConfigError(f"false_alarm_rate is {self.alarm_rate}; it must lie in (0, 1)")
