"""From functions of one run to compiled functions of many."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import convolution, training
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import Network
from deepsvdd_jax.runs.phases import (
    begin_run,
    end_pretraining,
    end_run,
    looped,
    platform,
    run_epochs,
)
from deepsvdd_jax.runs.state import MOST_EPOCHS_PER_CALL, PHASES, Run, Shared


def map_runs(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns `mapped(shared, per_run)`, `function(shared, run)` over the runs of a mesh.

    Args:
      function: of what is shared, then one run's arrays.
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


@functools.lru_cache(maxsize=64)
def compiled(function: Callable[..., Any], mesh: Mesh, *static: Any) -> jax.stages.Wrapped:
    """Returns `mapped(shared, per_run)`, compiled: `function(*static, *shared, *one_run)` over the
    runs of a mesh, for tuples `shared` and `per_run`."""

    def one_run(shared: tuple[Any, ...], per_run: tuple[Any, ...]) -> Any:
        with convolution.lowered_for(platform(mesh)):
            return function(*static, *shared, *per_run)

    hurried = platform(mesh) == "cpu" and _is_hardly_run(function, static)
    options = {"xla_backend_optimization_level": 0} if hurried else None
    return jax.jit(map_runs(one_run, mesh), compiler_options=options)


def _is_hardly_run(function: Callable[..., Any], static: tuple[Any, ...]) -> bool:
    """Whether compiling a function well takes longer than it gains: what happens once in a run, and
    with the rows of a table, of which it takes hundreds of thousands to notice. Images take longer
    than their program's compilation."""
    once = function in (begin_run, end_pretraining, end_run)
    return once and any(isinstance(part, Network) and len(part.image_shape) == 1 for part in static)


def forget_programs() -> None:
    """Lets every program be traced and compiled anew."""
    compiled.cache_clear()


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

        ends = config_of_ends(config)
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


def config_of_ends(config: RunConfig) -> RunConfig:
    """Returns the configuration for which the programs of the first state and of the end are
    compiled: neither looks at how the radius of a soft boundary moves in between, so that one-class
    and soft boundary share them."""
    plain = config.training.objective.of_ends
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
