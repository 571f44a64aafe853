"""The protocol of a source of images, on the devices or on the host, that phases are written
over."""

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from jax import Array

from deepsvdd_jax.runs.state import Run
from deepsvdd_jax.training import EpochInfo, RunData, TrainState

# A tree of arrays, for which jax has no type.
Tree = Any
Result = TypeVar("Result")


class Chunk(NamedTuple):
    """Images of one run that are at hand together: a whole pool, or a part of one.

    Attributes:
      images: float32 `[m, ...]`.
      data: the run's view of them; `data.count` images are not padding.
      order: int32 `[n]`, positions in `data.indices` in the order wanted, padding last.
      first: how many images of that order came before.
    """

    images: Array
    data: RunData
    order: Array
    first: Array | int


class ImageSource(Protocol):
    """The images of a run, chunk by chunk.

    A resident source stands within a compiled program and is about one run, whose images are one
    chunk. A streamed source stands on the host and is about all runs of a program: its `run`, and
    the arrays that it takes and returns, have a leading axis of runs, and every function handed to
    it is compiled. What is written over a source therefore holds for both.
    """

    @property
    def run(self) -> Run:
        """The run, or the stacked runs."""

    def each(
        self,
        function: Callable[..., Result],
        *arrays: Tree,
        static: tuple[Hashable, ...] = (),
        shared: tuple[Tree, ...] = (),
    ) -> Result:
        """Returns `function(*static, *shared, *arrays)` of every run; `shared` has no axis of
        runs."""

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
        """Carries a value through the training images, chunk by chunk.

        Args:
          step: `(*static, *shared, chunk, *arrays, carry) -> carry`.
          carry: before the first chunk.
          arrays: further arrays of every run for the step.
          count: int32, how many images of the order are taken.
          batch_size: divides a chunk.
          order: int32 `[n]`, positions in the run's indices; None takes them as they stand.
          static: hashable.
          shared: arrays without an axis of runs.
        """

    def rows(
        self,
        function: Callable[..., Array],
        *arrays: Tree,
        of: Literal["training", "test"],
        batch_size: int,
        static: tuple[Hashable, ...] = (),
    ) -> Array:
        """Returns `function(*static, chunk, *arrays) -> [n, ...]` of all training images, padding
        included, in the order of the run's indices, or of all test images."""

    def when(
        self, due: Array | bool, change: Callable[[TrainState], TrainState], state: TrainState
    ) -> TrainState:
        """Returns `change(state)` if that is due, else the state."""

    def epochs(
        self,
        train: Callable[[Array, TrainState], tuple[TrainState, EpochInfo]],
        state: TrainState,
        first: Array,
        count: Array,
        capacity: int,
    ) -> tuple[TrainState, Array]:
        """Trains for some epochs; a run that has stopped keeps its state.

        Args:
          train: `(epoch, state) -> (state, info)`.
          state: after epoch `first - 1`.
          first: int32, the first epoch, counted from 0.
          count: int32, how many.
          capacity: epochs that the history may hold, at least `count`.

        Returns:
          The state, and the history `[epochs, INFO_WIDTH]` of `training.packed_info`, 0 where
          nothing was done.
        """
