"""The figures of an epoch, and how a history of them is packed."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.objectives import TrainState


class EpochInfo(NamedTuple):
    """The figures of an epoch, from its training batches, each at the weights before its step.

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
    # Elsewhere it is fraction_outside; here the name is a column of histories and a key of saved
    # programs, which are read back.
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
    """Returns an epoch's figures as one row, float32 `[INFO_WIDTH]`: a program whose history is one
    array instead of eleven compiles faster. Zeros are an epoch that was not run."""
    return jnp.concatenate([jnp.ravel(figure).astype(jnp.float32) for figure in info])


def unpacked_info(rows: npt.NDArray[np.float32]) -> EpochInfo:
    """Returns the figures of rows `[..., INFO_WIDTH]` of `packed_info`, numpy `[..., *shape]`."""
    ends = np.cumsum([math.prod(figure.shape) for figure in _FIGURES.values()])
    parts: Any = [
        part.reshape((*rows.shape[:-1], *figure.shape)).astype(figure.dtype)
        for part, figure in zip(np.split(rows, ends[:-1], -1), _FIGURES.values(), strict=True)
    ]
    return EpochInfo(*parts)


def describe_epoch(
    before: TrainState,
    after: TrainState,
    distances: Array,
    valid: Array,
    loss: Array,
    data_loss: Array,
) -> EpochInfo:
    ordered = jnp.sort(jnp.where(valid, distances, jnp.inf))
    count = jnp.maximum(jnp.sum(valid, dtype=jnp.int32), 1)
    positions = jnp.asarray(DISTANCE_QUANTILES, jnp.float32) * (count - 1)
    change = jax.tree.map(lambda new, old: new - old, after.params, before.params)
    return EpochInfo(
        ran=jnp.ones((), bool),
        loss=loss,
        data_loss=data_loss,
        mean_distance=objectives.masked_mean(distances, valid),
        distance_quantiles=ordered[jnp.round(positions).astype(jnp.int32)],
        radius=jnp.sqrt(jnp.maximum(after.squared_radius, 0.0)),
        outside=objectives.masked_mean(
            (distances > after.squared_radius).astype(jnp.float32), valid
        ),
        parameter_norm=jnp.sqrt(objectives.squared_kernel_norm(after.params)),
        parameter_change=jnp.sqrt(objectives.squared_kernel_norm(change)),
        center_drift=jnp.linalg.norm(after.center - before.center),
        learning_rate=jnp.zeros((), jnp.float32),
    )
