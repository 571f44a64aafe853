"""A classifier of geometric transformations (Golan and El-Yaniv 2018, Deep Anomaly Detection Using
Geometric Transformations).

A network learns by how much normal images were turned, for which it has to know their parts and the
positions of these. An image whose turns it cannot tell is unlike them. It needs no anomalies,
neither known nor synthetic ones.
"""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import TransformationsConfig
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives.base import Apply, Evaluate, Losses, Objective
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


def transformed(images: Array) -> Array:
    """Returns all transformations of square images, `[8, n, side, side, channels]`: turned by 0,
    90, 180 and 270 degrees, and the same with their quarters exchanged crosswise before.

    Not Golan and El-Yaniv's 72, which also mirror and shift: a mirror image of a thing is normal
    too, and a small network that sees the border of a shift needs to know nothing else.
    """
    half = images.shape[1] // 2
    bases = (images, jnp.roll(images, (half, half), axis=(1, 2)))
    return jnp.stack([jnp.rot90(base, turns, axes=(1, 2)) for base in bases for turns in range(4)])


def surprise(embeddings: Array, numbers: Array, count: int) -> Array:
    """Returns -log p of the right transformations, `[n]`.

    Args:
      embeddings: `[n, rep_dim]`, the first `count` entries being logits.
      numbers: int `[n]`, which transformation each image has.
      count: of transformations.
    """
    chances = jax.nn.log_softmax(embeddings[:, :count])
    return -jnp.take_along_axis(chances, numbers[:, None], axis=1)[:, 0]


def transformations(config: TransformationsConfig) -> Objective:
    """Returns the objective.

    A step sees every image under one transformation, which is drawn (without a key it follows from
    the position in the batch). The score is the mean of -log p of the right transformation over all
    of them; a step's distance is an estimate of it. Biases are allowed: no constant tells the
    transformations apart.
    """
    count = config.logits

    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        rows = jnp.arange(len(batch.images))
        numbers = rows % count
        if key is not None:
            # Its own stream: the step's key draws the dropout, 1 the changes of the images.
            numbers = jax.random.randint(jax.random.fold_in(key, 2), rows.shape, 0, count)
        images = transformed(batch.images)[numbers, rows]
        forward = apply(params, batch._replace(images=images), key)
        values = surprise(forward.embeddings, numbers, count)
        return Losses(values, values, forward.statistics)

    def score(state: TrainState, evaluate: Evaluate, images: Array) -> Array:
        def of_one(turned: tuple[Array, Array]) -> Array:
            images, number = turned
            embeddings = evaluate(state.params, state.statistics, images).embeddings
            return -jax.nn.log_softmax(embeddings[:, :count])[:, number]

        # One after the other: all at once take eight times the memory.
        found = jax.lax.map(of_one, (transformed(images), jnp.arange(count)))
        return jnp.mean(found, axis=0)

    return Objective(losses, score, statistics_first=config.statistics_first, has_center=False)
