"""Images in the host's memory, for sets that are larger than a device's.

The pools come to the devices in chunks of several batches, and a chunk is a small pool: a run has
the same order as with images in the devices' memory, and the host goes from chunk to chunk. While
the devices work on one, a thread gathers and copies the next; reading is indexing of one array, for
which a thread and a queue of one suffice.
"""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import training
from deepsvdd_jax.runs.compilation import compiled
from deepsvdd_jax.runs.memory import budget_in_bytes
from deepsvdd_jax.runs.mesh import place, places_for_runs
from deepsvdd_jax.runs.resident import ResidentPools, in_memory
from deepsvdd_jax.runs.sources import Chunk, Result, Tree
from deepsvdd_jax.runs.state import Run
from deepsvdd_jax.training import EpochInfo, RunData, TrainState

# Chunks that a device holds at a time: one in use, one whose work is queued, one that arrives, and
# room for the allocator and a batch.
_CHUNKS_IN_MEMORY = 4
# Larger chunks save no more time.
_MOST_CHUNK_BYTES = 2**26


class HostPools(NamedTuple):
    """Pools `[m, ...]` of images that stay where they are, arrays or memory maps of any type, and
    the bytes that a chunk may have on one device."""

    images: npt.NDArray[np.generic]
    test_images: npt.NDArray[np.generic]
    chunk_bytes: int

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
        return move(StreamedSource(mesh, self, runs), *static, *shared, *per_run)


# Puts the images of a program where they are to be: `(mesh, images, test_images) -> pools`.
Engine = Callable[
    [Mesh, npt.NDArray[np.generic], npt.NDArray[np.generic]], ResidentPools | HostPools
]


def engine(budget: int) -> Engine:
    """Returns the engine that streams.

    Args:
      budget: bytes of images that a device may hold at a time. One batch of every run that trains
        at the same time is the least that is moved, whatever the budget.
    """
    chunk_bytes = min(budget // _CHUNKS_IN_MEMORY, _MOST_CHUNK_BYTES)

    def on_host(
        mesh: Mesh, images: npt.NDArray[np.generic], test_images: npt.NDArray[np.generic]
    ) -> HostPools:
        return HostPools(images, test_images, chunk_bytes)

    return on_host


def choose_engine(budget: int | None, *pools: npt.NDArray[np.generic]) -> Engine:
    """Returns the engine for pools of images: on the devices where they fit the budget as float32.

    Args:
      budget: bytes; None takes half of an accelerator's memory, and never streams on a CPU, whose
        memory the pools are in already.
      pools: arrays `[m, ...]`.
    """
    budget = budget_in_bytes(budget)
    if budget is None or sum(4 * pool.size for pool in pools) <= budget:
        return in_memory
    return engine(budget)


class StreamedSource(NamedTuple):
    """The images of all runs of a program, on the host; see `ImageSource`. Every function that is
    handed to it is compiled, for one run, and called for all."""

    mesh: Mesh
    pools: HostPools
    run: Run

    def each(
        self,
        function: Callable[..., Result],
        *arrays: Tree,
        static: tuple[Hashable, ...] = (),
        shared: tuple[Tree, ...] = (),
    ) -> Result:
        """Calls the function, compiled."""
        return compiled(function, self.mesh, *static)(shared, arrays)

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
        """Makes a step for every chunk, while the next one is read."""
        data = self.run.data
        if order is not None:
            data = self.each(_in_order, data, order)
        indices, counts = np.asarray(data.indices), np.asarray(count)
        for first, images in self._chunks(indices, counts, batch_size):
            before = carry
            carry = self.each(
                _step_with_chunk,
                *(images, data, count, arrays, carry),
                static=(step, static),
                shared=(first, shared),
            )
            # The host runs ahead of the devices by one chunk, not by as many as it can gather.
            jax.block_until_ready(before)
        return carry

    def rows(
        self,
        function: Callable[..., Array],
        *arrays: Tree,
        of: Literal["training", "test"],
        batch_size: int,
        static: tuple[Hashable, ...] = (),
    ) -> Array:
        """Joins the rows of all chunks, on the devices."""
        data, named = self.run.data, (function, static)
        if of == "test":
            size = len(self.pools.test_images)
            found = [
                np.asarray(self.each(_rows_of_chunk, data, arrays, static=named, shared=(images,)))
                for images in self._test_chunks()
            ]
        else:
            width, size = data.indices.shape
            chunks = self._chunks(np.asarray(data.indices), np.full(width, size), batch_size)
            found = [
                np.asarray(self.each(_rows_of_own_chunk, data, images, arrays, static=named))
                for _, images in chunks
            ]
        if not found:
            return place(self.mesh, np.zeros((len(data.count), 0), np.float32))
        placed: Array = place(self.mesh, np.concatenate(found, axis=1)[:, :size])
        return placed

    def when(
        self, due: Array | bool, change: Callable[[TrainState], TrainState], state: TrainState
    ) -> TrainState:
        """Decides on the host."""
        return change(state) if due else state

    def epochs(
        self,
        train: Callable[[Array, TrainState], tuple[TrainState, EpochInfo]],
        state: TrainState,
        first: Array,
        count: Array,
        capacity: int,
    ) -> tuple[TrainState, npt.NDArray[np.float32]]:
        """Loops on the host; the history is `[runs, count, INFO_WIDTH]`."""
        width = len(self.run.data.count)
        history = np.zeros((width, int(count), training.INFO_WIDTH), np.float32)
        for position in range(int(count)):
            epoch: Tree = np.int32(first + position)
            new, info = train(epoch, state)
            state, row = self.each(_unless_stopped, state, new, info)
            history[:, position] = np.asarray(row)
        return state, history

    def _chunks(
        self,
        indices: npt.NDArray[np.integer],
        counts: npt.NDArray[np.integer],
        batch_size: int,
    ) -> Iterator[tuple[np.int32, Array]]:
        """Yields whole batches of every run's images, on the devices.

        Args:
          indices: `[runs, n]`, which images of the pool, in the order wanted.
          counts: `[runs]`, how many of them are not padding.
          batch_size: divides a chunk.

        Yields:
          How many images of a run come before the chunk; float32 `[runs, size, ...]`, 0 on padding.
        """
        pool, (width, length) = self.pools.images, indices.shape
        batch_bytes = batch_size * _image_bytes(pool) * width // places_for_runs(self.mesh)
        steps = min(self.pools.chunk_bytes // batch_bytes, -(-length // batch_size))
        size = batch_size * max(1, steps)
        by_run = NamedSharding(self.mesh, Spec("run"))

        def fetch(first: int) -> Array:
            parts = [
                _gathered(pool, chosen[first : min(first + size, count)], size)
                for chosen, count in zip(indices, counts, strict=True)
            ]
            return _to_device(np.stack(parts), by_run)

        return _prefetched(fetch, int(counts.max()), size)

    def _test_chunks(self) -> Iterator[Array]:
        """Yields the test images, which all runs share: float32 `[size, ...]`, 0 on padding."""
        pool = self.pools.test_images
        size = min(max(1, self.pools.chunk_bytes // _image_bytes(pool)), max(1, len(pool)))
        everywhere = NamedSharding(self.mesh, Spec())

        def fetch(first: int) -> Array:
            return _to_device(_gathered(pool, np.arange(first, len(pool))[:size], size), everywhere)

        return (images for _, images in _prefetched(fetch, len(pool), size))


def _in_order(data: RunData, order: Array) -> RunData:
    """Returns a run's view with its images in a given order."""
    return data.of_images(lambda values: values[order])


def _step_with_chunk(
    step: Callable[..., Result],
    static: tuple[Hashable, ...],
    first: Array,
    shared: tuple[Tree, ...],
    images: Array,
    data: RunData,
    count: Array,
    arrays: tuple[Tree, ...],
    carry: Result,
) -> Result:
    view = _view(images, data, first, count)
    return step(*static, *shared, Chunk(images, view, view.indices, first), *arrays, carry)


def _view(images: Array, data: RunData, first: Array, count: Array) -> RunData:
    """Returns a run's view of a chunk, up to the first `count` images of the order."""
    size = images.shape[0]

    def of_chunk(values: Array) -> Array:
        # jax would shift a slice that reaches beyond the end.
        return jax.lax.dynamic_slice(jnp.pad(values, (0, size)), (first,), (size,))

    return data.of_images(of_chunk)._replace(
        indices=jnp.arange(size, dtype=jnp.int32), count=jnp.clip(count - first, 0, size)
    )


def _rows_of_chunk(
    function: Callable[..., Array],
    static: tuple[Hashable, ...],
    images: Array,
    data: RunData,
    arrays: tuple[Tree, ...],
) -> Array:
    everything = jnp.arange(images.shape[0], dtype=jnp.int32)
    view = data._replace(indices=everything, labels=None, region_rows=None)
    return function(*static, Chunk(images, view, view.indices, 0), *arrays)


def _rows_of_own_chunk(
    function: Callable[..., Array],
    static: tuple[Hashable, ...],
    data: RunData,
    images: Array,
    arrays: tuple[Tree, ...],
) -> Array:
    return _rows_of_chunk(function, static, images, data, arrays)


def _unless_stopped(
    before: TrainState, after: TrainState, info: EpochInfo
) -> tuple[TrainState, Array]:
    """Returns the state after an epoch and the row of a history; of a run that had stopped the
    state before and zeros."""
    row = training.packed_info(info)
    changed, kept = (after, row), (before, jnp.zeros_like(row))
    return jax.tree.map(lambda new, old: jnp.where(before.active, new, old), changed, kept)


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
