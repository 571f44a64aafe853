"""The mathematics: distances, losses, weight decay, center and radius.

Notation of Ruff et al., Deep One-Class Classification (ICML 2018): phi are representations `[n,
rep_dim]`, c the center `[rep_dim]`, d = ||phi - c||^2 a *squared* distance, R^2 the squared radius.
Losses return one value an example; `masked_mean` averages. A mask is False where an example is
padding; it is applied by selection, never by a product, so that nothing leaks out of padding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import ObjectiveConfig


def squared_distances(codes: Array, center: Array) -> Array:
    """Returns d = ||phi - c||^2, `[n]`, of representations `[n, rep_dim]` and a center."""
    return jnp.sum(jnp.square(codes - center[None]), axis=1)


def masked_mean(values: Array, mask: Array | None = None) -> Array:
    """Averages `[n]` over the examples whose mask is True; 0 if there is none."""
    if mask is None:
        return jnp.mean(values)
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask), 1)


def soft_boundary_losses(distances: Array, squared_radius: Array, nu: Array | float) -> Array:
    """Returns R^2 + (1 / nu) max(0, d - R^2), `[n]`: equation (3) of Ruff et al. 2018."""
    return squared_radius + jnp.maximum(0.0, distances - squared_radius) / nu


def reconstruction_errors(outputs: Array, images: Array, kind: str = "squared") -> Array:
    """Returns the reconstruction error of every image, `[n]`, *summed* over its pixels.

    Args:
      outputs: `[n, ...]`, reconstructions; in (0, 1) for `cross-entropy`.
      images: `[n, ...]`, what should have come out; in [0, 1] for `cross-entropy`.
      kind: `squared` or `cross-entropy`.
    """
    if kind == "squared":
        errors = jnp.square(outputs - images)
    else:
        # Float32 rounds a saturated sigmoid to 0 or 1, whose logarithm is infinite.
        outputs = jnp.clip(outputs, 1e-7, 1.0 - 1e-7)
        errors = -(images * jnp.log(outputs) + (1.0 - images) * jnp.log1p(-outputs))
    return jnp.sum(errors, axis=tuple(range(1, errors.ndim)))


def squared_kernel_norm(params: Any) -> Array:
    """Returns sum_l ||W_l||_F^2 over convolution and dense kernels, never biases or scales."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [
        leaf for path, leaf in leaves if getattr(path[-1], "key", None) in ("kernel", "embedding")
    ]
    return sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), jnp.zeros(()))


def hypersphere_loss(
    codes: Array,
    center: Array,
    params: Any,
    objective: ObjectiveConfig,
    *,
    mask: Array | None = None,
    squared_radius: Array | float = 0.0,
    nu: Array | float | None = None,
    weight_decay: Array | float = 1e-6,
    weight_decay_factor: float = 0.5,
) -> Array:
    """Returns the loss of a batch, weight decay included, a scalar.

    One-class: mean d (equation 4 of Ruff et al. 2018); soft-boundary: mean of
    `soft_boundary_losses` (equation 3). Both plus factor * lambda * sum_l ||W_l||_F^2; the factor
    is 1/2 in the paper and 2 in the ITU report.

    Args:
      codes: `[n, rep_dim]`, representations.
      center: `[rep_dim]`.
      params: the network's parameters, for the decay.
      objective: says which loss; its nu holds where `nu` is None.
      mask: bool `[n]`, False on padding.
      squared_radius: R^2, of the soft boundary.
      nu: in (0, 1], may be traced.
      weight_decay: lambda.
      weight_decay_factor: see above.
    """
    losses = squared_distances(codes, center)
    if objective.kind == "soft-boundary":
        nu = objective.nu if nu is None else nu
        losses = soft_boundary_losses(losses, jnp.asarray(squared_radius), nu)
    decay = weight_decay_factor * weight_decay * squared_kernel_norm(params)
    return masked_mean(losses, mask) + decay


# --- center -------------------------------------------------------------------------------------


def away_from_zero(center: Array, floor: float) -> Array:
    """Moves components with |c_i| < floor to floor, sign kept; an exact zero becomes +floor.

    A component at 0 can be met by zero weights, the trivial solution. Both original codes leave
    exact zeros alone.
    """
    pushed = jnp.where(center < 0, -floor, floor)
    return jnp.where(jnp.abs(center) < floor, pushed, center)


# --- radius -------------------------------------------------------------------------------------


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
        return jnp.sort(values), jnp.asarray(values.shape[0])
    return jnp.sort(jnp.where(mask, values, jnp.inf)), jnp.maximum(jnp.sum(mask), 1)


def svdd_dual(
    codes: Array, nu: Array | float, mask: Array | None = None, iterations: int = 2000
) -> tuple[Array, Array, Array]:
    """Solves for the center and the radius together, the representations fixed.

    Minimises R^2 + 1 / (nu n) sum max(0, ||phi_i - c||^2 - R^2) over c and R^2 by its dual (Tax
    and Duin 2004): minimise ||sum alpha_i phi_i||^2 - sum alpha_i ||phi_i||^2 over sum alpha_i = 1,
    0 <= alpha_i <= 1 / (nu n); then c = sum alpha_i phi_i. Accelerated projected gradient with
    restarts; the projection onto the capped simplex is found by bisection.

    Args:
      codes: `[n, rep_dim]`.
      nu: in (0, 1].
      mask: bool `[n]`, False on padding.
      iterations: gradient steps.

    Returns:
      The center `[rep_dim]`, the squared radius, and the duality gap (relative to the objective).
    """
    mask = jnp.ones(codes.shape[0], bool) if mask is None else mask
    count = jnp.maximum(jnp.sum(mask), 1)
    cap = jnp.where(mask, 1.0 / (nu * count), 0.0)
    # The dual does not depend on where the origin is; near the data its numbers are small.
    origin = jnp.sum(jnp.where(mask[:, None], codes, 0.0), 0) / count
    points = jnp.where(mask[:, None], codes - origin[None], 0.0)
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
    alpha, _, _ = jax.lax.fori_loop(0, iterations, improve, (start, start, jnp.ones(())))
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
