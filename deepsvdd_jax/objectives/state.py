"""The state of a run and a batch of it, which an objective reads and changes."""

from typing import Any, NamedTuple

import numpy as np
from jax import Array

from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.networks import BatchStats, Params

# The reasons in `TrainState.failure` for which a run was stopped for good.
NOT_FAILED, NON_FINITE, NO_RADIUS = 0, 1, 2
FAILURES = {
    NON_FINITE: "the loss was not finite; lower the learning rate",
    NO_RADIUS: "the radius of the soft boundary vanished; raise nu or the batch size",
}


class Hyperparameters(NamedTuple):
    """Settings that may differ between the runs of one program; scalars, traced."""

    nu: Array
    weight_decay: Array
    learning_rate: Array


class TrainState(NamedTuple):
    """Everything that changes while a run trains; arrays only.

    Attributes:
      params: dict with `encoder` and, where something is reconstructed, `decoder`.
      statistics: running averages of the batch statistics, likewise.
      opt_state: optax's.
      center: `[rep_dim]`; zeros while an autoencoder trains.
      squared_radius: R^2, scalar; 0 where there is none.
      step: int32, steps taken.
      epoch: int32, epochs finished.
      active: bool; False once the run has stopped or failed, after which nothing changes.
      failure: int32, one of `NOT_FAILED`, `NON_FINITE`, `NO_RADIUS`.
    """

    params: Params
    statistics: BatchStats
    opt_state: Any
    center: Array
    squared_radius: Array
    step: Array
    epoch: Array
    active: Array
    failure: Array

    @property
    def optimizer_state(self) -> Any:
        """The former name of `opt_state`."""
        return self.opt_state


class Batch(NamedTuple):
    """Training examples of one step.

    Attributes:
      images: float32 network input `[batch, ...]`.
      mask: bool `[batch]`, False on padding.
      labels: int32 `[batch]`, 0 unlabelled, 1 known to be normal, -1 known to be anomalous; None
        is 0 for all.
      regions: bool `[batch, height, width]`, True on the pixels that make an image anomalous, none
        of them where that is not known; None is not known for all.
    """

    images: Array
    mask: Array
    labels: Array | None = None
    regions: Array | None = None


def default_hyperparameters(phase: PhaseConfig) -> Hyperparameters:
    """Returns the settings of a phase as scalars that can be stacked and vmapped."""
    values = (phase.objective.nu, phase.weight_decay, phase.optimizer.learning_rate)
    scalars: Any = map(np.float32, values)
    return Hyperparameters(*scalars)
