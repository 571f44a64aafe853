"""From functions of one run to compiled functions of many.

A program works on a fixed number of runs. On an accelerator they are vmapped; on a CPU each device
loops over its runs, because there a batched convolution gains nothing, a loop skips a stopped run
and steps that a smaller class does not need, and the result does not depend on the neighbours.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import convolution, training
from deepsvdd_jax.runs.kept_traces import kept


def map_runs(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns `mapped(shared, per_run)`, `function(shared, run)` over the runs of a mesh.

    Args:
      function: of the shared arrays, then one run's.
      mesh: the leading axis of `per_run` is sharded over its axis `run`, so it must be a multiple
        of that. Over `data` the compiler splits what `training.split_over_devices` marks.
    """

    def local(shared: Any, per_run: Any) -> Any:
        one = functools.partial(function, shared)
        if platform(mesh) == "cpu":
            return looped(one, per_run)
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


def looped(function: Callable[[Any], Any], per_run: Any) -> Any:
    """Returns `function` over a leading axis of runs, one after the other, as `jax.lax.map` does.

    The compiler must not see that there is only one run. It would drop the loop and fuse its body
    with the operations around it, and the last bits of a run would depend on how many runs its
    device has. So the number of runs is traced, and the arrays always have two rows or more.
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


@functools.lru_cache(maxsize=64)
def compiled(
    function: Callable[..., Any], mesh: Mesh, *static: Any, hurried: bool = False
) -> jax.stages.Wrapped:
    """Returns `mapped(shared, per_run)`, compiled: `function(*static, *shared, *one_run)` over the
    runs of a mesh, for tuples `shared` and `per_run`; on a CPU without optimisation where that is
    `hurried`."""

    def one_run(shared: tuple[Any, ...], per_run: tuple[Any, ...]) -> Any:
        with convolution.lowered_for(platform(mesh)):
            return function(*static, *shared, *per_run)

    options = None
    if hurried and platform(mesh) == "cpu":
        options = {"xla_backend_optimization_level": 0}
    mapped = map_runs(one_run, mesh)
    if mesh.size == 1:
        mapped = kept(mapped, (function, *static), platform(mesh))
    return jax.jit(mapped, compiler_options=options)


def forget_programs() -> None:
    """Lets every program be traced and compiled anew."""
    compiled.cache_clear()
