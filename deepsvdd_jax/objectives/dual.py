"""The dual of support vector data description, solved by projected gradients."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.objectives.hypersphere import squared_distances
from deepsvdd_jax.objectives.radius import exact_squared_radius, soft_boundary_losses
from deepsvdd_jax.objectives.reduction import masked_mean


def svdd_dual(
    embeddings: Array, nu: Array | float, mask: Array | None = None, iterations: int = 2000
) -> tuple[Array, Array, Array]:
    """Solves for the center and the radius together, the representations fixed.

    Minimises R^2 + 1 / (nu n) sum max(0, ||phi_i - c||^2 - R^2) over c and R^2 by its dual (Tax
    and Duin 2004): minimise ||sum alpha_i phi_i||^2 - sum alpha_i ||phi_i||^2 over sum alpha_i = 1,
    0 <= alpha_i <= 1 / (nu n); then c = sum alpha_i phi_i. Accelerated projected gradient with
    restarts; the projection onto the capped simplex is found by bisection.

    Args:
      embeddings: `[n, rep_dim]`.
      nu: in (0, 1].
      mask: bool `[n]`, False on padding.
      iterations: gradient steps.

    Returns:
      The center `[rep_dim]`, the squared radius, and the duality gap (relative to the objective).
    """
    mask = jnp.ones(embeddings.shape[0], bool) if mask is None else mask
    count = jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)
    cap = jnp.where(mask, 1.0 / (nu * count), 0.0)
    # The dual does not depend on where the origin is; near the data its numbers are small.
    origin = jnp.sum(jnp.where(mask[:, None], embeddings, 0.0), 0) / count
    points = jnp.where(mask[:, None], embeddings - origin[None], 0.0)
    norms = jnp.sum(jnp.square(points), 1)
    step = 0.5 / jnp.maximum(_largest_eigenvalue(points.T @ points), 1e-30)

    def objective(alpha: Array) -> Array:
        return jnp.sum(jnp.square(alpha @ points)) - jnp.sum(alpha * norms)

    def improve(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        alpha, ahead, momentum = carry
        gradient = 2.0 * (points @ (ahead @ points)) - norms
        new = _onto_capped_simplex(ahead - step * gradient, cap)
        restart = jnp.sum(gradient * (new - alpha)) > 0
        momentum = jnp.where(restart, 1.0, momentum)
        following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.square(momentum)))
        ahead = new + jnp.where(restart, 0.0, (momentum - 1.0) / following) * (new - alpha)
        return new, ahead, following

    start = _onto_capped_simplex(cap, cap)
    alpha, _, _ = jax.lax.fori_loop(
        0, iterations, improve, (start, start, jnp.ones((), jnp.float32))
    )
    center = alpha @ points
    distances = squared_distances(points, center)
    squared_radius = exact_squared_radius(distances, nu, mask)
    primal = masked_mean(soft_boundary_losses(distances, squared_radius, nu), mask)
    gap = (primal + objective(alpha)) / jnp.maximum(primal, 1e-30)
    return center + origin, squared_radius, gap


def _largest_eigenvalue(matrix: Array) -> Array:
    return jnp.linalg.eigvalsh(matrix)[-1]


def _onto_capped_simplex(values: Array, cap: Array) -> Array:
    """Projects onto sum = 1, 0 <= x <= cap, by bisection for the shift."""
    low, high = jnp.min(values - cap) - 1.0, jnp.max(values) + 1.0

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        too_much = jnp.sum(jnp.clip(values - middle, 0.0, cap)) > 1.0
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    low, high = jax.lax.fori_loop(0, 40, halve, (low, high))
    return jnp.clip(values - 0.5 * (low + high), 0.0, cap)
