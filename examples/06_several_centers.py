"""An objective of one's own in a command: Deep SVDD with several centers, sweeps and all.

    python examples/06_several_centers.py --objective=several-centers --centers=4 --out=FOLDER

Every flag of `python -m experiments.sweep` holds. A center is a mean of embeddings of the untrained
network, found by Lloyd's algorithm; an image is pulled to the nearest one.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives
from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import BaseObjectiveConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives import (
    Apply,
    Batch,
    Evaluate,
    Hyperparameters,
    Losses,
    Objective,
    Pass,
    TrainState,
)

ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class CentersConfig(BaseObjectiveConfig):
    """Settings of Deep SVDD with several centers.

    Attributes:
      centers: how many.
    """

    kind: Literal["several-centers"] = "several-centers"
    centers: int = 4


def all_distances(embeddings: Array, centers: Array) -> Array:
    """Returns squared distances `[n, k]` of embeddings `[n, rep_dim]` to centers `[k, rep_dim]`."""
    of_center = jax.vmap(objectives.squared_distances, in_axes=(None, 0), out_axes=1)
    return of_center(embeddings, centers)


def means_of_groups(embeddings: Array, valid: Array, count: int) -> Array:
    """Returns `count` centers after some rounds of Lloyd's algorithm; an empty group keeps its
    center. It starts from embeddings at even steps through the valid rows."""
    rows = jnp.sum(valid, dtype=jnp.int32)
    places = jnp.arange(count, dtype=jnp.int32) * rows // count

    def improve(_: int, centers: Array) -> Array:
        nearest = jnp.argmin(all_distances(embeddings, centers), axis=1)
        member = (nearest[:, None] == jnp.arange(count)) & valid[:, None]
        sizes = jnp.sum(member, axis=0)[:, None]
        sums = member.T.astype(embeddings.dtype) @ embeddings
        return jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1), centers)

    return jax.lax.fori_loop(0, ROUNDS, improve, embeddings[places])


def several_centers(config: CentersConfig) -> Objective:
    def nearest(embeddings: Array, state: TrainState) -> Array:
        return jnp.min(all_distances(embeddings, state.center), axis=1)

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        forward = apply(params, batch, key)
        distances = nearest(forward.embeddings, state)
        return Losses(distances, distances, forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        return nearest(evaluate(state.params, state.statistics, images).embeddings, state)

    def put_centers(
        state: TrainState, found: Array, valid: Array, settings: Hyperparameters
    ) -> TrainState:
        centers = means_of_groups(found, valid, config.centers)
        return state._replace(center=objectives.away_from_zero(centers, config.center_floor))

    return objectives.hypersphere(config)._replace(
        losses=losses,
        score=score,
        center=lambda rep_dim: jnp.zeros((config.centers, rep_dim), jnp.float32),
        first_passes=(Pass("embeddings", put_centers),),
    )


objectives.register(CentersConfig, several_centers=several_centers)

if __name__ == "__main__":
    process.start(sweep)
