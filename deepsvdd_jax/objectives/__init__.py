"""What is minimised, an objective a file, as pure functions.

An objective of one's own is a file and a line of `register` below; see docs/extending.md.
"""

import functools
from collections.abc import Callable

from deepsvdd_jax.configs import BaseObjectiveConfig, ObjectiveConfig, register_objective_config
from deepsvdd_jax.objectives.base import (
    Apply,
    EpochPass,
    Evaluate,
    Forward,
    Losses,
    Objective,
    Pass,
)
from deepsvdd_jax.objectives.dual import svdd_dual
from deepsvdd_jax.objectives.hypersphere import (
    away_from_zero,
    hypersphere,
    hypersphere_loss,
    squared_distances,
)
from deepsvdd_jax.objectives.one_class import one_class
from deepsvdd_jax.objectives.radius import (
    exact_squared_radius,
    put_exact_radius,
    quantile_squared_radius,
    soft_boundary_losses,
)
from deepsvdd_jax.objectives.reconstruction import reconstruction, reconstruction_errors
from deepsvdd_jax.objectives.reduction import masked_mean, squared_kernel_norm
from deepsvdd_jax.objectives.soft_boundary import soft_boundary
from deepsvdd_jax.objectives.state import (
    FAILURES,
    NO_RADIUS,
    NON_FINITE,
    NOT_FAILED,
    Batch,
    Hyperparameters,
    TrainState,
    default_hyperparameters,
)

_FACTORIES: dict[str, Callable[..., Objective]] = {}


def register(config: type[BaseObjectiveConfig], **factories: Callable[..., Objective]) -> None:
    """Makes an objective known to programs, JSON and flags.

    Args:
      config: its settings; the values of their `kind` are its names.
      factories: `(config) -> Objective` of each name, underscores for hyphens.
    """
    for kind in register_objective_config(config):
        _FACTORIES[kind] = factories[kind.replace("-", "_")]


register(
    ObjectiveConfig, one_class=one_class, soft_boundary=soft_boundary, reconstruction=reconstruction
)


@functools.lru_cache(maxsize=64)
def objective(config: BaseObjectiveConfig) -> Objective:
    """Returns the objective of some settings."""
    return _FACTORIES[config.kind](config)


__all__ = [
    "Apply",
    "Batch",
    "EpochPass",
    "Evaluate",
    "FAILURES",
    "Forward",
    "Hyperparameters",
    "Losses",
    "NON_FINITE",
    "NOT_FAILED",
    "NO_RADIUS",
    "Objective",
    "Pass",
    "TrainState",
    "away_from_zero",
    "default_hyperparameters",
    "exact_squared_radius",
    "hypersphere",
    "hypersphere_loss",
    "masked_mean",
    "objective",
    "one_class",
    "put_exact_radius",
    "quantile_squared_radius",
    "reconstruction",
    "reconstruction_errors",
    "register",
    "soft_boundary",
    "soft_boundary_losses",
    "squared_distances",
    "squared_kernel_norm",
    "svdd_dual",
]
