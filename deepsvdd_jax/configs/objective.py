"""What a phase minimises."""

import dataclasses
from typing import Literal

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_count,
    check_literals,
    check_most,
    check_not_negative,
    check_positive,
)


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
        check_literals(self)
        if not 0.0 < self.nu <= 1.0:
            raise ConfigError(f"nu is {self.nu}; it must lie in (0, 1]")
        if self.warm_up_epochs < 0:
            raise ConfigError(f"warm_up_epochs is {self.warm_up_epochs}; it must be 0 or more")
        if self.radius_every < 1:
            raise ConfigError(f"radius_every is {self.radius_every}; it must be at least 1")
        check_most("warm_up_epochs", self.warm_up_epochs)
        check_most("radius_every", self.radius_every)
        check_positive("radius_rate", self.radius_rate)
        if self.center_batches is not None:
            check_count("center_batches", self.center_batches)
        check_not_negative("center_floor", self.center_floor)
        check_not_negative("reconstruction_penalty", self.reconstruction_penalty)
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
