"""A run's view of the images that all runs share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import PartitionSpec as Spec
from jax.sharding import get_abstract_mesh

from deepsvdd_jax.objectives.state import Batch
from deepsvdd_jax.preprocessing import scaled

# Axis of a mesh over whose devices the batches of a run are split.
DATA_AXIS = "data"


class RunData(NamedTuple):
    """One run's view of the images that all runs share.

    Attributes:
      indices: int32 `[n]`, which images of the pool it trains on, padding last.
      count: int32, how many of them are not padding.
      shift: network input = (image - shift) * scale.
      scale: see `shift`.
      labels: int32 `[n]`, of these images: 0 unlabelled, 1 known to be normal, -1 known to be
        anomalous; None is 0 for all.
      region_rows: int32 `[n]`, of each image its row in `regions`; None where nothing is marked.
      regions: bool `[k + 1, height, width]`, True on pixels that are known to be anomalous; nothing
        is marked in the first.
    """

    indices: Array
    count: Array  # type: ignore[assignment]  # hides tuple.count
    shift: Array
    scale: Array
    labels: Array | None = None
    region_rows: Array | None = None
    regions: Array | None = None

    def of_images(self, change: Callable[[Array], Array]) -> "RunData":
        """Returns a view with a function applied to every array along `[n]`."""
        every = ("indices", "labels", "region_rows")
        given = {name: value for name in every if (value := getattr(self, name)) is not None}
        return self._replace(**{name: change(value) for name, value in given.items()})


def run_data(
    indices: npt.NDArray[np.integer],
    size: int,
    shift: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    count: int | None = None,
    labels: npt.NDArray[np.integer] | None = None,
    regions: npt.NDArray[np.bool_] | None = None,
) -> RunData:
    """Returns a run's view as numpy arrays, because every conversion to jax's own would be
    compiled. Its indices are filled up to `size`, and it trains on the first `count` of them, by
    default all. `labels` belong to `indices`, all 0 where None; `regions` are the anomalous pixels
    of the last k of them, bool `[k, height, width]`."""
    padded = np.pad(indices, (0, size - len(indices))).astype(np.int32)
    scaling = (np.asarray(values, np.float32) for values in (shift, scale))
    trained = len(indices) if count is None else count
    known = np.zeros(len(indices), np.int32) if labels is None else labels
    known = np.pad(known, (0, size - len(indices))).astype(np.int32)
    parts: Any = (padded, np.int32(trained), *scaling, known)
    if regions is not None:
        rows = np.zeros(size, np.int32)
        rows[len(indices) - len(regions) : len(indices)] = np.arange(1, len(regions) + 1)
        parts += (rows, np.concatenate([np.zeros((1, *regions.shape[1:]), bool), regions]))
    return RunData(*parts)


def take_batch(images: Array, data: RunData, positions: Array, mask: Array) -> Batch:
    """Gathers the images at `positions` `[batch]` of a run and scales them."""
    labels = jnp.zeros(mask.shape, jnp.int32) if data.labels is None else data.labels[positions]
    regions = None
    if data.regions is not None and data.region_rows is not None:
        regions = split_over_devices(data.regions[data.region_rows[positions]])
    return Batch(scaled_images(images, data, data.indices[positions]), mask, labels, regions)


def scaled_images(images: Array, data: RunData, indices: Array) -> Array:
    """Gathers images of a pool as a run's network input, split over the devices of the run."""
    return split_over_devices(scaled(images[indices], data.shift, data.scale))


def split_over_devices(batch: Array) -> Array:
    """Asks the compiler to split a batch `[batch, ...]` over the axis `data` of the mesh that the
    program runs on, if there is one; no value changes.

    The program stays one about the whole batch: from here on the compiler splits what follows and
    adds up what is summed over the batch.
    """
    if DATA_AXIS not in get_abstract_mesh().auto_axes:
        return batch
    return jax.lax.with_sharding_constraint(batch, Spec(DATA_AXIS))
