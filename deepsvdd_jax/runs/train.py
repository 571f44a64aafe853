"""Many runs in one call."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh

from deepsvdd_jax import training
from deepsvdd_jax.configs import BaseObjectiveConfig, OptimizerConfig, PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, Params, build_network
from deepsvdd_jax.networks.process import check_process
from deepsvdd_jax.runs.mesh import check_data_devices, make_mesh, place
from deepsvdd_jax.runs.phases import begin_training
from deepsvdd_jax.runs.program import Program, is_over
from deepsvdd_jax.runs.resident import ResidentPools, ResidentSource, in_memory
from deepsvdd_jax.runs.state import (
    MOST_EPOCHS_PER_CALL,
    Outcome,
    Progress,
    Run,
    check_radius,
    stack,
    whole_run,
)
from deepsvdd_jax.runs.streamed import Engine
from deepsvdd_jax.runs.transitions import init_params
from deepsvdd_jax.training import RunData, TrainState

# A chunk that takes longer is not lengthened.
_SECONDS_PER_REPORT = 0.5


def init_run(key: Array, config: RunConfig, images: Array) -> TrainState:
    """Returns the state of a run before its training phase: weights, statistics, center.

    Args:
      key: of the run.
      config: static, hashable; its pretraining is not run.
      images: float32 `[n, height, width, channels]` or `[n, features]`, network input, all normal.
    """
    check_process()
    images = jnp.asarray(images, jnp.float32)
    network = build_network(config.network, tuple(images.shape[1:]))
    return _init_run(whole_run(key, config, images), images, config, network)


@functools.partial(jax.jit, static_argnames=("config", "network"))
def _init_run(run: Run, images: Array, config: RunConfig, network: Network) -> TrainState:
    params, statistics = init_params(config, network, run)
    source = ResidentSource(ResidentPools(images, images[:0]), run)
    return begin_training(source, config, network, params, statistics)


def train_runs(
    keys: Array,
    config: RunConfig,
    images: npt.ArrayLike,
    test_images: npt.ArrayLike | None = None,
    *,
    data: list[RunData] | None = None,
    weights: list[Params] | None = None,
    mesh: Mesh | None = None,
    engine: Engine = in_memory,
    epochs_per_call: int = MOST_EPOCHS_PER_CALL,
    start: Callable[[Program], Progress | None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_compiled: Callable[[int, int], None] | None = None,
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
      start: returns the progress that the program goes on from, or None to start anew.
      on_progress: called after every chunk; the first ones are shorter.
      on_compiled: called about once a second while programs are compiled, with how many are done
        and of how many.

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
    whole = whole_run(keys, config, pool)
    runs = stack(
        [
            whole._replace(
                data=whole.data if data is None else data[number],
                weights={} if weights is None else weights[number],
            )
            for number in range(len(keys))
        ],
        keys,
    )
    check_radius(config)
    check_data_devices(config, mesh.shape[training.DATA_AXIS])
    config = canonical_config(config)
    program = Program(config, network, mesh, engine(mesh, pool, test_pool), place(mesh, runs))
    program.compile(on_compiled)
    taken_up = None if start is None else start(program)
    progress = program.init() if taken_up is None else taken_up
    # The first report comes after one epoch, later ones at the pace at which a person reads them.
    wanted = epochs_per_call if on_progress is None else 1
    while not is_over(config, progress):
        started = time.perf_counter()
        progress = program.advance(progress, wanted)
        if on_progress is not None:
            on_progress(progress)
        if time.perf_counter() - started < _SECONDS_PER_REPORT:
            wanted = min(2 * wanted, epochs_per_call)
    return program.finish(progress), progress


def canonical_config(config: RunConfig) -> RunConfig:
    """Returns a configuration with defaults for the settings that no program reads, because they
    are arrays or concern the host, so that one compiled program serves all of their values."""

    def plain(phase: PhaseConfig) -> PhaseConfig:
        return dataclasses.replace(
            phase,
            objective=dataclasses.replace(phase.objective, nu=BaseObjectiveConfig.nu),
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
