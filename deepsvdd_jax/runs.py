"""A whole run as a pure function, many runs as one program, the mesh, and the chunks between which
a program can be left and taken up again.

A program works on a fixed number of runs. On an accelerator they are vmapped; on a CPU each device
loops over its runs, because there a batched convolution gains nothing, a loop skips a stopped run
and steps that a smaller class does not need, and the result does not depend on the neighbours.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import convolution, objectives, scoring, training
from deepsvdd_jax.configs import (
    ConfigError,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.networks import Network, Params, Statistics, build_network
from deepsvdd_jax.training import (
    EpochInfo,
    EpochKeys,
    Hyperparameters,
    RunData,
    TrainState,
)

# Epochs of history that one call can hold; a call runs at most this many.
MOST_EPOCHS_PER_CALL = 25

PHASES = ("pretraining", "training")


class Run(NamedTuple):
    """One run of a program; stacked, every array has a leading axis of runs.

    Attributes:
      key: all draws of the run come from it.
      data: which images it trains on, and their scaling.
      pretraining: traced settings of the autoencoder phase (of the training phase without one).
      training: traced settings of the evaluated phase.
      weights: parameters that replace drawn ones, a nested dict with any part of the network's.
    """

    key: Array
    data: RunData
    pretraining: Hyperparameters
    training: Hyperparameters
    weights: Params


class Shared(NamedTuple):
    """What all runs of a program see: float32 pools `[m, ...]` of training and test images."""

    images: Array
    test_images: Array


class Outcome(NamedTuple):
    """What is left of a run when it has ended; distances are d, not d - R^2.

    Attributes:
      state: the final state; its squared radius comes from the whole training set.
      train_distances: `[n]`, of the run's images in the order of its indices, padding included.
      test_distances: `[n_test]`.
      spread: see `scoring.noise_spread`.
      outside: share of the run's images with d > R^2 at the radius that training ended with.
    """

    state: TrainState
    train_distances: Array
    test_distances: Array
    spread: Array
    outside: Array


class Progress(NamedTuple):
    """A program between two chunks: all that is needed to go on.

    Attributes:
      phase: `pretraining` or `training`.
      epoch: epochs of that phase that are done.
      state: stacked.
      untrained_distances: `[runs, n_test]`, test distances before any training.
      history: a phase's stacked `EpochInfo` so far, `[runs, epochs, ...]` numpy arrays.
    """

    phase: str
    epoch: int
    state: TrainState
    untrained_distances: Array
    history: dict[str, EpochInfo]


def phase_config(config: RunConfig, name: str) -> PhaseConfig:
    """Returns the settings of a phase, one of `PHASES`, that the configuration has."""
    phase = config.pretraining if name == "pretraining" else config.training
    assert phase is not None
    return phase


def autoencoder_config(config: RunConfig) -> RunConfig:
    """Returns the run that a pretraining is: the autoencoder phase, trained and scored by itself.

    With the same key it draws and trains what the pretraining of `config` does, to the bit.
    """
    assert config.pretraining is not None
    return dataclasses.replace(config, pretraining=None, training=config.pretraining)


# --- one run ------------------------------------------------------------------------------------


def check_image_count(config: RunConfig, count: int) -> None:
    """Refuses too few training images: a run needs two for its statistics, a phase of whole
    batches one batch.

    Raises:
      ConfigError: says how many there are and how many are needed.
    """
    for phase in (config.pretraining, config.training):
        least = phase.batch_size if phase is not None and phase.whole_batches else 2
        if count < least:
            raise ConfigError(f"{count} training images; at least {least} are needed")


def init_params(config: RunConfig, network: Network, run: Run) -> tuple[Params, Statistics]:
    """Draws a run's weights; `run.weights` replaces what it names, under `statistics` running
    statistics."""
    key_init = jax.random.fold_in(run.key, 0)
    params, statistics = network.init(key_init, config.needs_decoder)
    weights = {name: value for name, value in run.weights.items() if name != "statistics"}
    kept = run.weights.get("statistics", {})
    return _replace_leaves(params, weights), _replace_leaves(statistics, kept)


def _replace_leaves(params: Params, replacements: Params) -> Params:
    merged = dict(params)
    for name, value in replacements.items():
        merged[name] = _replace_leaves(params[name], value) if isinstance(value, dict) else value
    return merged


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
    phase, objective = config.training, config.training.objective
    state = bare_state(config, network, params, statistics)
    if objective.statistics_first:
        found = training_set_statistics(
            network, phase, shared.images, run.data, state.params, state.statistics
        )
        state = state._replace(statistics=found)
    if objective.center_from_data:
        mean = mean_code(network, phase, shared.images, run.data, state)
        state = with_center(phase, state, mean)
    if objective.radius_from_data:
        state = with_radius(run, state, _training_distances(network, phase, shared, run, state))
    return ready_to_train(phase, run, state)


def bare_state(
    config: RunConfig, network: Network, params: Params, statistics: Statistics
) -> TrainState:
    """Returns a state of the training phase that knows nothing of the training set yet."""
    parts = ("encoder", "decoder") if config.training_reconstructs else ("encoder",)
    objective = config.training.objective
    constant = objective.kind != "reconstruction" and objective.center_init == "constant"
    return training.start_phase(
        config.training,
        {part: params[part] for part in parts},
        {part: statistics[part] for part in parts},
        jnp.full((network.rep_dim,), 0.5 if constant else 0.0, jnp.float32),
        jnp.zeros(()),
    )


def with_center(phase: PhaseConfig, state: TrainState, mean: Array) -> TrainState:
    """Sets the center to the mean representation `[rep_dim]`, away from zero."""
    center = objectives.away_from_zero(mean, phase.objective.center_floor)
    return state._replace(center=center)


def with_radius(run: Run, state: TrainState, distances: Array) -> TrainState:
    """Solves for the squared radius, given the distances of the run's images, padding included."""
    radius = objectives.exact_squared_radius(distances, run.training.nu, _valid(run.data))
    return state._replace(squared_radius=radius)


def ready_to_train(phase: PhaseConfig, run: Run, state: TrainState) -> TrainState:
    """Returns the state before the first step; a run without images never trains."""
    # The optimiser's state has the shape of center and radius where these are trained.
    state = training.start_phase(
        phase, state.params, state.statistics, state.center, state.squared_radius
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
        codes, encoder = network.encode_batch(params, batch.images, mask, None)
        found = {"encoder": encoder}
        if "decoder" in params:
            _, found["decoder"] = network.decode_batch(params, codes, mask)
        return found

    return _mean_over_batches(of_batch, data, phase.batch_size, data.count, like)


def mean_code(
    network: Network, phase: PhaseConfig, images: Array, data: RunData, state: TrainState
) -> Array:
    """Returns the mean representation `[rep_dim]` of the images that make the center."""

    def of_batch(places: Array, mask: Array) -> Array:
        batch = training.take_batch(images, data, places, mask)
        codes = network.encode(state.params, state.statistics, batch.images)
        total = jnp.sum(jnp.where(mask[:, None], codes, 0.0), axis=0)
        return total / jnp.maximum(jnp.sum(mask), 1)

    count = center_count(phase, data.count)
    return _mean_over_batches(of_batch, data, phase.batch_size, count, state.center)


def center_count(phase: PhaseConfig, count: Array) -> Array:
    """Returns how many of a run's first images make the center."""
    batches = phase.objective.center_batches
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
        places = index * batch_size + jnp.arange(batch_size)
        mask = places < count
        found = of_batch(jnp.minimum(places, data.indices.shape[0] - 1), mask)
        weight = jnp.sum(mask) / jnp.maximum(count, 1)
        return jax.tree.map(lambda old, new: old + weight * new, total, found)

    batches = (count + batch_size - 1) // batch_size
    return jax.lax.fori_loop(0, batches, body, jax.tree.map(jnp.zeros_like, like))


def _valid(data: RunData) -> Array:
    return jnp.arange(data.indices.shape[0]) < data.count


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

    def train(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
        keys = epoch_keys(network, phase, run, epoch)
        new, info = training.train_epoch(
            state, shared.images, run.data, network, phase, settings, keys
        )
        if phase.objective.solves_radius:
            new = jax.lax.cond(
                radius_is_due(phase, epoch),
                lambda state: _with_solved_radius(network, phase, shared, run, state),
                lambda state: state,
                new,
            )
        new, info = judged(phase, new, info)
        return new, training.packed_info(info)

    def skip(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
        return state, jnp.zeros(training.INFO_WIDTH)

    def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        state, history = carry
        state, row = jax.lax.cond(state.active, train, skip, first_epoch + index, state)
        return state, history.at[index].set(row)

    return jax.lax.fori_loop(0, count, body, (state, jnp.zeros((capacity, training.INFO_WIDTH))))


def phase_hyperparameters(run: Run, phase_name: str) -> Hyperparameters:
    """Returns the traced settings of a phase."""
    return run.pretraining if phase_name == "pretraining" else run.training


def epoch_keys(network: Network, phase: PhaseConfig, run: Run, epoch: Array) -> EpochKeys:
    """Returns the keys of an epoch, counted from 0, of a phase."""
    # By what is minimised, not by the phase: an autoencoder draws the same before and alone.
    reconstructs = phase.objective.kind == "reconstruction"
    of_epoch = (1 if reconstructs else 2, epoch)
    dropout = _folded(run.key, *of_epoch, 1) if network.draws else None
    return EpochKeys(_folded(run.key, *of_epoch, 0), dropout)


def _folded(key: Array, *numbers: Array | int) -> Array:
    """Folds numbers into a key one after the other. In a loop, since every place of a program where
    something is drawn takes the compiler a tenth of a second."""
    path = jnp.stack([jnp.asarray(number, jnp.uint32) for number in numbers])
    return jax.lax.fori_loop(
        0, len(numbers), lambda place, key: jax.random.fold_in(key, path[place]), key
    )


def radius_is_due(phase: PhaseConfig, epoch: Array | int) -> Array | bool:
    """Whether the radius is solved for at the end of an epoch, counted from 0: after every epoch of
    the warm-up, then every `radius_every` epochs (Theano code)."""
    objective = phase.objective
    past = epoch + 1 - objective.warm_up_epochs
    return (past <= 0) | (past % objective.radius_every == 0)


def _with_solved_radius(
    network: Network, phase: PhaseConfig, shared: Shared, run: Run, state: TrainState
) -> TrainState:
    """Solves for the radius (and the center) on the whole training set."""
    if phase.objective.center_rule == "dual":
        return with_dual(run, state, pool_codes(network, shared.images, run.data, state))
    return with_radius(run, state, _training_distances(network, phase, shared, run, state))


def with_dual(run: Run, state: TrainState, codes: Array) -> TrainState:
    """Solves for center and squared radius, given the representations `[n, rep_dim]` of the run's
    images, padding included."""
    center, squared_radius, _ = objectives.svdd_dual(codes, run.training.nu, _valid(run.data))
    return state._replace(center=center, squared_radius=squared_radius)


def pool_codes(network: Network, images: Array, data: RunData, state: TrainState) -> Array:
    """Returns the representations `[n, rep_dim]` of a run's images, padding included."""

    def encode(indices: Array) -> Array:
        scaled = training.scaled_images(images, data, indices)
        return network.encode(state.params, state.statistics, scaled)

    size = data.indices.shape[0]
    batches = -(-size // scoring.BATCH_SIZE)
    padded = jnp.pad(data.indices, (0, batches * scoring.BATCH_SIZE - size))
    codes = jax.lax.map(encode, padded.reshape(batches, -1))
    return codes.reshape(-1, network.rep_dim)[:size]


def judged(phase: PhaseConfig, state: TrainState, info: EpochInfo) -> tuple[TrainState, EpochInfo]:
    """Notes the radius that an epoch ended with; stops a run whose loss is low enough, not finite,
    or whose radius vanished."""
    info = info._replace(radius=jnp.sqrt(jnp.maximum(state.squared_radius, 0.0)))
    # The losses were taken before each step: only the weights tell of the last one.
    finite = jnp.isfinite(info.loss) & jnp.isfinite(info.parameter_norm)
    failure = jnp.where(finite, training.NOT_FAILED, training.NON_FINITE)
    objective = phase.objective
    if objective.kind == "soft-boundary":
        warm = objective.radius_rule == "quantile"
        expected = state.epoch > objective.warm_up_epochs if warm else jnp.ones((), bool)
        lost = expected & ~(state.squared_radius > 0.0)
        failure = jnp.where((failure == training.NOT_FAILED) & lost, training.NO_RADIUS, failure)
    active = failure == training.NOT_FAILED
    if phase.stop_below is not None:
        active = active & ~(info.loss < phase.stop_below)
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
    finite = jnp.all(jnp.isfinite(train_distances) | ~valid) & jnp.all(jnp.isfinite(test_distances))
    lost = (state.failure == training.NOT_FAILED) & (run.data.count > 0) & ~finite
    # The last step may blow up what all losses before it did not show.
    failure = jnp.where(lost, training.NON_FINITE, state.failure)
    state = state._replace(failure=failure.astype(jnp.int32))
    over = (train_distances > state.squared_radius).astype(jnp.float32)
    outside = objectives.masked_mean(over, valid)
    state = with_radius(run, state, train_distances)
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


# --- many runs ----------------------------------------------------------------------------------


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


def map_runs(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns `mapped(shared, per_run)`, `function(shared, run)` over the runs of a mesh.

    Args:
      function: of what is shared, then one run's arrays.
      mesh: the leading axis of `per_run` is sharded over its axis `run`, so it must be a multiple
        of that. Over `data` the compiler splits what `training.split_over_devices` marks.
    """

    def local(shared: Any, per_run: Any) -> Any:
        one = functools.partial(function, shared)
        if _platform(mesh) == "cpu":
            return _looped(one, per_run)
        return jax.vmap(one)(per_run)

    if mesh.size == 1:
        return local
    split = mesh.shape[training.DATA_AXIS] > 1
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(Spec(), Spec("run")),
        out_specs=Spec("run"),
        axis_names={"run"} if split else set(mesh.axis_names),
        check_vma=False,
    )


def _looped(function: Callable[[Any], Any], per_run: Any) -> Any:
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


@functools.lru_cache(maxsize=64)
def compiled(function: Callable[..., Any], mesh: Mesh, *static: Any) -> jax.stages.Wrapped:
    """Returns `mapped(shared, per_run)`, compiled: `function(*static, *shared, *one_run)` over the
    runs of a mesh, for tuples `shared` and `per_run`."""

    def one_run(shared: tuple[Any, ...], per_run: tuple[Any, ...]) -> Any:
        with convolution.lowered_for(_platform(mesh)):
            return function(*static, *shared, *per_run)

    hurried = _platform(mesh) == "cpu" and _is_hardly_run(function, static)
    options = {"xla_backend_optimization_level": 0} if hurried else None
    return jax.jit(map_runs(one_run, mesh), compiler_options=options)


def _platform(mesh: Mesh) -> str:
    """Returns the platform that a program is lowered for: where its devices are, unless
    `convolution.lowered_for` says otherwise."""
    return convolution.platform(mesh.devices.flat[0].platform)


def _is_hardly_run(function: Callable[..., Any], static: tuple[Any, ...]) -> bool:
    """Whether compiling a function well takes longer than it gains: what happens once in a run, and
    with the rows of a table, of which it takes hundreds of thousands to notice. Images take longer
    than their program's compilation."""
    once = function in (begin_run, end_pretraining, end_run)
    return once and any(isinstance(part, Network) and len(part.image_shape) == 1 for part in static)


def forget_programs() -> None:
    """Lets every program be traced and compiled anew."""
    compiled.cache_clear()


def share(mesh: Mesh, images: np.ndarray, test_images: np.ndarray) -> Shared:
    """Puts the pools of images on every device of a mesh, once, as float32."""
    everywhere = NamedSharding(mesh, Spec())
    pools: Any = [np.asarray(pool, np.float32) for pool in (images, test_images)]
    return jax.device_put(Shared(*pools), everywhere)


def place(mesh: Mesh, per_run: Any) -> Any:
    """Puts arrays with a leading axis of runs on the devices of a mesh, each where it trains."""
    return jax.device_put(per_run, NamedSharding(mesh, Spec("run")))


def compile_programs(
    config: RunConfig,
    network: Network,
    mesh: Mesh,
    shared: Shared,
    runs: Run,
    on_compiled: Callable[[int, int], None] | None = None,
) -> int:
    """Compiles all that a program of runs will call, at the same time, each call in a thread: the
    compiler works on one core. Nothing but time depends on it, so it may be left out.

    Args:
      config, network, mesh, shared, runs: as of `begin_runs`; of the last two the shapes, types and
        places are enough.
      on_compiled: called about once a second with how many programs are compiled, and of how many.

    Returns:
      The bytes that the largest of the programs needs on a device: arguments, results, temporaries.
    """
    no_epochs = (np.int32(0), np.int32(0))
    phases = PHASES[config.pretraining is None :]
    tell = on_compiled or (lambda done, total: None)
    tell(0, 2 * len(phases) + 1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        under_way = []

        def start_compiling(call: jax.stages.Traced) -> None:
            # Traced and lowered here: what a caller has set in jax for this thread takes part.
            under_way.append(pool.submit(call.lower().compile))

        ends = _config_of_ends(config)
        begin = compiled(begin_run, mesh, ends, network).trace((shared,), (runs,))
        state, _ = _placed_shapes(mesh, begin.out_info)
        once = [begin]
        # The epochs first: all have to wait for the longest.
        for phase in phases:
            advance = compiled(run_epochs, mesh, config, network, phase, MOST_EPOCHS_PER_CALL)
            start_compiling(advance.trace((shared, *no_epochs), (runs, state)))
            if phase == "pretraining":
                switch = compiled(end_pretraining, mesh, config, network)
                once.append(switch.trace((shared,), (runs, state)))
                state = _placed_shapes(mesh, once[-1].out_info)
        once.append(compiled(end_run, mesh, ends, network).trace((shared,), (runs, state)))
        for call in once:
            start_compiling(call)
        missing = set(under_way)
        while missing:
            _, missing = concurrent.futures.wait(missing, timeout=1.0)
            tell(len(under_way) - len(missing), len(under_way))
        return max(_bytes_needed(one.result()) for one in under_way)


def _config_of_ends(config: RunConfig) -> RunConfig:
    """Returns the configuration for which the programs of the first state and of the end are
    compiled: neither looks at how the radius of a soft boundary moves in between, so that one-class
    and soft boundary share them."""
    objective = config.training.objective
    if objective.kind != "soft-boundary" or objective.radius_rule == "gradient":
        return config
    default = ObjectiveConfig()
    plain = dataclasses.replace(
        objective,
        kind="one-class",
        radius_rule=default.radius_rule,
        warm_up_epochs=default.warm_up_epochs,
        radius_every=default.radius_every,
        # What a dual center rule solves for is solved for between epochs.
        center_rule="fixed" if objective.center_rule == "dual" else objective.center_rule,
    )
    training_phase = dataclasses.replace(config.training, objective=plain)
    return dataclasses.replace(config, training=training_phase)


def _bytes_needed(program: jax.stages.Compiled) -> int:
    usage: Any = program.memory_analysis()
    if usage is None:
        return 0
    return usage.argument_size_in_bytes + usage.output_size_in_bytes + usage.temp_size_in_bytes


def _placed_shapes(mesh: Mesh, shapes: Any) -> Any:
    """Returns shapes and types as those of arrays on the devices of a mesh."""
    placed = NamedSharding(mesh, Spec("run"))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), shapes
    )


def begin_runs(
    config: RunConfig, network: Network, mesh: Mesh, shared: Shared, runs: Run
) -> Progress:
    """Starts the runs of a program: weights, center, untrained scores."""
    begin = compiled(begin_run, mesh, _config_of_ends(config), network)
    state, untrained = begin((shared,), (runs,))
    phase = "training" if config.pretraining is None else "pretraining"
    return Progress(phase, 0, state, untrained, {})


def state_template(
    config: RunConfig, network: Network, shared: Shared, runs: Run, phase_name: str
) -> TrainState:
    """Returns the shapes and types of a program's stacked state in a phase, computing nothing."""

    def one(shared: Shared, run: Run) -> TrainState:
        state, _ = begin_run(config, network, shared, run)
        if phase_name == "training" and config.pretraining is not None:
            return end_pretraining(config, network, shared, run, state)
        return state

    pools = Shared(shared.images, shared.test_images)
    template: TrainState = jax.eval_shape(jax.vmap(one, in_axes=(None, 0)), pools, runs)
    return template


def continue_runs(
    config: RunConfig,
    network: Network,
    mesh: Mesh,
    shared: Shared,
    runs: Run,
    progress: Progress,
    epochs: int,
) -> Progress:
    """Trains all runs of a program for up to `epochs` epochs, within one phase.

    Returns:
      The progress; its phase is `training` and its epoch that phase's last when all is done. A
      pretraining that has come to its end goes over into training with the next call.
    """
    if pretraining_is_over(config, progress):
        switch = compiled(end_pretraining, mesh, config, network)
        state = switch((shared,), (runs, progress.state))
        progress = progress._replace(phase="training", epoch=0, state=state)
    count = epochs_to_go(config, progress, epochs)
    advance = compiled(run_epochs, mesh, config, network, progress.phase, MOST_EPOCHS_PER_CALL)
    limits = (np.int32(progress.epoch), np.int32(count))
    state, history = advance((shared, *limits), (runs, progress.state))
    return with_epochs(progress, state, training.unpacked_info(np.asarray(history)[:, :count]))


def pretraining_is_over(config: RunConfig, progress: Progress) -> bool:
    """Whether the training phase comes next."""
    return progress.phase == "pretraining" and _phase_is_over(config, progress)


def epochs_to_go(config: RunConfig, progress: Progress, wanted: int) -> int:
    """Returns how many epochs of the phase one call runs."""
    left = phase_config(config, progress.phase).epochs - progress.epoch
    return min(wanted, MOST_EPOCHS_PER_CALL, left)


def with_epochs(progress: Progress, state: TrainState, info: EpochInfo) -> Progress:
    """Returns the progress after more epochs of a phase, whose numpy history is
    `[runs, epochs, ...]`."""
    count = info.ran.shape[1]
    if progress.phase in progress.history:
        info = jax.tree.map(
            lambda old, new: np.concatenate([old, new], axis=1),
            progress.history[progress.phase],
            info,
        )
    return progress._replace(
        epoch=progress.epoch + count,
        state=state,
        history={**progress.history, progress.phase: info},
    )


def evaluate_runs(
    config: RunConfig, network: Network, mesh: Mesh, shared: Shared, runs: Run, progress: Progress
) -> tuple[Array, Array]:
    """Returns the distances of `evaluate_run` for every run of a program under way."""
    evaluate = compiled(evaluate_run, mesh, config, network, progress.phase)
    distances: tuple[Array, Array] = evaluate((shared,), (runs, progress.state))
    return distances


def is_over(config: RunConfig, progress: Progress) -> bool:
    """Whether no run of a program has an epoch left."""
    return progress.phase == "training" and _phase_is_over(config, progress)


def _phase_is_over(config: RunConfig, progress: Progress) -> bool:
    if progress.epoch >= phase_config(config, progress.phase).epochs:
        return True
    return not bool(np.any(np.asarray(progress.state.active)))


def end_runs(
    config: RunConfig, network: Network, mesh: Mesh, shared: Shared, runs: Run, progress: Progress
) -> Outcome:
    """Scores the runs of a program that is over."""
    end = compiled(end_run, mesh, _config_of_ends(config), network)
    return end((shared,), (runs, progress.state))


class Engine(NamedTuple):
    """How the runs of a program meet their images: on the devices (`IN_MEMORY`), or streamed.

    Attributes:
      share: `(mesh, images, test_images) -> shared`, as `share`.
      compile: as `compile_programs`; may be left out.
      begin: as `begin_runs`.
      advance: as `continue_runs`.
      evaluate: as `evaluate_runs`.
      end: as `end_runs`.
    """

    share: Callable[..., Any]
    compile: Callable[..., int]
    begin: Callable[..., Progress]
    advance: Callable[..., Progress]
    evaluate: Callable[..., tuple[Array, Array]]
    end: Callable[..., Outcome]


IN_MEMORY = Engine(share, compile_programs, begin_runs, continue_runs, evaluate_runs, end_runs)


# --- in one call --------------------------------------------------------------------------------


def init_run(key: Array, config: RunConfig, images: Array) -> TrainState:
    """Returns the state of a run before its training phase: weights, statistics, center.

    Args:
      key: of the run.
      config: static, hashable; its pretraining is not run.
      images: float32 `[n, height, width, channels]` or `[n, features]`, network input, all normal.
    """
    images = jnp.asarray(images, jnp.float32)
    network = build_network(config.network, tuple(images.shape[1:]))
    return _init_run(_whole_run(key, config, images), images, config, network)


@functools.partial(jax.jit, static_argnames=("config", "network"))
def _init_run(run: Run, images: Array, config: RunConfig, network: Network) -> TrainState:
    params, statistics = init_params(config, network, run)
    shared = Shared(images, images[:0])
    return begin_training(config, network, shared, run, params, statistics)


def _whole_run(key: Array, config: RunConfig, images: Array | np.ndarray) -> Run:
    """Returns a run on all of `images`, which are network input already."""
    ones = (1,) * (images.ndim - 1)
    count = images.shape[0]
    data = training.run_data(np.arange(count), count, np.zeros(ones), np.ones(ones))
    return Run(key, data, *phase_settings(config), {})


def phase_settings(config: RunConfig) -> tuple[Hyperparameters, Hyperparameters]:
    """Returns the traced settings of pretraining and training, scalars."""
    trained = training.default_hyperparameters(config.training)
    if config.pretraining is None:
        return trained, trained
    return training.default_hyperparameters(config.pretraining), trained


def stack_runs(runs: list[Run]) -> Run:
    """Stacks runs along a new leading axis, filling indices up to the longest."""
    return _stack(runs, jnp.stack([run.key for run in runs]))


def _stack(runs: list[Run], keys: Array) -> Run:
    """Stacks all but the keys, on the host: every operation of jax's own would be compiled."""
    longest = max(run.data.indices.shape[0] for run in runs)

    def filled(run: Run) -> dict[str, Any]:
        missing = longest - run.data.indices.shape[0]
        indices: Any = np.pad(np.asarray(run.data.indices), (0, missing))
        return run._asdict() | {"key": None, "data": run.data._replace(indices=indices)}

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(filled, runs))
    return Run(**stacked | {"key": keys})


def train_runs(
    keys: Array,
    config: RunConfig,
    images: npt.ArrayLike,
    test_images: npt.ArrayLike | None = None,
    *,
    data: list[RunData] | None = None,
    weights: list[Params] | None = None,
    mesh: Mesh | None = None,
    engine: Engine = IN_MEMORY,
    epochs_per_call: int = MOST_EPOCHS_PER_CALL,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Outcome, Progress]:
    """Trains many runs in one program, from weights to scores.

    Args:
      keys: `[runs]`, a typed key for each run.
      config: static, of all of them.
      images: `[m, ...]`, the pool of training images; network input unless `data` scales. A
        streaming engine reads no more of a `numpy.memmap` than it trains on at the moment.
      test_images: float32 `[n_test, ...]`, scored in the end; None scores nothing.
      data: which images each run trains on; None trains each on all.
      weights: of each run, parameters that replace drawn ones; None draws all.
      mesh: devices; None takes all local ones. The number of runs must be a multiple of its axis
        `run` unless it is None.
      engine: where the images are; see `streaming.engine` for sets that do not fit a device.
      epochs_per_call: epochs of a chunk, `MOST_EPOCHS_PER_CALL` at most.
      on_progress: called after every chunk.

    Returns:
      The outcome, with a leading axis of runs, and the last progress, with the history.
    """
    pool = np.asarray(images)
    test_pool = pool[:0] if test_images is None else np.asarray(test_images)
    network = build_network(config.network, tuple(pool.shape[1:]))
    if mesh is None:
        devices = jax.local_devices()
        usable = max(n for n in range(1, len(devices) + 1) if len(keys) % n == 0)
        mesh = make_mesh(devices[:usable])
    whole = _whole_run(keys, config, pool)
    runs = _stack(
        [
            whole._replace(
                data=whole.data if data is None else data[number],
                weights={} if weights is None else weights[number],
            )
            for number in range(len(keys))
        ],
        keys,
    )
    check_data_devices(config, mesh.shape[training.DATA_AXIS])
    config = _of_program(config)
    parts = (config, network, mesh, engine.share(mesh, pool, test_pool), place(mesh, runs))
    engine.compile(*parts)
    progress = engine.begin(*parts)
    while not is_over(config, progress):
        progress = engine.advance(*parts, progress, epochs_per_call)
        if on_progress is not None:
            on_progress(progress)
    return engine.end(*parts, progress), progress


def _of_program(config: RunConfig) -> RunConfig:
    """Returns a configuration with defaults for all that no program looks at, because it travels as
    an array or concerns the host: one compiled program then serves all values of these."""

    def plain(phase: PhaseConfig) -> PhaseConfig:
        return dataclasses.replace(
            phase,
            objective=dataclasses.replace(phase.objective, nu=ObjectiveConfig().nu),
            optimizer=dataclasses.replace(
                phase.optimizer, learning_rate=OptimizerConfig().learning_rate
            ),
            weight_decay=PhaseConfig().weight_decay,
        )

    return RunConfig(
        network=config.network,
        pretraining=None if config.pretraining is None else plain(config.pretraining),
        training=plain(config.training),
    )


# --- width --------------------------------------------------------------------------------------

# Share of a device's memory that a program may plan for: the allocator needs some room.
_MEMORY_SHARE = 0.8


def widest_program(needed: int, pools: int, width: int, memory: int) -> int:
    """Returns how many runs a device, at least one, has the memory for.

    Args:
      needed: bytes of a program on a device, as `compile_programs` returns them, which has
      width: runs on that device, and
      pools: bytes of what these share.
      memory: bytes of the device.
    """
    a_run = max((needed - pools) / width, 1.0)
    return max(1, int((_MEMORY_SHARE * memory - pools) // a_run))
