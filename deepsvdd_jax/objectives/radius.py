"""The soft boundary's radius (equation 3 of Ruff et al. 2018)."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.objectives.state import Hyperparameters, TrainState


def soft_boundary_losses(distances: Array, squared_radius: Array, nu: Array | float) -> Array:
    """Returns R^2 + (1 / nu) max(0, d - R^2), `[n]`: equation (3) of Ruff et al. 2018."""
    return squared_radius + jnp.maximum(0.0, distances - squared_radius) / nu


def exact_squared_radius(distances: Array, nu: Array | float, mask: Array | None = None) -> Array:
    """Returns the R^2 that minimises R^2 + 1 / (nu n) sum max(0, d - R^2) for given d.

    The minimiser is the (n - floor(nu n))-th smallest d, an order statistic and not an interpolated
    quantile: the loss is piecewise linear in R^2 with kinks at the d.

    Args:
      distances: `[n]`, squared distances.
      nu: in (0, 1].
      mask: bool `[n]`, False on padding.
    """
    ordered, count = _sorted(distances, mask)
    # nu n is an integer for many a nu that float32 cannot represent: 0.1 * 70 must count as 7.
    outside = jnp.floor(nu * count + 1e-4).astype(jnp.int32)
    return ordered[jnp.clip(count - outside - 1, 0)]


def put_exact_radius(
    state: TrainState, distances: Array, valid: Array, settings: Hyperparameters
) -> TrainState:
    """Sets R^2 to the exact solution for the distances of a run's images."""
    return state._replace(squared_radius=exact_squared_radius(distances, settings.nu, valid))


def quantile_squared_radius(
    distances: Array, nu: Array | float, mask: Array | None = None
) -> Array:
    """Returns the square of the interpolated (1 - nu) quantile of the distances sqrt(d).

    This is how the authors' PyTorch code sets the radius from a batch.

    Args:
      distances: `[n]`, squared distances.
      nu: in (0, 1].
      mask: bool `[n]`, False on padding.
    """
    ordered, count = _sorted(distances, mask)
    position = (1.0 - nu) * (count - 1)
    low = jnp.floor(position).astype(jnp.int32)
    fraction = position - low
    high = jnp.minimum(low + 1, count - 1)
    roots = jnp.sqrt(jnp.stack([ordered[low], ordered[high]]))
    return jnp.square(roots[0] + fraction * (roots[1] - roots[0]))


def _sorted(values: Array, mask: Array | None) -> tuple[Array, Array]:
    """Returns the values in ascending order, padding last, and how many are not padding."""
    if mask is None:
        return jnp.sort(values), jnp.asarray(values.shape[0], jnp.int32)
    return jnp.sort(jnp.where(mask, values, jnp.inf)), jnp.maximum(
        jnp.sum(mask, dtype=jnp.int32), 1
    )
