"""The training step, the epoch, and the state that they carry: pure functions of arrays.

A step works on one batch of one run. Many runs are a vmap (or a loop, or a mesh) around it, which
is the business of `runs.py`.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array
from jax.sharding import PartitionSpec as Spec
from jax.sharding import get_abstract_mesh

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig
from deepsvdd_jax.networks import Network, Params, Statistics

# Share of the old value in the running average of the batch statistics, as in both original codes.
STATISTICS_MOMENTUM = 0.9

# Axis of a mesh over whose devices the batches of a run are split.
DATA_AXIS = "data"

# Why a run was stopped for good: `TrainState.failure`.
NOT_FAILED, NON_FINITE, NO_RADIUS = 0, 1, 2
FAILURES = {
    NON_FINITE: "the loss was not finite; lower the learning rate",
    NO_RADIUS: "the radius of the soft boundary vanished; raise nu or the batch size",
}


class Hyperparameters(NamedTuple):
    """Settings that may differ between the runs of one program; scalars, traced."""

    nu: Array
    weight_decay: Array
    learning_rate: Array


class TrainState(NamedTuple):
    """All that changes while a run trains; arrays only.

    Attributes:
      params: dict with `encoder` and, where something is reconstructed, `decoder`.
      statistics: running averages of the batch statistics, likewise.
      optimizer_state: optax's.
      center: `[rep_dim]`; zeros while an autoencoder trains.
      squared_radius: R^2, scalar; 0 where there is none.
      step: int32, steps taken.
      epoch: int32, epochs finished.
      active: bool; False once the run has stopped or failed, after which nothing changes.
      failure: int32, one of `NOT_FAILED`, `NON_FINITE`, `NO_RADIUS`.
    """

    params: Params
    statistics: Statistics
    optimizer_state: Any
    center: Array
    squared_radius: Array
    step: Array
    epoch: Array
    active: Array
    failure: Array


class Batch(NamedTuple):
    """float32 network input `[batch, ...]`, and a bool mask `[batch]` that is False on padding."""

    images: Array
    mask: Array


class StepInfo(NamedTuple):
    """What a step tells: the loss, its part without decay, and each example's squared distance
    (or reconstruction error), `[batch]`, at the weights before the step."""

    loss: Array
    data_loss: Array
    distances: Array


def default_hyperparameters(phase: PhaseConfig) -> Hyperparameters:
    """Returns the settings of a phase as scalars that can be stacked and vmapped."""
    values = (phase.objective.nu, phase.weight_decay, phase.optimizer.learning_rate)
    scalars: Any = map(np.float32, values)
    return Hyperparameters(*scalars)


# --- optimiser ----------------------------------------------------------------------------------


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
    }
    return transformations[config.name]()


def learning_rate_factor(config: OptimizerConfig, epoch: Array) -> Array:
    """Returns what the learning rate is multiplied by in an epoch (counted from 0)."""
    epoch = jnp.asarray(epoch)
    factor = jnp.ones((), jnp.float32)
    for milestone in config.milestones:
        factor = factor * jnp.where(epoch >= milestone, jnp.float32(config.drop_factor), 1.0)
    start = config.decay_after_epoch
    if start is not None:
        factor = factor * jnp.where(epoch > start, start / jnp.maximum(epoch, 1), 1.0)
    return factor


def _trained(phase: PhaseConfig, state: TrainState) -> dict[str, Any]:
    """Picks what the optimiser changes: weights, and center and radius where their rule says so."""
    trained: dict[str, Any] = {"params": state.params}
    if phase.objective.kind != "reconstruction" and phase.objective.center_rule == "gradient":
        trained["center"] = state.center
    if phase.objective.kind == "soft-boundary" and phase.objective.radius_rule == "gradient":
        trained["squared_radius"] = state.squared_radius
    return trained


def start_phase(
    phase: PhaseConfig,
    params: Params,
    statistics: Statistics,
    center: Array,
    squared_radius: Array,
) -> TrainState:
    """Returns the state before the first step of a phase, with a fresh optimiser."""
    state = TrainState(
        params=params,
        statistics=statistics,
        optimizer_state=None,
        center=center,
        squared_radius=squared_radius,
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        active=jnp.ones((), bool),
        failure=jnp.zeros((), jnp.int32),
    )
    optimizer_state = descent(phase.optimizer).init(_trained(phase, state))
    return state._replace(optimizer_state=optimizer_state)


# --- step ---------------------------------------------------------------------------------------


class _Forward(NamedTuple):
    data_loss: Array
    distances: Array
    statistics: Statistics


def batch_loss(
    trained: dict[str, Any],
    state: TrainState,
    batch: Batch,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    key: Array | None = None,
) -> tuple[Array, _Forward]:
    """Returns the loss of a batch under the statistics of that batch, and what came with it.

    Equations (3) and (4) of Ruff et al. 2018, or the autoencoder's: mean summed squared error.
    """
    objective, params = phase.objective, trained["params"]
    # What is not finite in padding would reach the gradients as 0 * inf.
    kept = jnp.expand_dims(batch.mask, tuple(range(1, batch.images.ndim)))
    images = jnp.where(kept, batch.images, 0.0)
    codes, encoder_statistics = network.encode_batch(params, images, batch.mask, key)
    statistics = {"encoder": encoder_statistics}
    errors = None
    if "decoder" in params:
        outputs, statistics["decoder"] = network.decode_batch(params, codes, batch.mask)
        errors = objectives.reconstruction_errors(outputs, images, objective.reconstruction_error)
    if objective.kind == "reconstruction":
        assert errors is not None
        distances = losses = errors
    else:
        distances = losses = objectives.squared_distances(
            codes, trained.get("center", state.center)
        )
        if objective.kind == "soft-boundary":
            squared_radius = trained.get("squared_radius", state.squared_radius)
            losses = objectives.soft_boundary_losses(losses, squared_radius, hyperparameters.nu)
        if objective.reconstruction_penalty:
            assert errors is not None
            losses = losses + objective.reconstruction_penalty * errors
    data_loss = objectives.masked_mean(losses, batch.mask)
    decay = hyperparameters.weight_decay * objectives.squared_kernel_norm(params)
    loss = data_loss + phase.weight_decay_factor * decay
    return loss, _Forward(data_loss, distances, statistics)


def train_step(
    state: TrainState,
    batch: Batch,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters | None = None,
    key: Array | None = None,
) -> tuple[TrainState, StepInfo]:
    """One optimiser step on one batch of one run; pure, for jit, vmap, pmap and shard_map.

    Args:
      state: of the run.
      batch: float32 images `[batch, ...]` and bool mask `[batch]`; padding enters neither the loss
        nor the batch statistics, and a batch of nothing but padding changes nothing.
      network: static.
      phase: static; its nu, weight decay and learning rate hold where `hyperparameters` is None.
      hyperparameters: traced scalars.
      key: draws the dropout; None where the network has none.

    Returns:
      The new state, and the step's losses and distances.
    """
    if hyperparameters is None:
        hyperparameters = default_hyperparameters(phase)
    trained = _trained(phase, state)
    (loss, forward), gradients = jax.value_and_grad(batch_loss, has_aux=True)(
        trained, state, batch, network, phase, hyperparameters, key
    )
    direction, optimizer_state = descent(phase.optimizer).update(
        gradients, state.optimizer_state, trained
    )
    rate = hyperparameters.learning_rate * learning_rate_factor(phase.optimizer, state.epoch)
    if "squared_radius" in trained:
        direction["squared_radius"] *= phase.objective.radius_rate
    trained = jax.tree.map(lambda value, move: value - rate * move, trained, direction)
    new = state._replace(
        params=trained["params"],
        statistics=jax.tree.map(
            lambda old, seen: STATISTICS_MOMENTUM * old + (1.0 - STATISTICS_MOMENTUM) * seen,
            state.statistics,
            forward.statistics,
        ),
        optimizer_state=optimizer_state,
        center=trained.get("center", state.center),
        squared_radius=trained.get("squared_radius", state.squared_radius),
        step=state.step + 1,
    )
    if phase.objective.kind == "soft-boundary" and phase.objective.radius_rule == "quantile":
        new = _with_batch_radius(new, forward.distances, batch.mask, phase, hyperparameters.nu)
    some = jnp.any(batch.mask)
    new = jax.tree.map(lambda changed, old: jnp.where(some, changed, old), new, state)
    return new, StepInfo(loss, forward.data_loss, forward.distances)


def _with_batch_radius(
    state: TrainState, distances: Array, mask: Array, phase: PhaseConfig, nu: Array
) -> TrainState:
    """Sets the radius from the batch's distances once the warm-up is over (PyTorch code)."""
    radius = objectives.quantile_squared_radius(distances, nu, mask)
    warm = state.epoch >= phase.objective.warm_up_epochs
    return state._replace(squared_radius=jnp.where(warm, radius, state.squared_radius))


# --- epoch --------------------------------------------------------------------------------------


class RunData(NamedTuple):
    """One run's view of the images that all runs share.

    Attributes:
      indices: int32 `[n]`, which images of the pool it trains on, padding last.
      count: int32, how many of them are not padding.
      shift: network input = (image - shift) * scale.
      scale: see `shift`.
    """

    indices: Array
    count: Array  # type: ignore[assignment]  # hides tuple.count
    shift: Array
    scale: Array


def run_data(
    indices: npt.NDArray[np.integer],
    size: int,
    shift: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    count: int | None = None,
) -> RunData:
    """Returns a run's view as numpy arrays, its indices filled up to `size`, of which it trains on
    the first `count`, by default all; in jax's own every conversion would have to be compiled."""
    padded = np.pad(indices, (0, size - len(indices))).astype(np.int32)
    scaling = (np.asarray(values, np.float32) for values in (shift, scale))
    trained = len(indices) if count is None else count
    parts: Any = (padded, np.int32(trained), *scaling)
    return RunData(*parts)


class EpochInfo(NamedTuple):
    """What an epoch tells, from its training batches at the weights that each batch met.

    Attributes:
      ran: bool, False for an epoch after a stop, whose other entries mean nothing.
      loss: mean over the steps, decay included.
      data_loss: likewise without decay.
      mean_distance: mean squared distance (reconstruction error for an autoencoder).
      distance_quantiles: `[5]`, its 1, 25, 50, 75 and 99 % quantiles.
      radius: R, the root of R^2, after the epoch.
      outside: share of the training images with d > R^2.
      parameter_norm: root of the sum of the squares of all kernels, after the epoch.
      parameter_change: likewise of their change during the epoch.
      center_drift: ||c - c before the epoch||.
      learning_rate: of the epoch.
    """

    ran: Array
    loss: Array
    data_loss: Array
    mean_distance: Array
    distance_quantiles: Array
    radius: Array
    outside: Array
    parameter_norm: Array
    parameter_change: Array
    center_drift: Array
    learning_rate: Array


DISTANCE_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


# Shape and type of each of an epoch's figures, by name.
_FIGURES: dict[str, jax.ShapeDtypeStruct] = {
    name: jax.ShapeDtypeStruct((), np.float32) for name in EpochInfo._fields
} | {
    "ran": jax.ShapeDtypeStruct((), np.bool_),
    "distance_quantiles": jax.ShapeDtypeStruct((len(DISTANCE_QUANTILES),), np.float32),
}
INFO_WIDTH = sum(math.prod(figure.shape) for figure in _FIGURES.values())


def packed_info(info: EpochInfo) -> Array:
    """Returns what an epoch tells as one row, float32 `[INFO_WIDTH]`: a program that writes and
    returns a history of one array instead of eleven compiles faster. Zeros are an epoch that was
    not run."""
    return jnp.concatenate([jnp.ravel(figure).astype(jnp.float32) for figure in info])


def unpacked_info(rows: npt.NDArray[np.float32]) -> EpochInfo:
    """Returns rows `[..., INFO_WIDTH]` of `packed_info` as they were, numpy `[..., *shape]`."""
    ends = np.cumsum([math.prod(figure.shape) for figure in _FIGURES.values()])
    parts: Any = [
        part.reshape((*rows.shape[:-1], *figure.shape)).astype(figure.dtype)
        for part, figure in zip(np.split(rows, ends[:-1], -1), _FIGURES.values(), strict=True)
    ]
    return EpochInfo(*parts)


def epoch_order(key: Array, size: int, count: Array) -> Array:
    """Returns a random order of 0 .. count - 1, then the padding up to `size`; int32 `[size]`.

    The order depends on the key and on `count` alone: random bits do not depend on how many are
    drawn after them, a shuffle of `size` elements would.
    """
    bits = jax.random.bits(key, (size,), jnp.uint32)
    padding = jnp.arange(size) >= count
    bits = jnp.where(padding, jnp.uint32(0xFFFFFFFF), bits)
    return jnp.argsort(bits, stable=True).astype(jnp.int32)


def batch_order(key: Array, size: int, count: Array, batch_size: int) -> tuple[Array, Array]:
    """Returns an order of whole fixed batches and how many images they hold (Theano code)."""
    batches = -(-size // batch_size)
    whole = count // batch_size
    order = epoch_order(key, batches, whole)
    places = order[:, None] * batch_size + jnp.arange(batch_size, dtype=jnp.int32)[None]
    return jnp.minimum(places.reshape(-1), size - 1), whole * batch_size


def take_batch(images: Array, run: RunData, places: Array, mask: Array) -> Batch:
    """Gathers the images at `places` `[batch]` of a run and scales them."""
    return Batch(scaled_images(images, run, run.indices[places]), mask)


def scaled_images(images: Array, run: RunData, indices: Array) -> Array:
    """Gathers images of a pool as a run's network input, split over the devices of the run."""
    return split_over_devices((images[indices] - run.shift[None]) * run.scale[None])


def split_over_devices(batch: Array) -> Array:
    """Asks the compiler to split a batch `[batch, ...]` over the axis `data` of the mesh that the
    program runs on, if there is one; no value changes.

    The program stays one about the whole batch: from here on the compiler splits what follows and
    adds up what is summed over the batch.
    """
    if DATA_AXIS not in get_abstract_mesh().auto_axes:
        return batch
    return jax.lax.with_sharding_constraint(batch, Spec(DATA_AXIS))


class EpochUnderWay(NamedTuple):
    """An epoch between two of its steps.

    Attributes:
      state: after the last step.
      loss: sum over the steps so far, decay included.
      data_loss: likewise without decay.
      distances: `[steps * batch]`, of the examples in the order of the epoch, 0 where none was yet.
    """

    state: TrainState
    loss: Array
    data_loss: Array
    distances: Array


class EpochKeys(NamedTuple):
    """What an epoch draws with: its order, and the dropout of its steps (None: there is none)."""

    order: Array
    dropout: Array | None


def train_epoch(
    state: TrainState,
    images: Array,
    run: RunData,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    keys: EpochKeys,
) -> tuple[TrainState, EpochInfo]:
    """One pass over a run's images in random order.

    Args:
      state: of the run.
      images: float32 `[m, ...]`, the pool that all runs share.
      run: which of them are this run's.
      network: static.
      phase: static.
      hyperparameters: traced scalars.
      keys: of this epoch.
    """
    order, count = order_of_epoch(keys.order, run, phase)
    under_way = begin_epoch(state, order)
    under_way = take_steps(
        under_way, images, run, order, 0, count, network, phase, hyperparameters, keys.dropout
    )
    return end_epoch(state, under_way, count, phase, hyperparameters)


def order_of_epoch(key: Array, run: RunData, phase: PhaseConfig) -> tuple[Array, Array]:
    """Returns an epoch's order of a run's images, int32 `[steps * batch]` places in its indices
    with the padding last, and how many of them the epoch takes."""
    size, batch_size = run.indices.shape[0], phase.batch_size
    if phase.whole_batches:
        order, count = batch_order(key, size, run.count, batch_size)
    else:
        order, count = epoch_order(key, size, run.count), run.count
    steps = -(-size // batch_size)
    return jnp.pad(order, (0, steps * batch_size - order.shape[0])), count


def begin_epoch(state: TrainState, order: Array) -> EpochUnderWay:
    """Returns an epoch in that order before its first step."""
    return EpochUnderWay(state, jnp.zeros(()), jnp.zeros(()), jnp.zeros(order.shape))


def take_steps(
    under_way: EpochUnderWay,
    images: Array,
    run: RunData,
    order: Array,
    first: Array | int,
    count: Array,
    network: Network,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
    key: Array | None,
) -> EpochUnderWay:
    """Takes an epoch's next steps: all, or those whose images are at hand.

    Args:
      under_way: the epoch before these steps.
      images: float32 `[m, ...]`, a pool that holds at least their images.
      run: which of them are this run's.
      order: int32 `[steps * batch]`, places in the run's indices, of these steps.
      first: how many of the epoch's steps come before these.
      count: images that the whole epoch takes.
      network: static.
      phase: static.
      hyperparameters: traced scalars.
      key: draws the dropout of the epoch's steps; None where the network has none.
    """
    batch_size = phase.batch_size

    def body(index: Array, under_way: EpochUnderWay) -> EpochUnderWay:
        state, loss, data_loss, distances = under_way
        start = index * batch_size
        places = jax.lax.dynamic_slice(order, (start - first * batch_size,), (batch_size,))
        mask = start + jnp.arange(batch_size) < count
        batch = take_batch(images, run, places, mask)
        key_step = None if key is None else jax.random.fold_in(key, index)
        state, info = train_step(state, batch, network, phase, hyperparameters, key_step)
        return EpochUnderWay(
            state,
            loss + info.loss,
            data_loss + info.data_loss,
            jax.lax.dynamic_update_slice(distances, info.distances, (start,)),
        )

    # A traced number of steps: a run with fewer images than its neighbours takes fewer.
    last = jnp.minimum(first + order.shape[0] // batch_size, _steps(count, batch_size))
    return jax.lax.fori_loop(first, last, body, under_way)


def _steps(count: Array, batch_size: int) -> Array:
    return (count + batch_size - 1) // batch_size


def end_epoch(
    before: TrainState,
    under_way: EpochUnderWay,
    count: Array,
    phase: PhaseConfig,
    hyperparameters: Hyperparameters,
) -> tuple[TrainState, EpochInfo]:
    """Returns the state after an epoch's last step, and what the epoch tells."""
    state = under_way.state._replace(epoch=before.epoch + 1)
    valid = jnp.arange(under_way.distances.shape[0]) < count
    taken = jnp.maximum(_steps(count, phase.batch_size), 1)
    info = _describe_epoch(
        before,
        state,
        under_way.distances,
        valid,
        under_way.loss / taken,
        under_way.data_loss / taken,
    )
    rate = hyperparameters.learning_rate * learning_rate_factor(phase.optimizer, before.epoch)
    return state, info._replace(learning_rate=rate)


def _describe_epoch(
    before: TrainState,
    after: TrainState,
    distances: Array,
    valid: Array,
    loss: Array,
    data_loss: Array,
) -> EpochInfo:
    ordered = jnp.sort(jnp.where(valid, distances, jnp.inf))
    count = jnp.maximum(jnp.sum(valid), 1)
    places = jnp.asarray(DISTANCE_QUANTILES) * (count - 1)
    change = jax.tree.map(lambda new, old: new - old, after.params, before.params)
    return EpochInfo(
        ran=jnp.ones((), bool),
        loss=loss,
        data_loss=data_loss,
        mean_distance=objectives.masked_mean(distances, valid),
        distance_quantiles=ordered[jnp.round(places).astype(jnp.int32)],
        radius=jnp.sqrt(jnp.maximum(after.squared_radius, 0.0)),
        outside=objectives.masked_mean(
            (distances > after.squared_radius).astype(jnp.float32), valid
        ),
        parameter_norm=jnp.sqrt(objectives.squared_kernel_norm(after.params)),
        parameter_change=jnp.sqrt(objectives.squared_kernel_norm(change)),
        center_drift=jnp.linalg.norm(after.center - before.center),
        learning_rate=jnp.zeros(()),
    )
