"""Optimisers and learning rates, without the rate itself, which is traced."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig
from deepsvdd_jax.networks import BatchStats, Params
from deepsvdd_jax.objectives import TrainState


@functools.lru_cache(maxsize=64)
def descent(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns the solver's direction, still to be multiplied by minus the learning rate."""
    momentum, rho = config.momentum, config.rho
    transformations = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(momentum),
        "nesterov": lambda: optax.trace(momentum, nesterov=True),
        # Lasagne's start value and its epsilon under the root.
        "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-6),
        "rmsprop": lambda: optax.scale_by_rms(0.9 if rho is None else rho, eps=1e-6),
        "adadelta": lambda: optax.scale_by_adadelta(0.95 if rho is None else rho, eps=1e-6),
        "adam": optax.scale_by_adam,
        "adamax": optax.scale_by_adamax,
        "amsgrad": optax.scale_by_amsgrad,
        "amsgrad_torch": _scale_by_torch_amsgrad,
    }
    return transformations[config.name]()


class _TorchAmsgrad(NamedTuple):
    """Steps taken, both moments, and the largest second moment so far, not bias-corrected."""

    step: Array
    mean: Any
    square: Any
    largest: Any


def _scale_by_torch_amsgrad(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Returns torch's `Adam(amsgrad=True)`: the maximum is taken of the second moments themselves,
    and then bias-corrected; optax takes the maximum of the corrected ones, which the first steps
    dominate for long."""

    def init(params: Any) -> _TorchAmsgrad:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _TorchAmsgrad(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(
        gradients: Any, state: _TorchAmsgrad, params: Any = None
    ) -> tuple[Any, _TorchAmsgrad]:
        del params
        step = state.step + 1
        mean = jax.tree.map(lambda old, new: b1 * old + (1 - b1) * new, state.mean, gradients)
        square = jax.tree.map(
            lambda old, new: b2 * old + (1 - b2) * jnp.square(new), state.square, gradients
        )
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        taken = step.astype(jnp.float32)
        first, second = 1 - b1**taken, 1 - b2**taken

        def direction(mean: Array, largest: Array) -> Array:
            return (mean / first) / (jnp.sqrt(largest / second) + eps)

        return jax.tree.map(direction, mean, largest), _TorchAmsgrad(step, mean, square, largest)

    return optax.GradientTransformation(init, update)


def learning_rate_factor(config: OptimizerConfig, epoch: Array) -> Array:
    """Returns the factor on the learning rate in an epoch (counted from 0)."""
    epoch = jnp.asarray(epoch)
    factor = jnp.ones((), jnp.float32)
    for milestone in config.milestones:
        factor = factor * jnp.where(epoch >= milestone, jnp.float32(config.drop_factor), 1.0)
    start = config.decay_after_epoch
    if start is not None:
        factor = factor * jnp.where(epoch > start, start / jnp.maximum(epoch, 1), 1.0)
    return factor


def trained_parts(phase: PhaseConfig, state: TrainState) -> dict[str, Params | Array]:
    """Returns the parts of the state that the optimiser changes: weights, and those that the
    objective trains beside them."""
    others = objectives.objective(phase.objective).trainable(state)
    return {"params": state.params, **others}


def start_phase(
    phase: PhaseConfig,
    params: Params,
    statistics: BatchStats,
    center: Array,
    squared_radius: Array,
) -> TrainState:
    """Returns the state before the first step of a phase, with a fresh optimiser."""
    state = TrainState(
        params=params,
        statistics=statistics,
        opt_state=None,
        center=center,
        squared_radius=squared_radius,
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        active=jnp.ones((), bool),
        failure=jnp.zeros((), jnp.int32),
    )
    opt_state = descent(phase.optimizer).init(trained_parts(phase, state))
    return state._replace(opt_state=opt_state)
