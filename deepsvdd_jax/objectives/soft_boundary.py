"""Soft-boundary Deep SVDD: a share nu of the images may leave the sphere (equation 3 of Ruff et al.
2018).

The radius comes from a rule: the quantile of every batch (PyTorch code), the gradient or an exact
solution between epochs (Theano code).
"""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import ObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, EpochPass, Losses, Objective, Pass
from deepsvdd_jax.objectives.dual import svdd_dual
from deepsvdd_jax.objectives.hypersphere import squared_distances
from deepsvdd_jax.objectives.one_class import one_class
from deepsvdd_jax.objectives.radius import (
    put_exact_radius,
    quantile_squared_radius,
    soft_boundary_losses,
)
from deepsvdd_jax.objectives.reconstruction import penalised
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def soft_boundary(config: ObjectiveConfig) -> Objective:
    """Returns the objective: R^2 + max(0, d - R^2) / nu, and the reconstruction error where it has
    a weight."""

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
        values = soft_boundary_losses(distances, state.squared_radius, settings.nu)
        return Losses(penalised(config, values, forward, batch), distances, forward.statistics)

    def trainable(state: TrainState) -> dict[str, Array]:
        radius = {"squared_radius": state.squared_radius}
        return base.trainable(state) | (radius if config.radius_rule == "gradient" else {})

    def after_step(
        state: TrainState, losses: Losses, batch: Batch, settings: Hyperparameters
    ) -> TrainState:
        """Sets the radius from the batch once the warm-up is over (PyTorch code)."""
        radius = quantile_squared_radius(losses.distances, settings.nu, batch.mask)
        warm = state.epoch >= config.warm_up_epochs
        return state._replace(squared_radius=jnp.where(warm, radius, state.squared_radius))

    def settled(state: TrainState) -> Array:
        by_batch = config.radius_rule == "quantile"
        return state.epoch > config.warm_up_epochs if by_batch else jnp.ones((), bool)

    def healthy(state: TrainState) -> Array:
        return ~settled(state) | (state.squared_radius > 0.0)

    def put_dual(
        state: TrainState, embeddings: Array, valid: Array, settings: Hyperparameters
    ) -> TrainState:
        center, squared_radius, _ = svdd_dual(embeddings, settings.nu, valid)
        return state._replace(center=center, squared_radius=squared_radius)

    def is_due(epoch: Array | int) -> Array | bool:
        """After every epoch of the warm-up, then every `radius_every` epochs (Theano code)."""
        past = epoch + 1 - config.warm_up_epochs
        return (past <= 0) | (past % config.radius_every == 0)

    base = one_class(config)
    objective = base._replace(
        losses=losses,
        has_radius=True,
        trainable=trainable,
        rates=(("squared_radius", config.radius_rate),),
        healthy=healthy,
        settled=settled,
    )
    if config.radius_rule == "quantile":
        return objective._replace(after_step=after_step)
    if config.radius_rule == "block-coordinate":
        dual = config.center_rule == "dual"
        solve = Pass("embeddings", put_dual) if dual else Pass("distances", put_exact_radius)
        return objective._replace(after_epoch=EpochPass(is_due, solve))
    return objective
