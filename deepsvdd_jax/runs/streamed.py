"""Programs whose images stay on the host, for sets that are larger than a device's memory.

The pools come to the devices in chunks of several batches, and a chunk is a small pool: what is
computed is what `runs` computes within one program, in the same order, and the host goes from chunk
to chunk. While the devices work on one, a thread gathers and copies the next; reading is indexing
of one array, for which a thread and a queue of one do all that a loader library would.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import objectives, scoring, training
from deepsvdd_jax.configs import PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, Params, Statistics
from deepsvdd_jax.runs import compilation, phases, resident
from deepsvdd_jax.runs.memory import budget_in_bytes
from deepsvdd_jax.runs.mesh import place, places_for_runs
from deepsvdd_jax.runs.resident import Engine
from deepsvdd_jax.runs.state import (
    Outcome,
    Progress,
    Run,
    autoencoder_config,
    phase_config,
    phase_hyperparameters,
)
from deepsvdd_jax.training import EpochInfo, EpochUnderWay, RunData, TrainState

# Chunks that are on a device at a time: one in use, one whose work is queued, one that arrives,
# and what the allocator and a batch of it take.
_CHUNKS_IN_MEMORY = 4
# Larger chunks save nothing any more.
_MOST_CHUNK_BYTES = 2**26


class HostPools(NamedTuple):
    """Pools `[m, ...]` of images that stay where they are, arrays or memory maps of any type, and
    the bytes that a chunk may have on one device."""

    images: npt.NDArray[np.generic]
    test_images: npt.NDArray[np.generic]
    chunk_bytes: int


def engine(budget: int) -> Engine:
    """Returns the engine that streams.

    Args:
      budget: bytes of images that a device may hold at a time. One batch of every run that trains
        at the same time is the least that is moved, whatever the budget.
    """
    chunk_bytes = min(budget // _CHUNKS_IN_MEMORY, _MOST_CHUNK_BYTES)

    def share(
        mesh: Mesh, images: npt.NDArray[np.generic], test_images: npt.NDArray[np.generic]
    ) -> HostPools:
        return HostPools(images, test_images, chunk_bytes)

    return Engine(share, _compile_nothing, begin_runs, continue_runs, evaluate_runs, end_runs)


def _compile_nothing(*parts: Any) -> int:
    """Each of a chunk's programs is compiled at its first call; together they need no more than
    the budget and what the runs hold."""
    return 0


def choose_engine(budget: int | None, *pools: npt.NDArray[np.generic]) -> Engine:
    """Returns the engine for pools of images: on the devices where they fit the budget as float32.

    Args:
      budget: bytes; None takes half of an accelerator's memory, and never streams on a CPU, whose
        memory the pools are in already.
      pools: arrays `[m, ...]`.
    """
    budget = budget_in_bytes(budget)
    if budget is None or sum(4 * pool.size for pool in pools) <= budget:
        return resident.IN_MEMORY
    return engine(budget)


class _Program(NamedTuple):
    """What the moves below are about; the first five are their arguments."""

    config: RunConfig
    network: Network
    mesh: Mesh
    pools: HostPools
    runs: Run

    def call(
        self, function: Callable[..., Any], *static: Any, shared: Any = (), per_run: Any = ()
    ) -> Any:
        """Calls `function(*static, *shared, *per_run)` for every run."""
        return compilation.compiled(function, self.mesh, *static)(shared, per_run)


def begin_runs(
    config: RunConfig, network: Network, mesh: Mesh, shared: HostPools, members: Run
) -> Progress:
    """See `runs.begin_runs`."""
    program = _Program(config, network, mesh, shared, members)
    weights = program.call(phases.init_params, config, network, per_run=(members,))
    state = _begin_training(program, *weights)
    untrained = _test_distances(program, "training", state)
    if config.pretraining is None:
        return Progress("training", 0, state, untrained, {})
    autoencoder = program._replace(config=autoencoder_config(config))
    return Progress("pretraining", 0, _begin_training(autoencoder, *weights), untrained, {})


def continue_runs(
    config: RunConfig,
    network: Network,
    mesh: Mesh,
    shared: HostPools,
    members: Run,
    progress: Progress,
    epochs: int,
) -> Progress:
    """See `runs.continue_runs`."""
    program = _Program(config, network, mesh, shared, members)
    if resident.pretraining_is_over(config, progress):
        old = progress.state
        state = _begin_training(program, old.params, old.statistics)
        state = program.call(phases.handed_on, per_run=(old, state))
        progress = progress._replace(phase="training", epoch=0, state=state)
    state, infos = progress.state, []
    for epoch in range(
        progress.epoch, progress.epoch + resident.epochs_to_go(config, progress, epochs)
    ):
        state, info = _train_epoch(program, progress.phase, epoch, state)
        infos.append(jax.device_get(info))
    return resident.with_epochs(
        progress, state, jax.tree.map(lambda *leaves: np.stack(leaves, 1), *infos)
    )


def evaluate_runs(
    config: RunConfig,
    network: Network,
    mesh: Mesh,
    shared: HostPools,
    members: Run,
    progress: Progress,
) -> tuple[Array, Array]:
    """See `runs.evaluate_runs`."""
    program = _Program(config, network, mesh, shared, members)
    state = progress.state
    return (
        _training_distances(program, progress.phase, state),
        _test_distances(program, progress.phase, state),
    )


def end_runs(
    config: RunConfig,
    network: Network,
    mesh: Mesh,
    shared: HostPools,
    members: Run,
    progress: Progress,
) -> Outcome:
    """See `runs.end_runs`."""
    program = _Program(config, network, mesh, shared, members)
    distances = evaluate_runs(config, network, mesh, shared, members, progress)
    outcome: Outcome = program.call(
        phases.outcome_of, network, per_run=(members, progress.state, *distances)
    )
    return outcome


def _begin_training(program: _Program, params: Params, statistics: Statistics) -> TrainState:
    """See `runs.begin_training`."""
    config, network = program.config, program.network
    phase = config.training
    objective = objectives.objective(phase.objective)
    state: TrainState = program.call(
        phases.bare_state, config, network, per_run=(params, statistics)
    )
    if objective.statistics_first:
        nothing = jax.tree.map(jnp.zeros_like, state.statistics)
        found = _sum_over_chunks(program, _add_statistics, nothing, state)
        state = state._replace(statistics=found)
    for number in range(len(objective.first_passes)):
        state = _with_pass(program, "training", number, state)
    state = program.call(phases.ready_to_train, phase, per_run=(program.runs, state))
    return state


def _with_pass(program: _Program, phase_name: str, number: int, state: TrainState) -> TrainState:
    """Makes one of the objective's passes over the training set and takes its result into the
    state."""
    phase = phase_config(program.config, phase_name)
    wanted = objectives.objective(phase.objective).passes[number]
    if wanted.of == "mean":
        nothing = jnp.zeros_like(state.center)
        found = _sum_over_chunks(program, _add_embeddings, nothing, state, wanted.batches)
    elif wanted.of == "embeddings":
        found = _training_embeddings(program, state)
    else:
        found = _training_distances(program, phase_name, state)
    solved: TrainState = program.call(
        _put, phase, phase_name, number, per_run=(program.runs, state, found)
    )
    return solved


def _put(
    phase: PhaseConfig, phase_name: str, number: int, run: Run, state: TrainState, found: Array
) -> TrainState:
    wanted = objectives.objective(phase.objective).passes[number]
    return phases.put(wanted, phase_hyperparameters(run, phase_name), run, state, found)


def _sum_over_chunks(
    program: _Program, add: Callable[..., Any], total: Any, state: TrainState, *given: Any
) -> Any:
    """Folds `add(network, phase, *given, first, run, images, state, total)` over the training
    set."""
    phase = program.config.training
    static = (program.network, phase, *given)
    for first, images in _training_chunks(program, phase):
        before = total
        per_run = (program.runs, images, state, total)
        total = program.call(add, *static, shared=(first,), per_run=per_run)
        jax.block_until_ready(before)
    return total


def _add_statistics(
    network: Network,
    phase: PhaseConfig,
    first: Array,
    run: Run,
    images: Array,
    state: TrainState,
    total: Statistics,
) -> Statistics:
    """Adds a chunk's share of the mean batch statistics."""
    data = _chunk_data(images, run, first, run.data.count)
    found = phases.training_set_statistics(
        network, phase, images, data, state.params, state.statistics
    )
    weight = data.count / jnp.maximum(run.data.count, 1)
    return jax.tree.map(lambda old, new: old + weight * new, total, found)


def _add_embeddings(
    network: Network,
    phase: PhaseConfig,
    batches: int | None,
    first: Array,
    run: Run,
    images: Array,
    state: TrainState,
    total: Array,
) -> Array:
    """Adds a chunk's share of the mean embedding."""
    count = phases.images_in(batches, phase, run.data.count)
    data = _chunk_data(images, run, first, count)
    mean = phases.mean_embedding(network, phase, images, data, state, None)
    return total + data.count / jnp.maximum(count, 1) * mean


def _chunk_data(
    images: Array, run: Run, first: Array, count: Array, labels: Array | None = None
) -> RunData:
    """Returns a run's view of a chunk: all of it, as far as the first `count` images reach, with
    the labels of an epoch's order where it trains."""
    size = images.shape[0]
    if labels is not None:
        # A slice that started near the end would be moved to fit.
        labels = jax.lax.dynamic_slice(jnp.pad(labels, (0, size)), (first,), (size,))
    return RunData(
        jnp.arange(size, dtype=jnp.int32),
        jnp.clip(count - first, 0, size),
        run.data.shift,
        run.data.scale,
        labels,
    )


def _training_distances(program: _Program, phase_name: str, state: TrainState) -> Array:
    """Returns the distances `[runs, n]` of all images that the runs' indices name, padding too."""
    phase, indices = phase_config(program.config, phase_name), program.runs.data.indices
    static, width = (program.network, phase), indices.shape[0]
    chunks = _chunks(program, phase, np.asarray(indices), np.full(width, indices.shape[1]))
    found = [
        program.call(_distances, *static, per_run=(program.runs, images, state))
        for _, images in chunks
    ]
    return _joined(program, found)


def _training_embeddings(program: _Program, state: TrainState) -> Array:
    """Returns the embeddings `[runs, n, rep_dim]` of the runs' images, padding included."""
    found = [
        program.call(_embeddings, program.network, per_run=(program.runs, images, state))
        for _, images in _training_chunks(program, program.config.training)
    ]
    return _joined(program, found)


def _joined(program: _Program, parts: list[Array]) -> Array:
    """Joins what chunks gave along their images, up to the padded number of a run's images."""
    size = program.runs.data.indices.shape[1]
    whole = np.concatenate([np.asarray(part) for part in parts], axis=1)[:, :size]
    filled = np.zeros((len(whole), size, *whole.shape[2:]), np.float32)
    filled[:, : whole.shape[1]] = whole
    placed: Array = place(program.mesh, filled)
    return placed


def _distances(
    network: Network, phase: PhaseConfig, run: Run, images: Array, state: TrainState
) -> Array:
    return scoring.pool_distances(state, images, run.data, network, phase.objective)


def _embeddings(network: Network, run: Run, images: Array, state: TrainState) -> Array:
    data = _chunk_data(images, run, jnp.int32(0), run.data.count)
    return phases.pool_embeddings(network, images, data, state)


def _test_distances(program: _Program, phase_name: str, state: TrainState) -> Array:
    """Returns the distances `[runs, n_test]` of the test images, which all runs share."""
    pool, phase = program.pools.test_images, phase_config(program.config, phase_name)
    size = min(max(1, program.pools.chunk_bytes // _image_bytes(pool)), max(1, len(pool)))
    everywhere = NamedSharding(program.mesh, Spec())

    def fetch(first: int) -> Array:
        return _to_device(_gathered(pool, np.arange(first, len(pool))[:size], size), everywhere)

    found = [
        np.asarray(
            program.call(
                _shared_distances,
                program.network,
                phase,
                shared=(images,),
                per_run=(program.runs, state),
            )
        )
        for _, images in _prefetched(fetch, len(pool), size)
    ]
    width = len(program.runs.data.count)
    distances = np.concatenate([np.zeros((width, 0), np.float32), *found], axis=1)
    placed: Array = place(program.mesh, distances[:, : len(pool)])
    return placed


def _shared_distances(
    network: Network, phase: PhaseConfig, images: Array, run: Run, state: TrainState
) -> Array:
    return _distances(network, phase, run, images, state)


def _train_epoch(
    program: _Program, phase_name: str, epoch: int, state: TrainState
) -> tuple[TrainState, EpochInfo]:
    """Trains all runs for one epoch, counted from 0; one that has stopped keeps its state."""
    phase = phase_config(program.config, phase_name)
    number, per_run = np.int32(epoch), (program.runs, state)
    order, count, labels = program.call(
        _order, program.network, phase, shared=(number,), per_run=per_run
    )
    under_way = program.call(training.begin_epoch, per_run=(state, order))
    chunks = _chunks(program, phase, np.asarray(order), np.asarray(count))
    for first, images in chunks:
        before = under_way
        under_way = program.call(
            _take_steps,
            *(program.network, phase, phase_name),
            shared=(number, first),
            per_run=(program.runs, images, count, labels, under_way),
        )
        # The host runs ahead of the devices by one chunk, not by as many as it can gather.
        jax.block_until_ready(before)
    new, info = program.call(
        _end_epoch, phase, phase_name, per_run=(program.runs, state, under_way, count)
    )
    after_epoch = objectives.objective(phase.objective).after_epoch
    if after_epoch is not None and after_epoch.is_due(epoch):
        new = _with_pass(program, phase_name, -1, new)
    judged: tuple[TrainState, EpochInfo] = program.call(
        _judged_if_active, phase, per_run=(state, new, info)
    )
    return judged


def _order(
    network: Network, phase: PhaseConfig, epoch: Array, run: Run, state: TrainState
) -> tuple[Array, Array, Array | None]:
    """Returns which images of the pool an epoch takes, in its order, how many, and their labels."""
    keys = phases.epoch_keys(network, phase, run, epoch)
    order, count = training.order_of_epoch(keys.order, run.data, phase)
    labels = None if run.data.labels is None else run.data.labels[order]
    return run.data.indices[order], jnp.where(state.active, count, 0), labels


def _take_steps(
    network: Network,
    phase: PhaseConfig,
    phase_name: str,
    epoch: Array,
    first: Array,
    run: Run,
    images: Array,
    count: Array,
    labels: Array | None,
    under_way: EpochUnderWay,
) -> EpochUnderWay:
    """Trains on a chunk, which holds the images of the next steps in their order."""
    data = _chunk_data(images, run, first, count, labels)
    return training.take_steps(
        under_way,
        images,
        data,
        data.indices,
        first // phase.batch_size,
        count,
        network,
        phase,
        phase_hyperparameters(run, phase_name),
        phases.epoch_keys(network, phase, run, epoch).dropout,
    )


def _end_epoch(
    phase: PhaseConfig,
    phase_name: str,
    run: Run,
    before: TrainState,
    under_way: EpochUnderWay,
    count: Array,
) -> tuple[TrainState, EpochInfo]:
    settings = phase_hyperparameters(run, phase_name)
    return training.end_epoch(before, under_way, count, phase, settings)


def _judged_if_active(
    phase: PhaseConfig, before: TrainState, after: TrainState, info: EpochInfo
) -> tuple[TrainState, EpochInfo]:
    nothing = jax.tree.map(jnp.zeros_like, info)
    new = phases.judged(phase, after, info)
    return jax.tree.map(
        lambda changed, kept: jnp.where(before.active, changed, kept), new, (before, nothing)
    )


def _training_chunks(program: _Program, phase: PhaseConfig) -> Iterator[tuple[np.int32, Array]]:
    """Yields the runs' images in the order of their indices; see `_chunks`."""
    data = program.runs.data
    return _chunks(program, phase, np.asarray(data.indices), np.asarray(data.count))


def _chunks(
    program: _Program,
    phase: PhaseConfig,
    indices: npt.NDArray[np.integer],
    counts: npt.NDArray[np.integer],
) -> Iterator[tuple[np.int32, Array]]:
    """Yields whole batches of every run's images, on the devices.

    Args:
      program: whose pool is read, and whose devices get the images.
      phase: its batch size divides a chunk.
      indices: `[runs, n]`, which images of the pool, in the order wanted.
      counts: `[runs]`, how many of them are not padding.

    Yields:
      How many images of a run come before the chunk; float32 `[runs, size, ...]`, 0 on padding.
    """
    pool, (width, length) = program.pools.images, indices.shape
    batch_bytes = phase.batch_size * _image_bytes(pool) * width // places_for_runs(program.mesh)
    steps = min(program.pools.chunk_bytes // batch_bytes, -(-length // phase.batch_size))
    size = phase.batch_size * max(1, steps)
    by_run = NamedSharding(program.mesh, Spec("run"))

    def fetch(first: int) -> Array:
        parts = [
            _gathered(pool, chosen[first : min(first + size, count)], size)
            for chosen, count in zip(indices, counts, strict=True)
        ]
        return _to_device(np.stack(parts), by_run)

    return _prefetched(fetch, int(counts.max()), size)


def _prefetched(
    fetch: Callable[[int], Array], length: int, size: int
) -> Iterator[tuple[np.int32, Array]]:
    """Yields `first, fetch(first)` for first = 0, size, .. below length, each fetched while the
    one before is in use (runs a thread)."""
    with ThreadPoolExecutor(1, "chunks") as worker:
        ahead = worker.submit(fetch, 0) if length else None
        for first in range(0, length, size):
            assert ahead is not None
            images = ahead.result()
            if first + size < length:
                ahead = worker.submit(fetch, first + size)
            yield np.int32(first), images


def _gathered(
    pool: npt.NDArray[np.generic], chosen: npt.NDArray[np.integer], size: int
) -> npt.NDArray[np.float32]:
    """Reads images of a pool, as float32 and filled up with zeros."""
    images = np.zeros((size, *pool.shape[1:]), np.float32)
    images[: len(chosen)] = pool[chosen]
    return images


def _to_device(images: npt.NDArray[np.float32], sharding: NamedSharding) -> Array:
    placed: Array = jax.block_until_ready(jax.device_put(images, sharding))
    return placed


def _image_bytes(pool: npt.NDArray[np.generic]) -> int:
    """Returns the bytes of one image as float32."""
    return 4 * int(np.prod(pool.shape[1:]))
