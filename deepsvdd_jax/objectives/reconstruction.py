"""The autoencoder: mean summed reconstruction error; pretraining, and by itself the DCAE."""

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import ObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Forward, Losses, Objective
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


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


def penalised(config: ObjectiveConfig, values: Array, forward: Forward, batch: Batch) -> Array:
    """Adds the reconstruction errors to the losses `[batch]` of a hypersphere, where they have a
    weight (Theano code)."""
    if not config.reconstruction_penalty:
        return values
    assert forward.outputs is not None
    errors = reconstruction_errors(forward.outputs, batch.images, config.reconstruction_error)
    return values + config.reconstruction_penalty * errors


def reconstruction(config: ObjectiveConfig) -> Objective:
    """Returns the objective; its score is the reconstruction error, its center stays 0."""

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        forward = apply(params, batch, key)
        assert forward.outputs is not None
        errors = reconstruction_errors(forward.outputs, batch.images, config.reconstruction_error)
        return Losses(errors, errors, forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        outputs = evaluate(state.params, state.statistics, images).outputs
        assert outputs is not None
        return reconstruction_errors(outputs, images, config.reconstruction_error)

    return Objective(
        losses=losses,
        score=score,
        statistics_first=config.statistics_first,
        has_center=False,
        key_number=1,
    )
