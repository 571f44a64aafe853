"""Runs the networks of a model on any number of images, in batches of one size, on all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import preprocessing, runs
from deepsvdd_jax.configs import BaseObjectiveConfig, NetworkConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import columns
from deepsvdd_jax.detectors.inputs import Images, check_finite, network_values
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.networks.process import check_process
from deepsvdd_jax.preprocessing import Preprocessing, Scaling, Whitening
from deepsvdd_jax.runs.compilation import platform
from deepsvdd_jax.runs.kept_traces import kept
from deepsvdd_jax.training import TrainState

Measure = Callable[[TrainState, Array, Network, BaseObjectiveConfig], Array]
"""`(state, images, network, objective) -> [n, ...]` of one member and a batch of its input."""

# Most steps of a device in one call, and most bytes of its images.
_MOST_BATCHES_PER_CALL = 32
_BYTES_PER_CALL = 1 << 25


def of_members(
    model: Model, images: npt.ArrayLike, measure: Measure, width: tuple[int, ...] = ()
) -> npt.NDArray[np.float32]:
    """Returns a measurement of every image by every member, float32 `[members, n, *width]`.

    Args:
      model: fitted or loaded.
      images: `[n, *model.image_shape]`, see `network_values`.
      measure: the measurement of a batch; a function of a module, since a compiled program is kept
        for it.
      width: shape of the measurement of one image.

    Raises:
      DataError: images of another shape, or values that are not finite.
    """
    check_process()
    values = network_values(images)
    if values.shape[1:] != model.image_shape:
        raise DataError(
            f"samples of shape {values.shape[1:]}; this model was trained on {model.image_shape}"
        )
    fitted, padded = preprocessing_of(model), columns.program_width(model.config, model.image_shape)
    states = _of_width(model, padded)
    shape = model.image_shape if padded is None else (padded,)
    objective = model.config.training.objective
    # Every device works on batches of one size, so that the number of devices changes no score.
    devices = min(jax.local_device_count(), max(1, -(-len(values) // _batch_size())))
    size = devices * _batch_size() * _batches_per_call(shape)
    mesh = runs.make_mesh(jax.local_devices()[:devices])
    states = jax.device_put(states, NamedSharding(mesh, Spec()))
    parts = []
    for start in range(0, len(values), size):
        batch, scaling = preprocessing.apply_on_host(fitted, values[start : start + size])
        check_finite(batch, "once they are scaled", start)
        if padded is not None:
            batch = columns.pad(batch, padded)
            # A scaling of all columns alike has one value; a column that is added has 0.
            every = (np.broadcast_to(part, model.image_shape) for part in scaling)
            scaling = Scaling(*(columns.pad(part, padded) for part in every))
        filled, counts = _shared_out(batch, devices, size // devices)
        # The host does not wait: it prepares the next call meanwhile.
        found = _measured(
            (states, scaling, filled, counts),
            network=model.config.network,
            image_shape=shape,
            objective=objective,
            measure=measure,
            width=width,
            mesh=mesh,
        )
        parts.append((found, counts))
    results = [np.zeros((len(model.center), 0, *width), np.float32)]
    for found, counts in parts:
        of_devices = np.split(np.asarray(found), devices, axis=1)
        results += [some[:, :count] for some, count in zip(of_devices, counts, strict=True)]
    return np.concatenate(results, axis=1)


def _of_width(model: Model, width: int | None) -> TrainState:
    """Returns a model's states for so many columns of a table; None leaves them."""
    states = states_of(model)
    if width is None:
        return states
    return states._replace(params=columns.widen(model.config.network, model.params, width))


def _shared_out(images: Images, devices: int, most: int) -> tuple[Images, npt.NDArray[np.int32]]:
    """Deals images to devices evenly, in whole batches: returns `[devices most, ...]`, each
    device's filled up with zeros, and how many each has, int32 `[devices]`."""
    if len(images) == devices * most:
        return images, np.full(devices, most, np.int32)
    batches = -(-len(images) // _batch_size())
    ends = np.arange(1, devices + 1) * batches // devices * _batch_size()
    shares = np.split(images, ends[:-1])
    filled = np.zeros((devices, most, *images.shape[1:]), np.float32)
    for place, share in zip(filled, shares, strict=True):
        place[: len(share)] = share
    return filled.reshape(-1, *images.shape[1:]), np.array([*map(len, shares)], np.int32)


def _batch_size() -> int:
    """Returns how many images a step takes: few suit the caches of a CPU."""
    return 64 if jax.default_backend() == "cpu" else 512


def _batches_per_call(image_shape: tuple[int, ...]) -> int:
    """Returns how many steps a device takes in one call; bounds the memory of large images."""
    batch_bytes = 4 * _batch_size() * int(np.prod(image_shape))
    return max(1, min(_MOST_BATCHES_PER_CALL, _BYTES_PER_CALL // batch_bytes))


@functools.partial(
    jax.jit, static_argnames=("network", "image_shape", "objective", "measure", "width", "mesh")
)
def _measured(
    arrays: tuple[TrainState, Scaling, Array, Array],
    network: NetworkConfig,
    image_shape: tuple[int, ...],
    objective: BaseObjectiveConfig,
    measure: Measure,
    width: tuple[int, ...],
    mesh: Mesh,
) -> Array:
    """Returns the members' measurements of unscaled images, `[members, n, *width]`, for at least
    the first `counts[device]` images of every device.

    Args:
      arrays: states, scaling, images `[n, *image_shape]` and counts.
      network, image_shape, objective, measure, width, mesh: static.
    """
    built = build_network(network, image_shape)
    size = _batch_size()

    def of_member(images: Array, state: TrainState) -> Array:
        return measure(state, images, built, objective)

    of_members = runs.map_runs(of_member, runs.make_mesh(jax.local_devices()[:1]))

    def of_device(images: Array, counts: Array, states: TrainState, scaling: Scaling) -> Array:
        def step(index: Array, found: Array) -> Array:
            batch = jax.lax.dynamic_slice_in_dim(images, index * size, size)
            made = of_members(preprocessing.scaled(batch, *scaling), states)
            return jax.lax.dynamic_update_slice_in_dim(found, made, index * size, 1)

        nothing = jnp.zeros((states.center.shape[0], len(images), *width), jnp.float32)
        return jax.lax.fori_loop(0, (counts[0] + size - 1) // size, step, nothing)

    of_all = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(Spec("run"), Spec("run"), Spec(), Spec()),
        out_specs=Spec(None, "run"),
        check_vma=False,
    )
    if mesh.size == 1:
        static = ("made of images", network, built, objective, measure, width, size)
        of_all = kept(of_all, static, platform(mesh))
    states, scaling, images, counts = arrays
    return of_all(images, counts, states, scaling)


def states_of(model: Model) -> TrainState:
    """Returns the members as stacked states, with the parts that scoring reads."""
    nothing: Any = np.zeros(len(model.center), np.float32)
    center: Any = model.center
    squared_radius: Any = model.squared_radius
    return TrainState(
        params=model.params,
        statistics=model.statistics,
        opt_state=None,
        center=center,
        squared_radius=squared_radius,
        step=nothing,
        epoch=nothing,
        active=nothing,
        failure=nothing,
    )


def preprocessing_of(model: Model) -> Preprocessing:
    """Returns the preprocessing from raw images to network input."""
    whitening = Whitening(model.whitening_mean, model.whitening_matrix)
    return Preprocessing(
        model.config.preprocessing.contrast,
        whitening if len(model.whitening_mean) else None,
        Scaling(model.shift, model.scale),
    )
