"""Binary cross-entropy: the plain classifier that HSC is measured against."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import BCEConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Losses, Objective
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def bce_losses(logits: Array, labels: Array, focus: float = 0.0) -> Array:
    """Returns -(1 - p)^focus log p, `[n]`, p being the probability of an example's own side.

    Args:
      logits: `[n]`, of being anomalous.
      labels: int `[n]`, negative of known anomalies; all others count as normal.
      focus: 0 is binary cross-entropy; a higher one gives less weight to well-classified examples.
    """
    own = jnp.where(labels < 0, logits, -logits)
    losses = jax.nn.softplus(-own)
    return losses * jax.nn.sigmoid(-own) ** focus if focus else losses


def bce(config: BCEConfig) -> Objective:
    """Returns the objective. The logit is the sum over an embedding, as one linear layer of width 1
    would give it; the score is log(1 + exp(logit)) = -log p(normal), which has the order of the
    logits and is never negative."""

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
        logits = jnp.sum(forward.embeddings, axis=1)
        values = bce_losses(logits, batch.labels, config.focus)
        return Losses(values, jax.nn.softplus(logits), forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        forward = evaluate(state.params, state.statistics, images)
        return jax.nn.softplus(jnp.sum(forward.embeddings, axis=1))

    return Objective(losses, score, statistics_first=config.statistics_first, has_center=False)
