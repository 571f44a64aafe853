"""The order of a run, written once, over a source of images: weights, statistics, center, radius,
epochs, health, distances.

What begins with `source` is such an order; the rest are pure functions of one run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives, scoring, training
from deepsvdd_jax.configs import PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, Params, Statistics
from deepsvdd_jax.objectives import Hyperparameters, Objective, Pass
from deepsvdd_jax.runs.sources import Chunk, ImageSource
from deepsvdd_jax.runs.state import (
    Outcome,
    Run,
    autoencoder_config,
    phase_config,
    phase_hyperparameters,
)
from deepsvdd_jax.training import EpochInfo, EpochUnderWay, RunData, TrainState


class Phase(NamedTuple):
    """What is static in a phase: its name, one of `PHASES`, its settings and the network."""

    name: str
    config: PhaseConfig
    network: Network

    @property
    def objective(self) -> Objective:
        """What the phase minimises."""
        return objectives.objective(self.config.objective)

    def settings(self, run: Run) -> Hyperparameters:
        """Returns a run's traced settings of the phase."""
        return phase_hyperparameters(run, self.name)


def begin_run(source: ImageSource, config: RunConfig, network: Network) -> tuple[TrainState, Array]:
    """Returns a run's first state and the test distances `[n_test]` of the untrained network."""
    weights = source.each(init_params, source.run, static=(config, network))
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
    carried: TrainState = source.each(carry_failure, state, new)
    return carried


def begin_training(
    source: ImageSource,
    config: RunConfig,
    network: Network,
    params: Params,
    statistics: Statistics,
) -> TrainState:
    """Returns the first state of the training phase: statistics, then center, then radius.

    The center is the mean representation of the training set (paper, section 3.3).
    """
    phase = Phase("training", config.training, network)
    state: TrainState = source.each(init_state, params, statistics, static=(config, network))
    if phase.objective.statistics_first:
        nothing = source.each(_no_statistics, state)
        found = _mean(source, phase, _add_statistics, state, nothing)
        state = state._replace(statistics=found)
    for number in range(len(phase.objective.first_passes)):
        state = _with_pass(source, phase, number, state)
    ready: TrainState = source.each(reset_optimizer, source.run, state, static=(phase.config,))
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
) -> tuple[TrainState, Any]:
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
    """Makes one pass over the images in random order, in an epoch counted from 0: steps, what the
    objective does after an epoch, health."""
    static, shared, run = (phase,), (epoch,), source.run
    order, count = source.each(_order, run, state, static=static, shared=shared)
    under_way = source.fold(
        _take_steps,
        source.each(training.begin_epoch, state, order),
        run,
        count,
        order=order,
        count=count,
        batch_size=phase.config.batch_size,
        static=static,
        shared=shared,
    )
    new, info = source.each(_end_epoch, run, state, under_way, count, static=static)
    after_epoch = phase.objective.after_epoch
    if after_epoch is not None:
        solve = len(phase.objective.first_passes)
        due = after_epoch.is_due(epoch)
        new = source.when(due, lambda state: _with_pass(source, phase, solve, state), new)
    checked: tuple[TrainState, EpochInfo] = source.each(
        check_health, new, info, static=(phase.config,)
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
    outcome: Outcome = source.each(outcome_of, source.run, state, *distances, static=(network,))
    return outcome


# --- passes over a set --------------------------------------------------------------------------


def _with_pass(source: ImageSource, phase: Phase, number: int, state: TrainState) -> TrainState:
    """Makes one of the objective's passes over the training set and takes its result into the
    state."""
    wanted = phase.objective.passes[number]
    if wanted.of == "mean":
        nothing = source.each(_no_center, state)
        found = _mean(source, phase, _add_embeddings, state, nothing, wanted.batches)
    elif wanted.of == "embeddings":
        found = source.rows(
            _embeddings,
            state,
            of="training",
            batch_size=phase.config.batch_size,
            static=(phase.network,),
        )
    else:
        found = training_distances(source, phase, state)
    solved: TrainState = source.each(_put, source.run, state, found, static=(phase, number))
    return solved


def _mean(
    source: ImageSource,
    phase: Phase,
    add: Callable[..., Any],
    state: TrainState,
    nothing: Any,
    batches: int | None = None,
) -> Any:
    """Returns a mean over the training images, or over their first batches."""
    static = (batches, phase.config.batch_size)
    count = source.each(images_in, source.run.data, static=static)
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


def _distances_of(source: ImageSource, phase: Phase, state: TrainState, which: Any) -> Array:
    batch_size = phase.config.batch_size
    return source.rows(_distances, state, of=which, batch_size=batch_size, static=(phase,))


# --- functions of one run -----------------------------------------------------------------------


def init_params(config: RunConfig, network: Network, run: Run) -> tuple[Params, Statistics]:
    """Draws a run's weights; `run.weights` replaces what it names, under `statistics` running
    statistics, under `factors` it says what drawn weights are multiplied by."""
    key_init = jax.random.fold_in(run.key, 0)
    params, statistics = network.init(key_init, config.needs_decoder)
    special = ("statistics", "factors", "center", "squared_radius")
    weights = {name: value for name, value in run.weights.items() if name not in special}
    kept, factors = (run.weights.get(name, {}) for name in special[:2])
    params = _replace_leaves(scale_leaves(params, factors), weights)
    return params, _replace_leaves(statistics, kept)


def _replace_leaves(params: Params, replacements: Params) -> Params:
    merged = dict(params)
    for name, value in replacements.items():
        merged[name] = _replace_leaves(params[name], value) if isinstance(value, dict) else value
    return merged


def scale_leaves(params: Params, factors: Params) -> Params:
    """Returns parameters, those that factors name multiplied by them."""
    scaled = dict(params)
    for name, factor in factors.items():
        leaf = params[name]
        scaled[name] = scale_leaves(leaf, factor) if isinstance(factor, dict) else leaf * factor
    return scaled


def init_state(
    config: RunConfig, network: Network, params: Params, statistics: Statistics
) -> TrainState:
    """Returns a state of the training phase that knows nothing of the training set yet."""
    parts = ("encoder", "decoder") if config.training_reconstructs else ("encoder",)
    return training.start_phase(
        config.training,
        {part: params[part] for part in parts},
        {part: statistics[part] for part in parts},
        objectives.objective(config.training.objective).center(network.rep_dim),
        jnp.zeros((), jnp.float32),
    )


def reset_optimizer(phase: PhaseConfig, run: Run, state: TrainState) -> TrainState:
    """Returns the state before the first step, at the center and radius that the run brings along,
    if any; a run without images never trains."""
    # The optimiser's state has the shape of center and radius where these are trained.
    state = training.start_phase(
        phase,
        state.params,
        state.statistics,
        run.weights.get("center", state.center),
        run.weights.get("squared_radius", state.squared_radius),
    )
    return state._replace(active=run.data.count > 0)


def carry_failure(pretrained: TrainState, new: TrainState) -> TrainState:
    """Returns a new phase's first state; a run that failed before does not train."""
    healthy = pretrained.failure == training.NOT_FAILED
    return new._replace(active=new.active & healthy, failure=pretrained.failure)


def check_health(
    phase: PhaseConfig, state: TrainState, info: EpochInfo
) -> tuple[TrainState, EpochInfo]:
    """Notes the radius that an epoch ended with; stops a run whose loss is low enough, not finite,
    or whose radius vanished. A soft boundary does not stop before it has a radius."""
    info = info._replace(radius=jnp.sqrt(jnp.maximum(state.squared_radius, 0.0)))
    # Losses are measured before each step; the parameter norm also covers the last one.
    finite = jnp.isfinite(info.loss) & jnp.isfinite(info.parameter_norm)
    failure = jnp.where(finite, training.NOT_FAILED, training.NON_FINITE)
    objective = objectives.objective(phase.objective)
    lost = ~objective.healthy(state)
    failure = jnp.where((failure == training.NOT_FAILED) & lost, training.NO_RADIUS, failure)
    active = failure == training.NOT_FAILED
    if phase.stop_below is not None:
        active = active & ~(objective.settled(state) & (info.loss < phase.stop_below))
    return state._replace(active=active, failure=failure.astype(jnp.int32)), info


def outcome_of(
    network: Network, run: Run, state: TrainState, train_distances: Array, test_distances: Array
) -> Outcome:
    """Returns the outcome of a run with the distances of both its sets; see `finish_run`."""
    valid = _valid(run.data)
    # Known anomalies are trained on, but are not what the radius is about.
    normal = valid if run.data.labels is None else valid & (run.data.labels >= 0)
    finite = jnp.all(jnp.isfinite(train_distances) | ~valid) & jnp.all(jnp.isfinite(test_distances))
    lost = (state.failure == training.NOT_FAILED) & (run.data.count > 0) & ~finite
    # The last step may blow up what all losses before it did not show.
    failure = jnp.where(lost, training.NON_FINITE, state.failure)
    state = state._replace(failure=failure.astype(jnp.int32))
    over = (train_distances > state.squared_radius).astype(jnp.float32)
    outside = objectives.masked_mean(over, normal)
    state = objectives.put_exact_radius(state, train_distances, normal, run.training)
    ratio = scoring.collapse_ratio(state, network)
    return Outcome(state, train_distances, test_distances, ratio, outside)


def _put(phase: Phase, number: int, run: Run, state: TrainState, found: Array) -> TrainState:
    """Takes the result of a pass over the training set into the state."""
    wanted: Pass = phase.objective.passes[number]
    return wanted.put(state, found, _valid(run.data), phase.settings(run))


def _valid(data: RunData) -> Array:
    return jnp.arange(data.indices.shape[0], dtype=jnp.int32) < data.count


def _no_statistics(state: TrainState) -> Statistics:
    return jax.tree.map(jnp.zeros_like, state.statistics)


def _no_center(state: TrainState) -> Array:
    return jnp.zeros_like(state.center)


def images_in(batches: int | None, batch_size: int, data: RunData) -> Array:
    """Returns how many images the first batches hold; None: all."""
    return data.count if batches is None else jnp.minimum(data.count, batches * batch_size)


# --- functions of one run and a chunk of its images ---------------------------------------------


def _add_statistics(
    phase: Phase, chunk: Chunk, count: Array, state: TrainState, total: Statistics
) -> Statistics:
    """Adds a chunk's share of the mean batch statistics, weights fixed."""

    def of_batch(places: Array, mask: Array) -> Statistics:
        batch = training.take_batch(chunk.images, chunk.data, places, mask)
        return training.apply_network(phase.network, state.params, batch, None).statistics

    return _add_share(of_batch, phase, chunk, count, total)


def _add_embeddings(
    phase: Phase, chunk: Chunk, count: Array, state: TrainState, total: Array
) -> Array:
    """Adds a chunk's share of the mean embedding `[rep_dim]`."""

    def of_batch(places: Array, mask: Array) -> Array:
        batch = training.take_batch(chunk.images, chunk.data, places, mask)
        embeddings = phase.network.encode(state.params, state.statistics, batch.images)
        total = jnp.sum(jnp.where(mask[:, None], embeddings, 0.0), axis=0)
        return total / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)

    return _add_share(of_batch, phase, chunk, count, total)


def _add_share(
    of_batch: Callable[[Array, Array], Any], phase: Phase, chunk: Chunk, count: Array, total: Any
) -> Any:
    """Adds what a chunk's images have of the mean over all of them of a function of batches."""
    mean = _mean_over_batches(of_batch, chunk.data, phase.config.batch_size, total)
    share = chunk.data.count / jnp.maximum(count, 1)
    return jax.tree.map(lambda old, new: old + share * new, total, mean)


def _mean_over_batches(
    of_batch: Callable[[Array, Array], Any], data: RunData, batch_size: int, like: Any
) -> Any:
    """Averages a function of batches, which returns what `like` looks like, over a run's images,
    weighted by their number."""

    def body(index: Array, total: Any) -> Any:
        places = index * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        mask = places < data.count
        found = of_batch(jnp.minimum(places, data.indices.shape[0] - 1), mask)
        weight = jnp.sum(mask, dtype=jnp.int32) / jnp.maximum(data.count, 1)
        return jax.tree.map(lambda old, new: old + weight * new, total, found)

    batches = (data.count + batch_size - 1) // batch_size
    return jax.lax.fori_loop(0, batches, body, jax.tree.map(jnp.zeros_like, like))


def _embeddings(network: Network, chunk: Chunk, state: TrainState) -> Array:
    """Returns the embeddings `[n, rep_dim]` of a chunk, padding included."""

    def encode(indices: Array) -> Array:
        scaled = training.scaled_images(chunk.images, chunk.data, indices)
        return network.encode(state.params, state.statistics, scaled)

    size = chunk.data.indices.shape[0]
    batches = -(-size // scoring.BATCH_SIZE)
    padded = jnp.pad(chunk.data.indices, (0, batches * scoring.BATCH_SIZE - size))
    embeddings = jax.lax.map(encode, padded.reshape(batches, -1))
    return embeddings.reshape(-1, network.rep_dim)[:size]


def _distances(phase: Phase, chunk: Chunk, state: TrainState) -> Array:
    images, data, objective = chunk.images, chunk.data, phase.config.objective
    return scoring.pool_distances(state, images, data, phase.network, objective, data.indices)


def _order(phase: Phase, epoch: Array, run: Run, state: TrainState) -> tuple[Array, Array]:
    """Returns an epoch's order of a run's images, see `training.order_of_epoch`, and how many of
    them it takes: none once the run has stopped."""
    key = epoch_key(phase, run, epoch, 0)
    order, count = training.order_of_epoch(key, run.data, phase.config)
    return order, jnp.where(state.active, count, 0)


def _take_steps(
    phase: Phase,
    epoch: Array,
    chunk: Chunk,
    run: Run,
    count: Array,
    under_way: EpochUnderWay,
) -> EpochUnderWay:
    """Takes the steps of an epoch whose images a chunk holds."""
    stochastic = phase.network.draws or phase.config.draws
    return training.take_steps(
        under_way,
        chunk.images,
        chunk.data,
        chunk.order,
        chunk.first // phase.config.batch_size,
        count,
        phase.network,
        phase.config,
        phase.settings(run),
        epoch_key(phase, run, epoch, 1) if stochastic else None,
    )


def _end_epoch(
    phase: Phase, run: Run, before: TrainState, under_way: EpochUnderWay, count: Array
) -> tuple[TrainState, EpochInfo]:
    return training.end_epoch(before, under_way, count, phase.config, phase.settings(run))


def epoch_key(phase: Phase, run: Run, epoch: Array, use: int) -> Array:
    """Returns the key of an epoch's order (use 0), or of the dropout and the changes of images in
    its steps (use 1)."""
    # Keyed by objective, so that an autoencoder gets the same randomness as a pretraining and as a
    # run of its own.
    return _folded(run.key, phase.objective.key_number, epoch, use)


def _folded(key: Array, *numbers: Array | int) -> Array:
    """Folds numbers into a key one after the other. In a loop, since every place of a program where
    something is drawn takes the compiler a tenth of a second."""
    path = jnp.stack([jnp.asarray(number, jnp.uint32) for number in numbers])
    return jax.lax.fori_loop(
        0, len(numbers), lambda place, key: jax.random.fold_in(key, path[place]), key
    )
