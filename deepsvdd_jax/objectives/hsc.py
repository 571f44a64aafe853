"""The hypersphere classifier, HSC (Ruff et al. 2020, Rethinking Assumptions in Deep Anomaly
Detection), and the loss of a distance that FCDD shares with it."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import HSCConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Losses, Objective
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState

# Added to 1 - exp(-h) of an anomaly: one at distance 0 has a finite loss.
EPSILON = 1e-9
_LN_2 = 0.6931471805599453


def pseudo_huber(squared_norms: Array) -> Array:
    """Returns h = sqrt(||phi||^2 + 1) - 1 of squared norms, without cancellation near 0."""
    return squared_norms / (jnp.sqrt(squared_norms + 1.0) + 1.0)


def minus_log_complement(values: Array) -> Array:
    """Returns -log(1 - exp(-h) + 1e-9), h >= 0: the loss of an anomaly at distance h.

    Exact to rounding for small and for large h, where the plain formula loses all digits in
    float32, with finite gradients everywhere.
    """
    is_far = values > _LN_2
    near = -jnp.log(-jnp.expm1(-jnp.where(is_far, 0.0, values)) + EPSILON)
    far = -jnp.log1p(EPSILON - jnp.exp(-jnp.where(is_far, values, 1.0)))
    return jnp.where(is_far, far, near)


def distance_losses(values: Array, labels: Array) -> Array:
    """Returns h of normal and unlabelled examples, -log(1 - exp(-h) + 1e-9) of known anomalies.

    Args:
      values: `[n]`, distances h.
      labels: int `[n]`, negative of known anomalies.
    """
    return jnp.where(labels < 0, minus_log_complement(values), values)


def hsc(config: HSCConfig) -> Objective:
    """Returns the objective: its score is h, its center the origin, and biases are allowed, since
    labels on both sides forbid a collapse."""

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        assert batch.labels is not None
        forward = apply(params, batch, key)
        values = pseudo_huber(jnp.sum(jnp.square(forward.embeddings), axis=1))
        return Losses(distance_losses(values, batch.labels), values, forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        forward = evaluate(state.params, state.statistics, images)
        return pseudo_huber(jnp.sum(jnp.square(forward.embeddings), axis=1))

    return Objective(losses, score, statistics_first=config.statistics_first, has_center=False)
