"""Settings of the classifier and of the attack of `gtsrb_adversarial`."""

import dataclasses
import math

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
        _check_at_least("epochs", self.epochs, 1)
        _check_at_least("batch_size", self.batch_size, 1)
        _check_positive("learning_rate", self.learning_rate)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")
        _check_at_least("shift", self.shift, 0)
        _check_at_least("stop_class", self.stop_class, 0)


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
        _check_at_least("count", self.count, 1)
        _check_at_least("steps", self.steps, 1)
        _check_positive("spherical_step", self.spherical_step)
        _check_positive("source_step", self.source_step)
        _check_at_least("candidates", self.candidates, 1)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must lie in [0, {2**32 - 1}]")


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be positive")
