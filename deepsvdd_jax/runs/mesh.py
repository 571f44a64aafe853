"""The mesh of devices with the axes `run` and `data`, and the placement of arrays on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import training
from deepsvdd_jax.configs import ConfigError, RunConfig


def make_mesh(devices: list[jax.Device] | None = None, data: int = 1) -> Mesh:
    """Returns a mesh over the given devices or all local ones, with the axes `run` and `data`.

    Args:
      devices: a multiple of `data`.
      data: devices over which every batch of a run is split; losses, batch statistics and
        quantiles stay those of the whole batch.

    Raises:
      ConfigError: the devices cannot be put into groups of `data`.
    """
    devices = jax.local_devices() if devices is None else devices
    if data < 1 or len(devices) % data:
        raise ConfigError(f"{len(devices)} devices cannot be put into groups of {data} a run")
    grid = np.asarray(devices).reshape(-1, data)
    return Mesh(grid, ("run", training.DATA_AXIS), axis_types=(AxisType.Auto,) * 2)


def places_for_runs(mesh: Mesh) -> int:
    """Returns how many runs train at the same time; a program's width is a multiple of it."""
    return mesh.shape["run"]


def check_data_devices(config: RunConfig, data: int) -> None:
    """Refuses batches that cannot be split evenly over so many devices.

    Raises:
      ConfigError: says which batch size and how many devices.
    """
    for phase in (config.pretraining, config.training):
        if phase is not None and phase.batch_size % data:
            raise ConfigError(
                f"batches of {phase.batch_size} images cannot be split evenly over {data} devices; "
                f"the batch size must be a multiple of {data}"
            )


def place(mesh: Mesh, per_run: Any) -> Any:
    """Puts arrays with a leading axis of runs on the devices of a mesh, each where it trains."""
    return jax.device_put(per_run, NamedSharding(mesh, Spec("run")))
