"""Settings of the classifier and of the attack of `gtsrb_adversarial`."""

import dataclasses

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.configs.checks import (
    check_count,
    check_not_negative,
    check_positive,
    check_range,
)

STOP_CLASS = 14


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Settings of the attacked classifier.

    Attributes:
      epochs: passes over the training set.
      batch_size: images a step; an epoch leaves out those that do not fill a batch.
      learning_rate: of Adam at the start; it falls to 0 along a cosine.
      dropout: share of the last stage's values that is dropped in training.
      shift: training images are moved by up to so many pixels, edges repeated.
      stop_class: label of the class whose accuracy is reported, and that is attacked.
    """

    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 2e-3
    dropout: float = 0.5
    shift: int = 2
    stop_class: int = STOP_CLASS

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)
        check_range("dropout", self.dropout, 0.0, 1.0, right_open=True)
        check_not_negative("shift", self.shift)
        check_not_negative("stop_class", self.stop_class)


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Settings of the attack.

    Attributes:
      count: how many.
      steps: of the Boundary Attack; each asks the classifier once, every tenth twice. Median
        distance of 20 GTSRB stop signs after 300, 2,000, 10,000: 3.8, 2.7, 1.7 (80 s on one core).
      spherical_step: first step along the sphere around the original, relative to the distance.
        Foolbox's own 0.01 needs thousands of steps more, since it adapts every 1,000 only.
      source_step: first step towards the original, relative to the distance.
      candidates: an attack starts from the best of the so many starting images that are nearest
        to its original.
      seed: of the choice of the originals and of the attack's random directions.
    """

    count: int = 20
    steps: int = 10_000
    spherical_step: float = 0.1
    source_step: float = 0.02
    candidates: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_count("steps", self.steps)
        check_positive("spherical_step", self.spherical_step)
        check_positive("source_step", self.source_step)
        check_count("candidates", self.candidates)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; it must lie in [0, {2**32 - 1}]")
