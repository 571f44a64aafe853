"""An objective of one's own: Deep SVDD with the pseudo-Huber loss of a hypersphere classifier.

    python examples/05_custom_objective.py

`docs/extending.md` says what an objective is made of.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import deepsvdd_jax as svdd
from deepsvdd_jax import objectives
from deepsvdd_jax.configs import BaseObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives import Apply, Batch, Hyperparameters, Losses, TrainState


@dataclasses.dataclass(frozen=True)
class HuberConfig(BaseObjectiveConfig):
    """sqrt(d + 1) - 1: far training images, which may be unknown anomalies, pull less."""

    kind: Literal["huber"] = "huber"


def huber(config: HuberConfig) -> objectives.Objective:
    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        forward = apply(params, batch, key)
        distances = objectives.squared_distances(forward.embeddings, state.center)
        return Losses(jnp.sqrt(distances + 1.0) - 1.0, distances, forward.statistics)

    return objectives.hypersphere(config)._replace(losses=losses)


objectives.register(HuberConfig, huber=huber)

random = np.random.RandomState(0)
normal, anomalous = random.randn(200, 6), 4.0 + random.randn(20, 6)
recipe = svdd.preset("auto", "table", (6,))
training = dataclasses.replace(recipe.training, objective=HuberConfig(), epochs=20)
config = dataclasses.replace(recipe, training=training)
outcome, _ = svdd.train_runs(
    jax.random.split(jax.random.key(0), 2), config, normal.astype(np.float32), anomalous
)
inside = float(np.mean(np.asarray(outcome.train_distances)))
outside = float(np.mean(np.asarray(outcome.test_distances)))
print(f"mean squared distance: {inside:.3f} of the training rows, {outside:.3f} of the anomalies")
