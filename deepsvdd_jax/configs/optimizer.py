"""A solver and its learning rates."""

import dataclasses

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_choice,
    check_most,
    check_positive,
    check_range,
)

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
    "amsgrad_torch",
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """A solver and the schedule of its learning rate.

    Attributes:
      name: the solver. `amsgrad` takes the maximum of the second moments after their bias
        correction (optax), `amsgrad_torch` before it (torch's `Adam(amsgrad=True)`).
      learning_rate: learning rate of the first epoch.
      milestones: epochs (counted from 0) from which the rate is multiplied by `drop_factor`,
        once more at each.
      drop_factor: factor on the rate at each of `milestones`.
      decay_after_epoch: from this epoch e0 on the rate is multiplied by e0 / e; None never.
      momentum: momentum of the solvers `momentum` and `nesterov`.
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
        check_choice("optimizer", self.name, OPTIMIZERS)
        check_positive("learning_rate", self.learning_rate)
        check_positive("drop_factor", self.drop_factor)
        check_range("momentum", self.momentum, 0.0, 1.0, right_open=True)
        if any(epoch < 1 for epoch in self.milestones):
            raise ConfigError(f"milestones are {self.milestones}; every one must be at least 1")
        if self.decay_after_epoch is not None and self.decay_after_epoch < 1:
            raise ConfigError(f"decay_after_epoch is {self.decay_after_epoch}; at least 1")
        check_most("the last milestone", max(self.milestones, default=0))
        check_most("decay_after_epoch", self.decay_after_epoch or 0)
        if self.rho is not None:
            check_range("rho", self.rho, 0.0, 1.0, right_open=True)
