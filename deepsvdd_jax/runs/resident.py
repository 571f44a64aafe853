"""Images in the devices' memory: a move of all runs is one compiled program."""

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import training
from deepsvdd_jax.networks import Network
from deepsvdd_jax.runs.compilation import compiled
from deepsvdd_jax.runs.phases import begin_run, end_pretraining, finish_run
from deepsvdd_jax.runs.sources import Chunk, Result, Tree
from deepsvdd_jax.runs.state import Run
from deepsvdd_jax.training import EpochInfo, TrainState


class ResidentPools(NamedTuple):
    """The images that all runs of a program share: float32 pools `[m, ...]` of training and test
    images, on every device."""

    images: Array
    test_images: Array

    def perform(
        self,
        move: Callable[..., Result],
        mesh: Mesh,
        runs: Run,
        static: tuple[Hashable, ...],
        shared: tuple[Tree, ...],
        per_run: tuple[Tree, ...],
    ) -> Result:
        """Returns `move(source, *static, *shared, *per_run)` of all runs; see `phases`."""
        return whole_move(move, mesh, *static)((self, shared), (runs, per_run))


def in_memory(
    mesh: Mesh, images: npt.NDArray[np.generic], test_images: npt.NDArray[np.generic]
) -> ResidentPools:
    """Puts the pools of images on every device of a mesh, once, as float32."""
    everywhere = NamedSharding(mesh, Spec())
    pools: Any = [np.asarray(pool, np.float32) for pool in (images, test_images)]
    return jax.device_put(ResidentPools(*pools), everywhere)


def whole_move(move: Callable[..., Tree], mesh: Mesh, *static: Hashable) -> jax.stages.Wrapped:
    """Returns a compiled `((pools, shared), (runs, per_run)) -> ...` that makes a move of
    `phases` of all runs."""
    hurried = _is_hardly_run(move, static)
    return compiled(_move_of_one_run, mesh, move, static, hurried=hurried)


def _move_of_one_run(
    move: Callable[..., Result],
    static: tuple[Hashable, ...],
    pools: ResidentPools,
    shared: tuple[Tree, ...],
    run: Run,
    per_run: tuple[Tree, ...],
) -> Result:
    return move(ResidentSource(pools, run), *static, *shared, *per_run)


def _is_hardly_run(move: Callable[..., Tree], static: tuple[Hashable, ...]) -> bool:
    """Whether optimising a move takes the compiler longer than it saves: a move that is made once
    in a run, over the rows of a table, which must be hundreds of thousands to notice. Passes over
    images take longer than the compilation of their program."""
    once = move in (begin_run, end_pretraining, finish_run)
    return once and any(isinstance(part, Network) and len(part.image_shape) == 1 for part in static)


class ResidentSource(NamedTuple):
    """The images of one run, within a compiled program; see `ImageSource`."""

    pools: ResidentPools
    run: Run

    def each(
        self,
        function: Callable[..., Result],
        *arrays: Tree,
        static: tuple[Hashable, ...] = (),
        shared: tuple[Tree, ...] = (),
    ) -> Result:
        """Calls the function."""
        return function(*static, *shared, *arrays)

    def fold(
        self,
        step: Callable[..., Result],
        carry: Result,
        *arrays: Tree,
        count: Array,
        batch_size: int,
        order: Array | None = None,
        static: tuple[Hashable, ...] = (),
        shared: tuple[Tree, ...] = (),
    ) -> Result:
        """Makes the one step whose chunk is the pool."""
        data = self.run.data._replace(count=count)
        size = data.indices.shape[0]
        positions = jnp.arange(size, dtype=jnp.int32) if order is None else order
        chunk = Chunk(self.pools.images, data, positions, 0)
        return step(*static, *shared, chunk, *arrays, carry)

    def rows(
        self,
        function: Callable[..., Array],
        *arrays: Tree,
        of: Literal["training", "test"],
        batch_size: int,
        static: tuple[Hashable, ...] = (),
    ) -> Array:
        """Calls the function with the pool."""
        images, data = self.pools.images, self.run.data
        if of == "test":
            images = self.pools.test_images
            data = data._replace(indices=jnp.arange(images.shape[0], dtype=jnp.int32))
        found: Array = function(*static, Chunk(images, data, data.indices, 0), *arrays)
        return found

    def when(
        self, due: Array | bool, change: Callable[[TrainState], TrainState], state: TrainState
    ) -> TrainState:
        """Decides within the program."""
        changed: TrainState = jax.lax.cond(due, change, lambda state: state, state)
        return changed

    def epochs(
        self,
        train: Callable[[Array, TrainState], tuple[TrainState, EpochInfo]],
        state: TrainState,
        first: Array,
        count: Array,
        capacity: int,
    ) -> tuple[TrainState, Array]:
        """Loops within the program; the history is `[capacity, INFO_WIDTH]`."""

        def go_on(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
            state, info = train(epoch, state)
            return state, training.packed_info(info)

        def skip(epoch: Array, state: TrainState) -> tuple[TrainState, Array]:
            return state, jnp.zeros(training.INFO_WIDTH, jnp.float32)

        def body(index: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, history = carry
            state, row = jax.lax.cond(state.active, go_on, skip, first + index, state)
            return state, history.at[index].set(row)

        history = jnp.zeros((capacity, training.INFO_WIDTH), jnp.float32)
        done: tuple[TrainState, Array] = jax.lax.fori_loop(0, count, body, (state, history))
        return done
