"""FCDD, fully convolutional data description (Liznerski et al., ICLR 2021): trains an anomaly map
from labels of whole images, by the loss of the hypersphere classifier."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import FCDDConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Losses, Objective
from deepsvdd_jax.objectives.hsc import distance_losses, minus_log_complement, pseudo_huber
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def anomaly_map(embeddings: Array) -> Array:
    """Returns A = sqrt(z^2 + 1) - 1 of the last convolution's values z, of the same shape."""
    return pseudo_huber(jnp.square(embeddings))


def masked_map_losses(maps: Array, regions: Array, share: float = 1.0) -> Array:
    """Returns the loss of maps whose anomalous pixels are known, `[n]`: the mean of A over the
    normal pixels, and where some are marked -log(1 - exp(-mean of A over these)).

    Args:
      maps: `[n, height, width]`, A.
      regions: bool `[n, height, width]`, True on anomalous pixels.
      share: of the map's values; the mean over normal pixels takes so many, the highest.
    """
    axes = (1, 2)
    marked = jnp.sum(regions, axes)
    size = regions.shape[1] * regions.shape[2]
    normal = size - marked
    outside = jnp.where(regions, 0.0, maps)
    if share == 1.0:
        mean = jnp.sum(outside, axes) / jnp.maximum(normal, 1)
    else:
        # A is not negative: marked pixels, now 0, come after all others.
        count = _count_of(share, size)
        highest, _ = jax.lax.top_k(outside.reshape(-1, size), count)
        mean = jnp.sum(highest, axis=1) / jnp.maximum(jnp.minimum(normal, count), 1)
    inside = jnp.sum(jnp.where(regions, maps, 0.0), axes) / jnp.maximum(marked, 1)
    some = marked > 0
    anomalous = minus_log_complement(jnp.where(some, inside, 1.0))
    return mean + jnp.where(some, anomalous, 0.0)


def regions_of_map(regions: Array, values: int) -> Array:
    """Returns which values of a map have a marked pixel in their cell, bool
    `[n, rows, columns]`: cells are squares, as many as the map has values.

    The paper compares the map spread to image size; lowering the mask instead asks for peaks that
    are as narrow as the map can be, and costs nothing.

    Args:
      regions: bool `[n, height, width]`.
      values: of a map, rows * columns.

    Raises:
      ValueError: no halving of the sides leaves so many values.
    """
    count, height, width = regions.shape
    for halvings in range(height.bit_length()):
        side = 1 << halvings
        rows, columns = height // side, width // side
        if rows * columns == values:
            cells = regions[:, : rows * side, : columns * side]
            return cells.reshape(count, rows, side, columns, side).any(axis=(2, 4))
    raise ValueError(f"a map of {values} values is no halving of {height} x {width} pixels")


def highest_mean(maps: Array, share: float) -> Array:
    """Returns the mean of the highest share of a map's values, `[n]`, of at least one.

    Args:
      maps: `[n, values]`.
      share: in (0, 1].
    """
    if share == 1.0:
        return jnp.mean(maps, axis=1)
    return jnp.mean(jax.lax.top_k(maps, _count_of(share, maps.shape[1]))[0], axis=1)


def _count_of(share: float, values: int) -> int:
    return max(1, round(share * values))


def fcdd(config: FCDDConfig) -> Objective:
    """Returns the objective: its loss takes the mean of A or of its highest share, its score is the
    mean of the highest share of A."""

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        assert batch.labels is not None
        forward = apply(params, batch, key)
        maps = anomaly_map(forward.embeddings)
        values = distance_losses(highest_mean(maps, config.loss_share), batch.labels)
        if config.map_masks and batch.regions is not None:
            regions = regions_of_map(batch.regions, maps.shape[1])
            masked = masked_map_losses(maps.reshape(regions.shape), regions, config.loss_share)
            values = jnp.where(regions.any(axis=(1, 2)), masked, values)
        return Losses(values, highest_mean(maps, config.map_share), forward.statistics)

    def maps(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        return anomaly_map(evaluate(state.params, state.statistics, images).embeddings)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        return highest_mean(maps(state, evaluate, images), config.map_share)

    return Objective(
        losses, score, statistics_first=config.statistics_first, has_center=False, maps=maps
    )
