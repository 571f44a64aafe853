"""The settings of an objective, which its `kind` identifies in JSON."""

import dataclasses
import typing
from typing import Literal

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_choice,
    check_count,
    check_literals,
    check_most,
    check_not_negative,
    check_positive,
    hints_of,
)


@dataclasses.dataclass(frozen=True)
class BaseObjectiveConfig:
    """Settings that every objective has; each objective adds its `kind` and its own settings.

    Attributes:
      kind: what is minimised, by its name on the command line and in JSON.
      nu: upper bound of the share of training points outside the sphere (soft-boundary); of every
        objective the share of training scores above the radius that is set after training.
      center_init: `mean` of the training representations or a `constant` 0.5.
      center_batches: batches whose mean is taken; None takes the whole training set.
      center_floor: components closer to 0 than this are moved to it, sign kept; 0 does nothing.
      statistics_first: set the running batch statistics from the training set before the center
        and the untrained scores; False evaluates with (0, 1) as both original codes do.
    """

    kind: str = ""
    nu: float = 0.1
    center_init: Literal["mean", "constant"] = "mean"
    center_batches: int | None = None
    center_floor: float = 0.1
    statistics_first: bool = True

    def __post_init__(self) -> None:
        check_literals(self)
        if not 0.0 < self.nu <= 1.0:
            raise ConfigError(f"nu is {self.nu}; it must lie in (0, 1]")
        if self.center_batches is not None:
            check_count("center_batches", self.center_batches)
        check_not_negative("center_floor", self.center_floor)

    @property
    def is_autoencoder(self) -> bool:
        """Whether it minimises the reconstruction error alone, as a pretraining does."""
        return False

    @property
    def reconstructs(self) -> bool:
        """Whether the decoder is trained too."""
        return self.is_autoencoder

    @property
    def uses_labels(self) -> bool:
        """Whether known anomalies and known normals enter the loss."""
        return False

    @property
    def needs_anomalies(self) -> bool:
        """Whether nothing can be learned without known anomalies."""
        return False

    @property
    def has_center(self) -> bool:
        """Whether the score is a distance to a center. An objective that needs anomalies is a
        classifier and has none."""
        return not (self.is_autoencoder or self.needs_anomalies)

    @property
    def stochastic(self) -> bool:
        """Whether a step draws random numbers beside those of dropout and of changed images."""
        return False

    @property
    def logits(self) -> int:
        """How many entries of an embedding are logits: the least `rep_dim`; 0 is none."""
        return 0

    @property
    def turns_images(self) -> bool:
        """Whether it turns images by right angles, so that they must be square."""
        return False

    @property
    def needs_map(self) -> bool:
        """Whether the network must be fully convolutional."""
        return False

    @property
    def needs_masks(self) -> bool:
        """Whether it learns from masks where anomalies are."""
        return False

    @property
    def without_masks(self) -> "BaseObjectiveConfig":
        """The same objective for known anomalies that have no masks."""
        return self

    @property
    def has_boundary(self) -> bool:
        """Whether the radius and nu enter the loss."""
        return False

    def why_unread(self, name: str) -> str | None:
        """Returns why one of its settings has no effect beside its others, None where it has."""
        return None if hasattr(self, name) else f"the objective {self.kind} has no such setting"

    @property
    def draws_balanced(self) -> bool:
        """Whether batches are half known anomalies, half all others, where there are any."""
        return False

    @property
    def of_ends(self) -> "BaseObjectiveConfig":
        """An objective with the same first state and outcome, whose compiled programs this one
        shares."""
        return self

    def check_epochs(self, epochs: int) -> None:
        """Refuses a number of epochs in which the objective cannot do its work.

        Raises:
          ConfigError: names the settings, and says which ones would work.
        """


# The rules for the radius of a soft boundary that read a setting.
_RULES_THAT_READ = {
    "radius_rule": ("quantile", "gradient", "block-coordinate"),
    "warm_up_epochs": ("quantile", "block-coordinate"),
    "radius_every": ("block-coordinate",),
    "radius_rate": ("gradient",),
}


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(BaseObjectiveConfig):
    """The objectives of Ruff et al. 2018, whose settings stand together, as in all their JSON.

    Attributes:
      kind: `one-class` (equation 4), `soft-boundary` (equation 3) or `reconstruction` (the
        autoencoder).
      radius_rule: of the soft boundary: `quantile` of every batch after the warm-up (PyTorch
        code), `gradient` or `block-coordinate` exact solution (Theano code).
      warm_up_epochs: `quantile`: epochs with radius 0; `block-coordinate`: epochs after each of
        which the radius is reset to the quantile; ignored by `gradient`.
      radius_every: `block-coordinate`: epochs between two exact solutions after the warm-up.
      radius_rate: `gradient`: factor on the learning rate of R^2. Adam moves R^2 by about one
        learning rate a step, however far it is from where it should be: at 1 (Theano code) it lags
        behind distances that shrink fast.
      center_rule: `fixed`, trained by `gradient`, or solved with the radius from the SVDD `dual`.
      reconstruction_error: `squared` (summed over an image) or `cross-entropy`.
      reconstruction_penalty: weight of the mean summed reconstruction error in the loss of a
        hypersphere objective, the decoder trained jointly (Theano code: 1 / (2 C_rec)); 0 is none.
    """

    kind: Literal["one-class", "soft-boundary", "reconstruction"] = "one-class"
    radius_rule: Literal["quantile", "gradient", "block-coordinate"] = "quantile"
    warm_up_epochs: int = 10
    radius_every: int = 5
    radius_rate: float = 1.0
    center_rule: Literal["fixed", "gradient", "dual"] = "fixed"
    reconstruction_error: Literal["squared", "cross-entropy"] = "squared"
    reconstruction_penalty: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_up_epochs < 0:
            raise ConfigError(f"warm_up_epochs is {self.warm_up_epochs}; it must be 0 or more")
        if self.radius_every < 1:
            raise ConfigError(f"radius_every is {self.radius_every}; it must be at least 1")
        check_most("warm_up_epochs", self.warm_up_epochs)
        check_most("radius_every", self.radius_every)
        check_positive("radius_rate", self.radius_rate)
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
    def is_autoencoder(self) -> bool:
        return self.kind == "reconstruction"

    @property
    def reconstructs(self) -> bool:
        return self.is_autoencoder or self.reconstruction_penalty > 0.0

    @property
    def has_boundary(self) -> bool:
        return self.kind == "soft-boundary"

    def why_unread(self, name: str) -> str | None:
        rules = _RULES_THAT_READ.get(name)
        if rules is None:
            return super().why_unread(name)
        if self.has_boundary and self.radius_rule in rules:
            return None
        of = "it is of the objective soft-boundary"
        if len(rules) == len(_RULES_THAT_READ["radius_rule"]):
            return of
        several = " with radius_rule " + " or ".join(rules)
        return of + (f" with radius_rule={rules[0]}" if len(rules) == 1 else several)

    @property
    def of_ends(self) -> "ObjectiveConfig":
        """The first state and the outcome do not depend on how the radius moves in between."""
        if not self.has_boundary or self.radius_rule == "gradient":
            return self
        default = ObjectiveConfig()
        return dataclasses.replace(
            self,
            kind="one-class",
            radius_rule=default.radius_rule,
            warm_up_epochs=default.warm_up_epochs,
            radius_every=default.radius_every,
            # A dual center rule solves between epochs, so it changes neither the first state nor
            # the outcome.
            center_rule="fixed" if self.center_rule == "dual" else self.center_rule,
        )

    def check_epochs(self, epochs: int) -> None:
        """Refuses a soft boundary that would have no radius to its end, or fail for want of one."""
        if not self.has_boundary or self.radius_rule == "gradient":
            return
        warm_up, every = self.warm_up_epochs, self.radius_every
        if self.radius_rule == "quantile":
            if epochs <= warm_up:
                raise ConfigError(
                    f"objective soft-boundary has no radius before the end of warm_up_epochs="
                    f"{warm_up} and trains for epochs={epochs}: give epochs above {warm_up} or "
                    f"warm_up_epochs below {epochs}"
                )
        elif warm_up == 0 and every > 1:
            raise ConfigError(
                f"radius_rule block-coordinate has no radius in its first epoch with "
                f"warm_up_epochs=0 and radius_every={every}: give warm_up_epochs of at least 1, or "
                "radius_every=1"
            )


CLASSES: dict[str, type[BaseObjectiveConfig]] = {}


def register_objective_config(config: type[BaseObjectiveConfig]) -> tuple[str, ...]:
    """Makes an objective's settings known to JSON and flags; returns its kinds."""
    kinds: tuple[str, ...] = typing.get_args(hints_of(config)["kind"])
    CLASSES.update(dict.fromkeys(kinds, config))
    return kinds


register_objective_config(ObjectiveConfig)


def objective_kinds() -> tuple[str, ...]:
    """Returns the names of all objectives."""
    return tuple(CLASSES)


def objective_class(kind: object) -> type[BaseObjectiveConfig]:
    """Returns the class of an objective's settings.

    Raises:
      ConfigError: there is no such objective.
    """
    check_choice("kind", kind, objective_kinds())
    return CLASSES[typing.cast(str, kind)]


def as_kind(config: BaseObjectiveConfig, kind: object) -> BaseObjectiveConfig:
    """Returns the settings of another objective, with all that both have in common.

    Raises:
      ConfigError: there is no such objective, or it forbids one of the settings.
    """
    new = objective_class(kind)
    names = {field.name for field in dataclasses.fields(new)} - {"kind"}
    kept = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return new(kind=typing.cast(str, kind), **kept)
