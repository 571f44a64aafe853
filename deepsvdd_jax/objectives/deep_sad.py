"""Deep SAD (Ruff et al., ICLR 2020): Deep SVDD that keeps known anomalies away from the center."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import DeepSADConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Losses, Objective
from deepsvdd_jax.objectives.hypersphere import hypersphere, squared_distances
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState

# Added to a labelled example's distance, as in the authors' code: an anomaly on the center has a
# finite loss.
EPSILON = 1e-6


def deep_sad_losses(distances: Array, labels: Array, eta: float = 1.0) -> Array:
    """Returns d where y = 0, else eta (d + 1e-6)^y, `[n]`: the authors' loss of an example.

    Args:
      distances: `[n]`, squared distances d to the center.
      labels: int `[n]`, y: 0 unlabelled, 1 known to be normal, -1 known to be anomalous.
      eta: weight of labelled examples.
    """
    shifted = distances + EPSILON
    labelled = jnp.where(labels < 0, 1.0 / shifted, shifted)
    return jnp.where(labels == 0, distances, eta * labelled)


def deep_sad(config: DeepSADConfig) -> Objective:
    """Returns the objective; without labels it is one-class Deep SVDD."""

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
        distances = squared_distances(forward.embeddings, state.center)
        values = deep_sad_losses(distances, batch.labels, config.eta)
        return Losses(values, distances, forward.statistics)

    return hypersphere(config)._replace(losses=losses)
