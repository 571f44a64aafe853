"""The order of a run, written once, over a source of images: weights, statistics, center, radius,
epochs, health, distances."""

from collections.abc import Callable
from typing import Literal

from jax import Array

from deepsvdd_jax import training
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import BatchStats, Network, Params
from deepsvdd_jax.runs import chunks, transitions
from deepsvdd_jax.runs.sources import ImageSource, Result
from deepsvdd_jax.runs.state import Outcome, Phase, autoencoder_config, phase_config
from deepsvdd_jax.training import EpochInfo, TrainState


def begin_run(source: ImageSource, config: RunConfig, network: Network) -> tuple[TrainState, Array]:
    """Returns a run's first state and the test distances `[n_test]` of the untrained network."""
    weights = source.each(transitions.init_params, source.run, static=(config, network))
    untrained = begin_training(source, config, network, *weights)
    distances = test_distances(source, Phase("training", config.training, network), untrained)
    if config.pretraining is None:
        return untrained, distances
    return begin_training(source, autoencoder_config(config), network, *weights), distances


def end_pretraining(
    source: ImageSource, config: RunConfig, network: Network, state: TrainState
) -> TrainState:
    """Returns the first state of the training phase, its encoder taken from the autoencoder."""
    new = begin_training(source, config, network, state.params, state.statistics)
    carried: TrainState = source.each(transitions.carry_failure, state, new)
    return carried


def begin_training(
    source: ImageSource,
    config: RunConfig,
    network: Network,
    params: Params,
    statistics: BatchStats,
) -> TrainState:
    """Returns the first state of the training phase: statistics, then center, then radius.

    The center is the mean representation of the training set (paper, section 3.3).
    """
    phase = Phase("training", config.training, network)
    state: TrainState = source.each(
        transitions.init_state, params, statistics, static=(config, network)
    )
    if phase.objective.statistics_first:
        nothing = source.each(transitions.no_statistics, state)
        found = _mean(source, phase, chunks.add_statistics, state, nothing)
        state = state._replace(statistics=found)
    for number in range(len(phase.objective.first_passes)):
        state = _with_pass(source, phase, number, state)
    ready: TrainState = source.each(
        transitions.reset_optimizer, source.run, state, static=(phase.config,)
    )
    return ready


def run_epochs(
    source: ImageSource,
    config: RunConfig,
    network: Network,
    phase_name: str,
    capacity: int,
    first_epoch: Array,
    count: Array,
    state: TrainState,
) -> tuple[TrainState, Array]:
    """Trains for some epochs of a phase; see `ImageSource.epochs`.

    Both numbers are traced where a program is compiled, so that one executable serves every chunk.
    """
    phase = Phase(phase_name, phase_config(config, phase_name), network)

    def train(epoch: Array, state: TrainState) -> tuple[TrainState, EpochInfo]:
        return train_epoch(source, phase, epoch, state)

    return source.epochs(train, state, first_epoch, count, capacity)


def train_epoch(
    source: ImageSource, phase: Phase, epoch: Array, state: TrainState
) -> tuple[TrainState, EpochInfo]:
    """Trains for one epoch, counted from 0: steps over the images in random order, the objective's
    pass after the epoch, the check of health."""
    static, shared, run = (phase,), (epoch,), source.run
    order, count = source.each(chunks.epoch_order, run, state, static=static, shared=shared)
    under_way = source.fold(
        chunks.take_steps,
        source.each(training.begin_epoch, state, order),
        run,
        count,
        order=order,
        count=count,
        batch_size=phase.config.batch_size,
        static=static,
        shared=shared,
    )
    new, info = source.each(chunks.end_epoch, run, state, under_way, count, static=static)
    after_epoch = phase.objective.after_epoch
    if after_epoch is not None:
        solve = len(phase.objective.first_passes)
        due = after_epoch.is_due(epoch)
        new = source.when(due, lambda state: _with_pass(source, phase, solve, state), new)
    checked: tuple[TrainState, EpochInfo] = source.each(
        transitions.check_health, new, info, static=(phase.config,)
    )
    return checked


def evaluate_run(
    source: ImageSource, config: RunConfig, network: Network, phase_name: str, state: TrainState
) -> tuple[Array, Array]:
    """Passes over both sets in evaluation mode; returns the distances of the run's images in the
    order of its indices, padding included, and of the test images `[n_test]`."""
    phase = Phase(phase_name, phase_config(config, phase_name), network)
    return training_distances(source, phase, state), test_distances(source, phase, state)


def finish_run(
    source: ImageSource, config: RunConfig, network: Network, state: TrainState
) -> Outcome:
    """Scores both sets and takes the final radius from the whole training set.

    The radius is the (1 - nu) order statistic of the training distances; in one-class mode it
    serves as a threshold only.
    """
    distances = evaluate_run(source, config, network, "training", state)
    outcome: Outcome = source.each(
        transitions.outcome_of, source.run, state, *distances, static=(network,)
    )
    return outcome


# --- passes over a set --------------------------------------------------------------------------


def _with_pass(source: ImageSource, phase: Phase, number: int, state: TrainState) -> TrainState:
    """Makes a pass of the objective over the training set and puts its result into the state."""
    wanted = phase.objective.passes[number]
    if wanted.of == "mean":
        nothing = source.each(transitions.no_center, state)
        found = _mean(
            source,
            phase,
            chunks.add_embeddings,
            state=state,
            nothing=nothing,
            batches=wanted.batches,
        )
    elif wanted.of == "embeddings":
        found = source.rows(
            chunks.embeddings,
            state,
            of="training",
            batch_size=phase.config.batch_size,
            static=(phase.network,),
        )
    else:
        found = training_distances(source, phase, state)
    solved: TrainState = source.each(
        transitions.put_result, source.run, state, found, static=(phase, number)
    )
    return solved


def _mean(
    source: ImageSource,
    phase: Phase,
    add: Callable[..., Result],
    state: TrainState,
    nothing: Result,
    batches: int | None = None,
) -> Result:
    """Returns a mean over the training images, or over their first batches."""
    static = (batches, phase.config.batch_size)
    count = source.each(transitions.images_in, source.run.data, static=static)
    return source.fold(
        add,
        nothing,
        count,
        state,
        count=count,
        batch_size=phase.config.batch_size,
        static=(phase,),
    )


def training_distances(source: ImageSource, phase: Phase, state: TrainState) -> Array:
    """Returns the squared distances `[n]` of all images that the run's indices name, padding
    too."""
    return _distances_of(source, phase, state, "training")


def test_distances(source: ImageSource, phase: Phase, state: TrainState) -> Array:
    """Returns the squared distances `[n_test]` of the test images, which all runs share."""
    return _distances_of(source, phase, state, "test")


def _distances_of(
    source: ImageSource, phase: Phase, state: TrainState, which: Literal["training", "test"]
) -> Array:
    batch_size = phase.config.batch_size
    return source.rows(chunks.distances, state, of=which, batch_size=batch_size, static=(phase,))
