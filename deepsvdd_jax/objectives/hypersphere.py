"""Distances to a center, and the functions that objectives with a center share."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import BaseObjectiveConfig, ObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Losses, Objective, Pass
from deepsvdd_jax.objectives.radius import soft_boundary_losses
from deepsvdd_jax.objectives.reduction import masked_mean, squared_kernel_norm
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def squared_distances(embeddings: Array, center: Array) -> Array:
    """Returns d = ||phi - c||^2, `[n]`, of embeddings `[n, rep_dim]` and a center."""
    return jnp.sum(jnp.square(embeddings - center[None]), axis=1)


def hypersphere_loss(
    embeddings: Array,
    center: Array,
    params: Params,
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
      embeddings: `[n, rep_dim]`.
      center: `[rep_dim]`.
      params: the network's parameters, for the decay.
      objective: says which loss; its nu holds where `nu` is None.
      mask: bool `[n]`, False on padding.
      squared_radius: R^2, of the soft boundary.
      nu: in (0, 1], may be traced.
      weight_decay: lambda.
      weight_decay_factor: see above.
    """
    losses = squared_distances(embeddings, center)
    if objective.kind == "soft-boundary":
        nu = objective.nu if nu is None else nu
        losses = soft_boundary_losses(losses, jnp.asarray(squared_radius), nu)
    decay = weight_decay_factor * weight_decay * squared_kernel_norm(params)
    return masked_mean(losses, mask) + decay


def away_from_zero(center: Array, floor: float) -> Array:
    """Moves components with |c_i| < floor to floor, sign kept; an exact zero becomes +floor.

    A component at 0 can be met by zero weights, the trivial solution. Both original codes leave
    exact zeros alone.
    """
    pushed = jnp.where(center < 0, -floor, floor)
    return jnp.where(jnp.abs(center) < floor, pushed, center)


def hypersphere(config: BaseObjectiveConfig) -> Objective:
    """Returns the objective whose loss is d, around the mean embedding of the training set or a
    constant. Other objectives around a center replace parts of it."""

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        forward = apply(params, batch, key)
        distances = squared_distances(forward.embeddings, state.center)
        return Losses(distances, distances, forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        forward = evaluate(state.params, state.statistics, images)
        return squared_distances(forward.embeddings, state.center)

    def put_center(
        state: TrainState, mean: Array, valid: Array, settings: Hyperparameters
    ) -> TrainState:
        return state._replace(center=away_from_zero(mean, config.center_floor))

    is_mean = config.center_init == "mean"
    return Objective(
        losses=losses,
        score=score,
        center=lambda rep_dim: jnp.full((rep_dim,), 0.0 if is_mean else 0.5, jnp.float32),
        statistics_first=config.statistics_first,
        first_passes=(Pass("mean", put_center, config.center_batches),) if is_mean else (),
    )
