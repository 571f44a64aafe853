"""One-class Deep SVDD: the mean squared distance to the center (equation 4 of Ruff et al. 2018)."""

from jax import Array

from deepsvdd_jax.configs import ObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Losses, Objective, Pass
from deepsvdd_jax.objectives.hypersphere import hypersphere, squared_distances
from deepsvdd_jax.objectives.radius import put_exact_radius
from deepsvdd_jax.objectives.reconstruction import penalised
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def one_class(config: ObjectiveConfig) -> Objective:
    """Returns the objective: d, and the reconstruction error where it has a weight."""

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
        return Losses(penalised(config, distances, forward, batch), distances, forward.statistics)

    def trainable(state: TrainState) -> dict[str, Array]:
        return {"center": state.center} if config.center_rule == "gradient" else {}

    base = hypersphere(config)
    passes = base.first_passes
    if config.radius_rule == "gradient":
        passes = (*passes, Pass("distances", put_exact_radius))
    return base._replace(losses=losses, trainable=trainable, first_passes=passes)
