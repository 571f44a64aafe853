"""A whole run as a pure function, many runs as one program, the mesh, and the chunks between which
a program can be left and taken up again.

A program works on a fixed number of runs. On an accelerator they are vmapped; on a CPU each device
loops over its runs, because there a batched convolution gains nothing, a loop skips a stopped run
and steps that a smaller class does not need, and the result does not depend on the neighbours.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deepsvdd_jax import convolution, objectives, scoring, training
from deepsvdd_jax.configs import PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, Params, Statistics
from deepsvdd_jax.objectives import Hyperparameters, Pass
from deepsvdd_jax.runs.state import (
    Outcome,
    Run,
    Shared,
    autoencoder_config,
    phase_config,
    phase_hyperparameters,
)
from deepsvdd_jax.training import EpochInfo, EpochKeys, RunData, TrainState


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


def begin_run(
    config: RunConfig, network: Network, shared: Shared, run: Run
) -> tuple[TrainState, Array]:
    """Returns a run's first state and the test distances `[n_test]` of the untrained network."""
    params, statistics = init_params(config, network, run)
    untrained = begin_training(config, network, shared, run, params, statistics)
    distances = scoring.pool_distances(
        untrained, shared.test_images, run.data, network, config.training.objective
    )
    if config.pretraining is None:
        return untrained, distances
    autoencoder = autoencoder_config(config)
    return begin_training(autoencoder, network, shared, run, params, statistics), distances


def end_pretraining(
    config: RunConfig, network: Network, shared: Shared, run: Run, state: TrainState
) -> TrainState:
    """Returns the first state of the training phase, its encoder taken from the autoencoder."""
    new = begin_training(config, network, shared, run, state.params, state.statistics)
    return handed_on(state, new)


def handed_on(pretrained: TrainState, new: TrainState) -> TrainState:
    """Returns a new phase's first state; a run that failed before does not train."""
    healthy = pretrained.failure == training.NOT_FAILED
    return new._replace(active=new.active & healthy, failure=pretrained.failure)


def begin_training(
    config: RunConfig,
    network: Network,
    shared: Shared,
    run: Run,
    params: Params,
    statistics: Statistics,
) -> TrainState:
    """Returns the first state of the training phase: statistics, then center, then radius.

    The center is the mean representation of the training set (paper, section 3.3).
    """
    phase = config.training
    objective = objectives.objective(phase.objective)
    state = bare_state(config, network, params, statistics)
    if objective.statistics_first:
        found = training_set_statistics(
            network, phase, shared.images, run.data, state.params, state.statistics
        )
        state = state._replace(statistics=found)
    for wanted in objective.first_passes:
        result = _found(wanted, network, phase, shared, run, state)
        state = put(wanted, run.training, run, state, result)
    return ready_to_train(phase, run, state)


def bare_state(
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


def put(
    wanted: Pass, settings: Hyperparameters, run: Run, state: TrainState, found: Array
) -> TrainState:
    """Takes the result of a pass over the training set into the state."""
    return wanted.put(state, found, _valid(run.data), settings)


def _found(
    wanted: Pass, network: Network, phase: PhaseConfig, shared: Shared, run: Run, state: TrainState
) -> Array:
    """Makes a pass over a run's training set."""
    if wanted.of == "mean":
        return mean_embedding(network, phase, shared.images, run.data, state, wanted.batches)
    if wanted.of == "embeddings":
        return pool_embeddings(network, shared.images, run.data, state)
    return _training_distances(network, phase, shared, run, state)


def ready_to_train(phase: PhaseConfig, run: Run, state: TrainState) -> TrainState:
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


def training_set_statistics(
    network: Network,
    phase: PhaseConfig,
    images: Array,
    data: RunData,
    params: Params,
    like: Statistics,
) -> Statistics:
    """Averages the batch statistics over a run's training set, weights fixed; their names and
    shapes are those of `like`."""

    def of_batch(places: Array, mask: Array) -> Statistics:
        batch = training.take_batch(images, data, places, mask)
        return training.apply_network(network, params, batch, None).statistics

    return _mean_over_batches(of_batch, data, phase.batch_size, data.count, like)


def mean_embedding(
    network: Network,
    phase: PhaseConfig,
    images: Array,
    data: RunData,
    state: TrainState,
    batches: int | None,
) -> Array:
    """Returns the mean embedding `[rep_dim]` of a run's images, or of its first batches."""

    def of_batch(places: Array, mask: Array) -> Array:
        batch = training.take_batch(images, data, places, mask)
        embeddings = network.encode(state.params, state.statistics, batch.images)
        total = jnp.sum(jnp.where(mask[:, None], embeddings, 0.0), axis=0)
        return total / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)

    count = images_in(batches, phase, data.count)
    return _mean_over_batches(of_batch, data, phase.batch_size, count, state.center)


def images_in(batches: int | None, phase: PhaseConfig, count: Array) -> Array:
    """Returns how many images the first batches hold; None: all."""
    return count if batches is None else jnp.minimum(count, batches * phase.batch_size)


def _mean_over_batches(
    of_batch: Callable[[Array, Array], Any],
    data: RunData,
    batch_size: int,
    count: Array,
    like: Any,
) -> Any:
    """Averages a function of batches, which returns what `like` looks like, over the first `count`
    images, weighted by their number."""

    def body(index: Array, total: Any) -> Any:
        places = index * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        mask = places < count
        found = of_batch(jnp.minimum(places, data.indices.shape[0] - 1), mask)
        weight = jnp.sum(mask, dtype=jnp.int32) / jnp.maximum(count, 1)
        return jax.tree.map(lambda old, new: old + weight * new, total, found)

    batches = (count + batch_size - 1) // batch_size
    return jax.lax.fori_loop(0, batches, body, jax.tree.map(jnp.zeros_like, like))


def _valid(data: RunData) -> Array:
    return jnp.arange(data.indices.shape[0], dtype=jnp.int32) < data.count


def _training_distances(
    network: Network, phase: PhaseConfig, shared: Shared, run: Run, state: TrainState
) -> Array:
    return scoring.pool_distances(
        state, shared.images, run.data, network, phase.objective, run.data.indices
    )


def run_epochs(
    config: RunConfig,
    network: Network,
    phase_name: str,
    capacity: int,
    shared: Shared,
    first_epoch: Array,
    count: Array,
    run: Run,
    state: TrainState,
) -> tuple[TrainState, Array]:
    """Trains one run for some epochs; a run that has stopped keeps its state.

    Args:
      config: static.
      network: static.
      phase_name: static; which phase.
      capacity: static; epochs that the history holds, at least `count`.
      shared: pools of images.
      first_epoch: int32, traced, so that one executable serves every chunk.
      count: int32, traced, epochs to run.
      run: key, data and settings.
      state: after epoch `first_epoch - 1`.

    Returns:
      The state, and the history `[capacity, INFO_WIDTH]` of `training.packed_info`, 0 where nothing
      was done.
    """
    phase, settings = phase_config(config, phase_name), phase_hyperparameters(run, phase_name)
    objective = objectives.objective(phase.objective)

    def train(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
        keys = epoch_keys(network, phase, run, epoch)
        new, info = training.train_epoch(
            state, shared.images, run.data, network, phase, settings, keys
        )
        if objective.after_epoch is not None:
            solve = objective.after_epoch.solve
            new = jax.lax.cond(
                objective.after_epoch.is_due(epoch),
                lambda state: put(
                    solve, settings, run, state, _found(solve, network, phase, shared, run, state)
                ),
                lambda state: state,
                new,
            )
        new, info = judged(phase, new, info)
        return new, training.packed_info(info)

    def skip(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
        return state, jnp.zeros(training.INFO_WIDTH, jnp.float32)

    def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        state, history = carry
        state, row = jax.lax.cond(state.active, train, skip, first_epoch + index, state)
        return state, history.at[index].set(row)

    return jax.lax.fori_loop(
        0, count, body, (state, jnp.zeros((capacity, training.INFO_WIDTH), jnp.float32))
    )


def epoch_keys(network: Network, phase: PhaseConfig, run: Run, epoch: Array) -> EpochKeys:
    """Returns the keys of an epoch, counted from 0, of a phase."""
    # Keyed by objective, so that an autoencoder gets the same randomness as a pretraining and as a
    # run of its own.
    of_epoch = (objectives.objective(phase.objective).key_number, epoch)
    dropout = _folded(run.key, *of_epoch, 1) if network.draws or phase.draws else None
    return EpochKeys(_folded(run.key, *of_epoch, 0), dropout)


def _folded(key: Array, *numbers: Array | int) -> Array:
    """Folds numbers into a key one after the other. In a loop, since every place of a program where
    something is drawn takes the compiler a tenth of a second."""
    path = jnp.stack([jnp.asarray(number, jnp.uint32) for number in numbers])
    return jax.lax.fori_loop(
        0, len(numbers), lambda place, key: jax.random.fold_in(key, path[place]), key
    )


def pool_embeddings(network: Network, images: Array, data: RunData, state: TrainState) -> Array:
    """Returns the embeddings `[n, rep_dim]` of a run's images, padding included."""

    def encode(indices: Array) -> Array:
        scaled = training.scaled_images(images, data, indices)
        return network.encode(state.params, state.statistics, scaled)

    size = data.indices.shape[0]
    batches = -(-size // scoring.BATCH_SIZE)
    padded = jnp.pad(data.indices, (0, batches * scoring.BATCH_SIZE - size))
    embeddings = jax.lax.map(encode, padded.reshape(batches, -1))
    return embeddings.reshape(-1, network.rep_dim)[:size]


def judged(phase: PhaseConfig, state: TrainState, info: EpochInfo) -> tuple[TrainState, EpochInfo]:
    """Notes the radius that an epoch ended with; stops a run whose loss is low enough, not finite,
    or whose radius vanished. A soft boundary does not stop before it has a radius."""
    info = info._replace(radius=jnp.sqrt(jnp.maximum(state.squared_radius, 0.0)))
    # The losses were taken before each step: only the weights tell of the last one.
    finite = jnp.isfinite(info.loss) & jnp.isfinite(info.parameter_norm)
    failure = jnp.where(finite, training.NOT_FAILED, training.NON_FINITE)
    objective = objectives.objective(phase.objective)
    lost = ~objective.healthy(state)
    failure = jnp.where((failure == training.NOT_FAILED) & lost, training.NO_RADIUS, failure)
    active = failure == training.NOT_FAILED
    if phase.stop_below is not None:
        active = active & ~(objective.settled(state) & (info.loss < phase.stop_below))
    return state._replace(active=active, failure=failure.astype(jnp.int32)), info


def end_run(
    config: RunConfig, network: Network, shared: Shared, run: Run, state: TrainState
) -> Outcome:
    """Scores both sets and takes the final radius from the whole training set.

    The radius is the (1 - nu) order statistic of the training distances; in one-class mode it
    serves as a threshold only.
    """
    distances = evaluate_run(config, network, "training", shared, run, state)
    return outcome_of(network, run, state, *distances)


def outcome_of(
    network: Network, run: Run, state: TrainState, train_distances: Array, test_distances: Array
) -> Outcome:
    """Returns the outcome of a run with the distances of both its sets; see `end_run`."""
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
    spread = scoring.noise_spread(state, network)
    return Outcome(state, train_distances, test_distances, spread, outside)


def evaluate_run(
    config: RunConfig,
    network: Network,
    phase_name: str,
    shared: Shared,
    run: Run,
    state: TrainState,
) -> tuple[Array, Array]:
    """Passes over both sets in evaluation mode; returns the distances of the run's images in the
    order of its indices, padding included, and of the test images `[n_test]`."""
    phase = phase_config(config, phase_name)
    train_distances = _training_distances(network, phase, shared, run, state)
    test_distances = scoring.pool_distances(
        state, shared.test_images, run.data, network, phase.objective
    )
    return train_distances, test_distances


def looped(function: Callable[[Any], Any], per_run: Any) -> Any:
    """Returns `function` over a leading axis of runs, one after the other, as `jax.lax.map` does.

    The compiler must not see that there is one run only. It would drop the loop, fuse its body with
    what is around it, and the last bits of a run would depend on how many runs its device has. So
    the number of runs is hidden from it, and the arrays always have two rows or more.
    """
    count = jax.tree.leaves(per_run)[0].shape[0]
    if count == 1:
        per_run = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), per_run)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], per_run))
    rows = max(count, 2)
    results = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)

    def body(index: Array, results: Any) -> Any:
        one = function(jax.tree.map(lambda leaf: leaf[index], per_run))
        return jax.tree.map(lambda whole, part: whole.at[index].set(part), results, one)

    hidden = jax.lax.optimization_barrier(np.int32(count))
    results = jax.lax.fori_loop(0, hidden, body, results)
    return jax.tree.map(lambda leaf: leaf[:count], results)


def platform(mesh: Mesh) -> str:
    """Returns the platform that a program is lowered for: where its devices are, unless
    `convolution.lowered_for` says otherwise."""
    return convolution.platform(mesh.devices.flat[0].platform)
