"""The protocol of an objective: pure functions of one run, and passes over its training set.

Nobody outside this room asks which objective a run has; `objectives.objective(config)` returns it.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.networks import BatchStats, Params
from deepsvdd_jax.objectives.state import Batch, Hyperparameters, TrainState


class Forward(NamedTuple):
    """The output of a network for images.

    Attributes:
      embeddings: `[n, rep_dim]`.
      outputs: `[n, ...]`, the reconstructed images; None where the params have no decoder.
      statistics: of batch normalisation, as `TrainState.statistics`; in training the batch's.
    """

    embeddings: Array
    outputs: Array | None
    statistics: BatchStats


# `apply(params, batch, key)` in training: normalised by the statistics of the batch itself; the key
# draws the dropout. It may be called more than once, for an inner ascent on the images for example.
Apply = Callable[[Params, Batch, Array | None], Forward]

# `evaluate(params, statistics, images)`: normalised by the given statistics, nothing is drawn.
Evaluate = Callable[[Params, BatchStats, Array], Forward]


class Losses(NamedTuple):
    """The losses of an objective on a batch; a single reducer averages them.

    Attributes:
      values: `[batch]`, the loss of every example, padding included, without weight decay.
      distances: `[batch]`, its score at the weights before the step, as `Objective.score` gives it.
      statistics: of the pass over the batch that the running average is to see.
    """

    values: Array
    distances: Array
    statistics: BatchStats


class Pass(NamedTuple):
    """A pass over a run's whole training set in evaluation mode, and the function that takes its
    result.

    Attributes:
      of: `mean` (of the embeddings, `[rep_dim]`), `distances` (`Objective.score`, `[n]`) or
        `embeddings` (`[n, rep_dim]`); the latter two with padding.
      put: `(state, found, valid, settings) -> state`; valid is bool `[n]`, False on padding.
      batches: of a `mean`: batches that it is taken over; None takes all.
    """

    of: Literal["mean", "distances", "embeddings"]
    put: Callable[[TrainState, Array, Array, Hyperparameters], TrainState]
    batches: int | None = None


class EpochPass(NamedTuple):
    """A pass after some of the epochs.

    Attributes:
      is_due: whether it is made after an epoch, counted from 0.
      solve: the pass.
    """

    is_due: Callable[[Array | int], Array | bool]
    solve: Pass


def _always(state: TrainState) -> Array:
    return jnp.ones((), bool)


def _zeros(rep_dim: int) -> Array:
    return jnp.zeros((rep_dim,), jnp.float32)


def _nothing_else(state: TrainState) -> dict[str, Array]:
    return {}


def _as_it_is(
    state: TrainState, losses: Losses, batch: Batch, settings: Hyperparameters
) -> TrainState:
    return state


class Objective(NamedTuple):
    """The functions that a phase minimises and scores with.

    Attributes:
      losses: `(params, state, apply, batch, settings, key) -> Losses`, differentiated with respect
        to params and to what `trainable` names of the state; `settings` are traced, key draws
        (None: nothing is drawn).
        `batch.labels` are int32 here, never None.
      score: `(state, evaluate, images) -> [n]`: a squared distance or an error, never negative,
        higher = more anomalous.
      has_radius: whether it trains a radius: the score of a network used alone is then `score` -
        R^2.
      center: `(rep_dim) -> [rep_dim]`, before any pass.
      trainable: `(state) -> dict`, entries of the state that the optimiser changes beside params.
      rates: factors on the learning rate for some of these.
      statistics_first: whether the running batch statistics are set from the training set first.
      first_passes: passes before the first step, in this order.
      after_step: `(state, losses, batch, settings) -> state`.
      after_epoch: a pass after some of the epochs; None makes none.
      healthy: `(state) -> bool`, after an epoch; a run that is not healthy is stopped, as one whose
        radius has vanished.
      settled: `(state) -> bool`, after an epoch; until then, as in a warm-up, no low loss stops it.
      has_center: whether the score is a distance to the center, so that a network may collapse.
      key_number: an epoch's draws are keyed by it: 1 of the autoencoder, so that it draws the same
        as a pretraining and as a run of its own, 2 of all others.
      maps: `(state, evaluate, images) -> [n, values]`, not negative: what each value of a fully
        convolutional network's map adds to the score; None without a map.
    """

    losses: Callable[[Params, TrainState, Apply, Batch, Hyperparameters, Array | None], Losses]
    score: Callable[[TrainState, Evaluate, Array], Array]
    has_radius: bool = False
    center: Callable[[int], Array] = _zeros
    trainable: Callable[[TrainState], dict[str, Array]] = _nothing_else
    rates: tuple[tuple[str, float], ...] = ()
    statistics_first: bool = True
    first_passes: tuple[Pass, ...] = ()
    after_step: Callable[[TrainState, Losses, Batch, Hyperparameters], TrainState] = _as_it_is
    after_epoch: EpochPass | None = None
    healthy: Callable[[TrainState], Array] = _always
    settled: Callable[[TrainState], Array] = _always
    has_center: bool = True
    key_number: int = 2
    maps: Callable[[TrainState, Evaluate, Array], Array] | None = None

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All passes over the training set: the first ones, then the one after epochs."""
        solve = () if self.after_epoch is None else (self.after_epoch.solve,)
        return (*self.first_passes, *solve)
