"""Settings of the objectives that learn from known anomalies."""

import dataclasses
from typing import Literal

from deepsvdd_jax.configs.checks import ConfigError, check_not_negative, check_positive
from deepsvdd_jax.configs.objective import BaseObjectiveConfig, register_objective_config


@dataclasses.dataclass(frozen=True)
class LabelledObjectiveConfig(BaseObjectiveConfig):
    """Settings shared by the objectives that learn from labels.

    Attributes:
      balanced_batches: draw batches half known anomalies, half all others, where there are any.
    """

    balanced_batches: bool = True

    @property
    def uses_labels(self) -> bool:
        return True

    @property
    def needs_anomalies(self) -> bool:
        return True

    @property
    def draws_balanced(self) -> bool:
        return self.balanced_batches


@dataclasses.dataclass(frozen=True)
class DeepSADConfig(LabelledObjectiveConfig):
    """Settings of Deep SAD, which is one-class Deep SVDD where there are no labels.

    Attributes:
      eta: weight of a labelled example beside an unlabelled one.
      balanced_batches: False by default: its authors shuffle all examples together.
    """

    kind: Literal["deep-sad"] = "deep-sad"
    eta: float = 1.0
    balanced_batches: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("eta", self.eta)

    @property
    def needs_anomalies(self) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class HSCConfig(LabelledObjectiveConfig):
    """Settings of the hypersphere classifier."""

    kind: Literal["hsc"] = "hsc"


@dataclasses.dataclass(frozen=True)
class BCEConfig(LabelledObjectiveConfig):
    """Settings of the plain classifier.

    Attributes:
      focus: exponent of the focal loss (Lin et al. 2017); 0 is binary cross-entropy.
    """

    kind: Literal["bce"] = "bce"
    focus: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("focus", self.focus)


@dataclasses.dataclass(frozen=True)
class FCDDConfig(LabelledObjectiveConfig):
    """Settings of fully convolutional data description; its network is fully convolutional.

    Attributes:
      map_share: the score is the mean of this share of the map's values, the highest: 1 in the
        paper, 0.01 finds small defects better.
      map_loss_share: the loss takes the mean of this share of the map's values, the highest: 1 in
        the paper, where a false alarm in a few of many pixels costs next to nothing. None is 1.
      map_masks: learn from masks where anomalies are: from those of synthetic anomalies, in fit
        also from those that lie beside labelled defects. The loss takes the mean of the map outside
        a mask as that of a normal image, and the mean inside as that of an anomaly. None is False.
    """

    kind: Literal["fcdd"] = "fcdd"
    map_share: float = 1.0
    map_loss_share: float | None = None
    map_masks: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.map_share <= 1.0:
            raise ConfigError(f"map_share is {self.map_share}; it must lie in (0, 1]")
        if not 0.0 < self.loss_share <= 1.0:
            raise ConfigError(f"map_loss_share is {self.loss_share}; it must lie in (0, 1]")

    @property
    def loss_share(self) -> float:
        """The share of the map's values that enters the loss."""
        return 1.0 if self.map_loss_share is None else self.map_loss_share

    @property
    def needs_map(self) -> bool:
        return True

    @property
    def needs_masks(self) -> bool:
        return bool(self.map_masks)

    @property
    def without_masks(self) -> "FCDDConfig":
        return dataclasses.replace(self, map_masks=None)


for _config in (DeepSADConfig, HSCConfig, FCDDConfig, BCEConfig):
    register_objective_config(_config)
