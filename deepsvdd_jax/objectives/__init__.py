"""Losses and their center, radius and weights, as pure functions."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.objectives.dual import svdd_dual
    from deepsvdd_jax.objectives.hypersphere import (
        away_from_zero,
        hypersphere_loss,
        squared_distances,
    )
    from deepsvdd_jax.objectives.radius import (
        exact_squared_radius,
        quantile_squared_radius,
        soft_boundary_losses,
    )
    from deepsvdd_jax.objectives.reconstruction import reconstruction_errors
    from deepsvdd_jax.objectives.reduction import masked_mean, squared_kernel_norm

__getattr__, __dir__ = attach(
    __name__,
    {
        "dual": ("svdd_dual",),
        "hypersphere": (
            "away_from_zero",
            "hypersphere_loss",
            "squared_distances",
        ),
        "radius": (
            "exact_squared_radius",
            "quantile_squared_radius",
            "soft_boundary_losses",
        ),
        "reconstruction": ("reconstruction_errors",),
        "reduction": (
            "masked_mean",
            "squared_kernel_norm",
        ),
    },
)

__all__ = [
    "away_from_zero",
    "exact_squared_radius",
    "hypersphere_loss",
    "masked_mean",
    "quantile_squared_radius",
    "reconstruction_errors",
    "soft_boundary_losses",
    "squared_distances",
    "squared_kernel_norm",
    "svdd_dual",
]
