"""Programs whose images are on the devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deepsvdd_jax import training
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import Network
from deepsvdd_jax.runs.compilation import compile_programs, compiled, config_of_ends
from deepsvdd_jax.runs.mesh import share
from deepsvdd_jax.runs.phases import begin_run, end_pretraining, end_run, evaluate_run, run_epochs
from deepsvdd_jax.runs.state import (
    MOST_EPOCHS_PER_CALL,
    Outcome,
    Progress,
    Run,
    Shared,
    phase_config,
)
from deepsvdd_jax.training import EpochInfo, TrainState


def begin_runs(
    config: RunConfig, network: Network, mesh: Mesh, shared: Shared, runs: Run
) -> Progress:
    """Starts the runs of a program: weights, center, untrained scores."""
    begin = compiled(begin_run, mesh, config_of_ends(config), network)
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
    end = compiled(end_run, mesh, config_of_ends(config), network)
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
