"""Objectives, one a file, as pure functions of one run.

A new objective is a file and a line of `register` below; see docs/extending.md.
"""

import functools
from collections.abc import Callable

from deepsvdd_jax.configs import (
    BaseObjectiveConfig,
    BCEConfig,
    DeepSADConfig,
    FCDDConfig,
    HSCConfig,
    ObjectiveConfig,
    TransformationsConfig,
    register_objective_config,
)
from deepsvdd_jax.objectives.base import (
    Apply,
    EpochPass,
    Evaluate,
    Forward,
    Losses,
    Objective,
    Pass,
)
from deepsvdd_jax.objectives.bce import bce, bce_losses
from deepsvdd_jax.objectives.deep_sad import deep_sad, deep_sad_losses
from deepsvdd_jax.objectives.dual import svdd_dual
from deepsvdd_jax.objectives.fcdd import anomaly_map, fcdd, masked_map_losses
from deepsvdd_jax.objectives.hsc import (
    distance_losses,
    hsc,
    minus_log_complement,
    pseudo_huber,
)
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
from deepsvdd_jax.objectives.transformations import transformations

FACTORIES: dict[str, Callable[..., Objective]] = {}


def register(config: type[BaseObjectiveConfig], **factories: Callable[..., Objective]) -> None:
    """Makes an objective known to programs, JSON and flags.

    Args:
      config: its settings; the values of their `kind` are its names.
      factories: `(config) -> Objective` of each name, underscores for hyphens.
    """
    for kind in register_objective_config(config):
        FACTORIES[kind] = factories[kind.replace("-", "_")]


register(
    ObjectiveConfig, one_class=one_class, soft_boundary=soft_boundary, reconstruction=reconstruction
)
register(DeepSADConfig, deep_sad=deep_sad)
register(HSCConfig, hsc=hsc)
register(BCEConfig, bce=bce)
register(FCDDConfig, fcdd=fcdd)
register(TransformationsConfig, transformations=transformations)


@functools.lru_cache(maxsize=64)
def objective(config: BaseObjectiveConfig) -> Objective:
    """Returns the objective of some settings."""
    return FACTORIES[config.kind](config)


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
    "anomaly_map",
    "away_from_zero",
    "bce",
    "bce_losses",
    "deep_sad",
    "deep_sad_losses",
    "default_hyperparameters",
    "distance_losses",
    "exact_squared_radius",
    "fcdd",
    "hsc",
    "hypersphere",
    "hypersphere_loss",
    "masked_map_losses",
    "masked_mean",
    "minus_log_complement",
    "objective",
    "one_class",
    "pseudo_huber",
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
    "transformations",
]
