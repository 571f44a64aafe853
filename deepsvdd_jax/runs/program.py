"""A program: runs that train together, from weights to scores."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import training
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import Network
from deepsvdd_jax.runs import phases, transitions
from deepsvdd_jax.runs.compilation import compiled
from deepsvdd_jax.runs.mesh import place
from deepsvdd_jax.runs.resident import ResidentPools, ResidentSource, whole_move
from deepsvdd_jax.runs.sources import Result, Tree
from deepsvdd_jax.runs.state import (
    MOST_EPOCHS_PER_CALL,
    PHASES,
    Outcome,
    Progress,
    Run,
    phase_config,
)
from deepsvdd_jax.runs.streamed import HostPools
from deepsvdd_jax.training import EpochInfo, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Runs that train together, and everything that does not change while they do.

    Between two moves its `Progress` holds all of its state, so that it can be saved and resumed.

    Attributes:
      config: static, of all runs.
      network: static.
      mesh: devices.
      images: the pools, on the devices or on the host; see `resident.in_memory` and
        `streamed.engine`.
      runs: stacked, on the devices.
    """

    config: RunConfig
    network: Network
    mesh: Mesh
    images: ResidentPools | HostPools
    runs: Run

    @property
    def is_resident(self) -> bool:
        """Whether the images are on the devices."""
        return isinstance(self.images, ResidentPools)

    def init(self) -> Progress:
        """Starts the runs: weights, center, untrained scores."""
        state, untrained = self._perform(phases.begin_run, config_of_ends(self.config))
        phase = "training" if self.config.pretraining is None else "pretraining"
        return Progress(phase, 0, state, untrained, {})

    def unprepared(self) -> Progress:
        """Returns the training phase of drawn weights, without statistics, center and scores: for
        measuring how long its steps take, as what these need would have to be compiled."""
        state = self._draw(hurried=True)((), (self.runs,))
        return Progress("training", 0, state, jnp.zeros(()), {})

    def operations(self) -> float:
        """Returns the floating-point operations of a step of all runs in the training phase,
        counted in the program before it is compiled; 0 where they cannot be counted."""
        state = _placed_shapes(self.mesh, self._draw().trace((), (self.runs,)).out_info)
        name, no_epochs = "training", (np.int32(0), np.int32(0))
        epochs = (phases.run_epochs, self.config, name, MOST_EPOCHS_PER_CALL)
        traced = self._traced(*epochs, shared=no_epochs, per_run=(state,))
        counted: Any = traced.lower().cost_analysis()
        return float((counted or {}).get("flops", 0.0))

    def _draw(self, hurried: bool = False) -> jax.stages.Wrapped:
        return compiled(_drawn, self.mesh, self.config, self.network, hurried=hurried)

    def advance(self, progress: Progress, epochs: int) -> Progress:
        """Trains all runs for up to `epochs` epochs, within one phase.

        Returns:
          The progress; its phase is `training` and its epoch that phase's last when all is done. A
          pretraining that has come to its end goes over into training with the next call.
        """
        if progress.phase == "pretraining" and _phase_is_over(self.config, progress):
            switched = self._perform(phases.end_pretraining, self.config, per_run=(progress.state,))
            progress = progress._replace(phase="training", epoch=0, state=switched)
        left = phase_config(self.config, progress.phase).epochs - progress.epoch
        count = min(epochs, MOST_EPOCHS_PER_CALL, left)
        state, history = self._perform(
            phases.run_epochs,
            self.config,
            progress.phase,
            MOST_EPOCHS_PER_CALL,
            shared=(np.int32(progress.epoch), np.int32(count)),
            per_run=(progress.state,),
        )
        return _with_epochs(progress, state, training.unpacked_info(np.asarray(history)[:, :count]))

    def evaluate(self, progress: Progress) -> tuple[Array, Array]:
        """Returns the distances of `phases.evaluate_run` of every run under way."""
        state = progress.state
        distances: tuple[Array, Array] = self._perform(
            phases.evaluate_run, self.config, progress.phase, per_run=(state,)
        )
        return distances

    def finish(self, progress: Progress) -> Outcome:
        """Scores the runs of a program that is over."""
        ends, state = config_of_ends(self.config), progress.state
        outcome: Outcome = self._perform(phases.finish_run, ends, per_run=(state,))
        return outcome

    def state_template(self, phase_name: str) -> TrainState:
        """Returns the shapes and types of the stacked state in a phase, computing nothing."""

        def one(pools: ResidentPools, run: Run) -> TrainState:
            source = ResidentSource(pools, run)
            state, _ = phases.begin_run(source, self.config, self.network)
            if phase_name == "training" and self.config.pretraining is not None:
                return phases.end_pretraining(source, self.config, self.network, state)
            return state

        pools: Any = ResidentPools(*self.images[:2])
        template: TrainState = jax.eval_shape(jax.vmap(one, in_axes=(None, 0)), pools, self.runs)
        return template

    def place(self, progress: Progress) -> Progress:
        """Returns a progress that was read from a file, on the devices."""
        return progress._replace(
            state=place(self.mesh, progress.state),
            untrained_distances=place(self.mesh, progress.untrained_distances),
        )

    def compile(self, on_compiled: Callable[[int, int], None] | None = None) -> int:
        """Compiles all moves at the same time, each in a thread: the compiler works on one core.
        Nothing but time depends on it, so it may be left out.

        Of images and runs the shapes, types and places are enough. Programs of streamed images are
        small, and compiled at their first call.

        Args:
          on_compiled: called about once a second with how many programs are compiled, and of how
            many.

        Returns:
          The bytes that the largest of the programs needs on a device: arguments, results,
          temporaries. 0 of streamed images: together they need no more than their budget and what
          the runs hold.
        """
        if not self.is_resident:
            return 0
        names = PHASES[self.config.pretraining is None :]
        tell = on_compiled or (lambda done, total: None)
        tell(0, 2 * len(names) + 1)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            under_way = []

            def start_compiling(call: jax.stages.Traced) -> None:
                # Traced and lowered in the caller's thread, so that its jax settings apply.
                under_way.append(pool.submit(call.lower().compile))

            ends, no_epochs = config_of_ends(self.config), (np.int32(0), np.int32(0))
            once = [self._traced(phases.begin_run, ends)]
            state, _ = _placed_shapes(self.mesh, once[0].out_info)
            # Epochs first: their compilation takes longest.
            for name in names:
                epochs = (phases.run_epochs, self.config, name, MOST_EPOCHS_PER_CALL)
                start_compiling(self._traced(*epochs, shared=no_epochs, per_run=(state,)))
                if name == "pretraining":
                    once.append(self._traced(phases.end_pretraining, self.config, per_run=(state,)))
                    state = _placed_shapes(self.mesh, once[-1].out_info)
            once.append(self._traced(phases.finish_run, ends, per_run=(state,)))
            for call in once:
                start_compiling(call)
            missing = set(under_way)
            while missing:
                _, missing = concurrent.futures.wait(missing, timeout=1.0)
                tell(len(under_way) - len(missing), len(under_way))
            return max(_bytes_needed(one.result()) for one in under_way)

    def _perform(
        self,
        move: Callable[..., Result],
        config: RunConfig,
        *static: Hashable,
        shared: tuple[Tree, ...] = (),
        per_run: tuple[Tree, ...] = (),
    ) -> Result:
        bound = (config, self.network, *static)
        return self.images.perform(
            move, self.mesh, self.runs, static=bound, shared=shared, per_run=per_run
        )

    def _traced(
        self,
        move: Callable[..., Tree],
        config: RunConfig,
        *static: Hashable,
        shared: tuple[Tree, ...] = (),
        per_run: tuple[Tree, ...] = (),
    ) -> jax.stages.Traced:
        whole = whole_move(move, self.mesh, config, self.network, *static)
        return whole.trace((self.images, shared), (self.runs, per_run))


def _drawn(config: RunConfig, network: Network, run: Run) -> TrainState:
    weights = transitions.init_params(config, network, run)
    state = transitions.init_state(config, network, *weights)
    return transitions.reset_optimizer(config.training, run, state)


def is_over(config: RunConfig, progress: Progress) -> bool:
    """Whether no run of a program has an epoch left."""
    return progress.phase == "training" and _phase_is_over(config, progress)


def _phase_is_over(config: RunConfig, progress: Progress) -> bool:
    if progress.epoch >= phase_config(config, progress.phase).epochs:
        return True
    return not bool(np.any(np.asarray(progress.state.active)))


def _with_epochs(progress: Progress, state: TrainState, info: EpochInfo) -> Progress:
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


def config_of_ends(config: RunConfig) -> RunConfig:
    """Returns the configuration for which the programs of the first state and of the end are
    compiled. These do not depend on how the radius of a soft boundary moves in between, so that
    one-class and soft boundary share them."""
    plain = config.training.objective.of_ends
    training_phase = dataclasses.replace(config.training, objective=plain)
    return dataclasses.replace(config, training=training_phase)


def _bytes_needed(program: jax.stages.Compiled) -> int:
    usage: Any = program.memory_analysis()
    if usage is None:
        return 0
    return usage.argument_size_in_bytes + usage.output_size_in_bytes + usage.temp_size_in_bytes


def _placed_shapes(mesh: Mesh, shapes: Result) -> Result:
    """Returns shapes and types as those of arrays on the devices of a mesh."""
    placed = NamedSharding(mesh, Spec("run"))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), shapes
    )
