"""Anomaly maps of a saved model, an ensemble included: one value a pixel of its input."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import ConfigError, NetworkConfig
from deepsvdd_jax.detectors import embeddings, export
from deepsvdd_jax.detectors.batches import states_of
from deepsvdd_jax.detectors.inputs import network_values
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.scoring import maps
from deepsvdd_jax.scoring.distances import evaluate_network
from deepsvdd_jax.scoring.ensemble import member_units

KINDS = ("objective", "gradient", "occlusion")

# Most pixels, and most images, that are mapped at once.
_PIXELS_AT_ONCE, MOST_AT_ONCE = 1 << 17, 64

Maps = npt.NDArray[np.float32]


def map_kind(model: Model, asked: str = "auto") -> str:
    """Returns the kind of a model's maps: `auto` takes the objective's own map where it has one,
    else that of the gradient.

    Raises:
      ConfigError: a model of tables, or an objective without a map of its own.
    """
    if len(model.image_shape) != 3:
        raise ConfigError("the model was trained on a table: maps are of images")
    objective = model.config.training.objective
    has_map = objectives.objective(objective).maps is not None
    if asked == "auto":
        return "objective" if has_map else "gradient"
    if asked not in KINDS:
        raise ConfigError(f"map_kind is {asked!r}; allowed: auto, {', '.join(KINDS)}")
    if asked == "objective" and not has_map:
        raise ConfigError(
            f"map_kind=objective: objective {objective.kind} has no map of its own, as fcdd has; "
            "give gradient or occlusion"
        )
    return asked


def mapper(
    model: Model, kind: str = "auto", mean_image: npt.ArrayLike | None = None
) -> Callable[[npt.ArrayLike], Maps]:
    """Returns a function from images `[n, *model.image_shape]` to their maps, float32
    `[n, height, width]`, higher = more anomalous; one program serves every number of images.

    `objective`: the map of the network, enlarged to image size; of several members the mean of
    their maps, each in units of its mean training score. `gradient`: |d score / d pixel| summed
    over channels, blurred. `occlusion`: the drop of the score when a patch is replaced by that of
    the mean image.

    Args:
      model: fitted or loaded, of images.
      kind: see `map_kind`.
      mean_image: `model.image_shape`, as `network_values` takes it; for `occlusion`.

    Raises:
      ConfigError: see `map_kind`, a model that does not score by its center, or no mean image where
        one is needed.
    """
    kind = map_kind(model, kind)
    embeddings.check_center(model, "maps need")
    if kind == "occlusion" and mean_image is None:
        raise ConfigError("map_kind=occlusion needs the mean of normal images")
    mean = None if mean_image is None else _unit_images(np.asarray(mean_image)[None])[0]

    @jax.jit
    def mapped(images: Array) -> Array:
        if kind == "objective":
            return _objective_maps(model, images)
        score = functools.partial(export.scores, model)
        if kind == "gradient":
            return maps.gradient_maps(score, images)
        return maps.occlusion_maps(score, images, jnp.asarray(mean))

    at_once = batch_size(model.image_shape)

    def of_images(images: npt.ArrayLike) -> Maps:
        values = _unit_images(images)
        found = [np.zeros((0, *model.image_shape[:2]), np.float32)]
        for start in range(0, len(values), at_once):
            batch = values[start : start + at_once]
            padding = ((0, at_once - len(batch)), *((0, 0),) * 3)
            found.append(np.asarray(mapped(np.pad(batch, padding)))[: len(batch)])
        return np.concatenate(found)

    return of_images


def batch_size(image_shape: tuple[int, ...]) -> int:
    """Returns how many images of a shape are mapped at once."""
    return max(1, min(MOST_AT_ONCE, _PIXELS_AT_ONCE // (image_shape[0] * image_shape[1])))


def _unit_images(images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns images as float32, 8-bit values divided by 255."""
    values = network_values(images)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    return values.astype(np.float32)


def _objective_maps(model: Model, images: Array) -> Array:
    """Returns the members' own maps, combined as their scores are and enlarged to image size."""
    config, training = model.config.network, model.config.training
    own = objectives.objective(training.objective).maps
    assert own is not None and isinstance(config, NetworkConfig)
    values = export.network_input(model, images)
    network = build_network(config, model.image_shape)
    evaluate = functools.partial(evaluate_network, network)
    states = states_of(model)
    members = range(len(model.center))
    with jax.default_matmul_precision("highest"):
        low = jnp.stack(
            [
                own(jax.tree.map(lambda leaf, i=i: leaf[i], states), evaluate, values)
                for i in members
            ]
        )
    if len(low) > 1:
        units = member_units(model.train_means).astype(np.float32)
        low = low / units[:, None, None]
    sides = config.map_sides(model.image_shape[:2])
    first, stride = config.map_grid
    grid = maps.Grid(first, stride, config.receptive_field)
    height, width = model.image_shape[:2]
    return maps.enlarge(jnp.mean(low, axis=0).reshape(-1, *sides), grid, (height, width))
