"""What a run carries from step to step, and what it trains on."""

from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import PartitionSpec as Spec
from jax.sharding import get_abstract_mesh

from deepsvdd_jax.configs import PhaseConfig
from deepsvdd_jax.networks import Params, Statistics

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


def default_hyperparameters(phase: PhaseConfig) -> Hyperparameters:
    """Returns the settings of a phase as scalars that can be stacked and vmapped."""
    values = (phase.objective.nu, phase.weight_decay, phase.optimizer.learning_rate)
    scalars: Any = map(np.float32, values)
    return Hyperparameters(*scalars)


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
