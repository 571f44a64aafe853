"""Trains the pending runs of sweeps, program by program, and hands on each finished run."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from deepsvdd_jax import runs
from deepsvdd_jax.cli import exits
from deepsvdd_jax.cli.sweeps import checkpoints, outcomes, passes, pools
from deepsvdd_jax.cli.sweeps.ahead import Ahead
from deepsvdd_jax.cli.sweeps.checkpoints import ProgramCheckpoint, SavedProgram
from deepsvdd_jax.cli.sweeps.outcomes import Finished
from deepsvdd_jax.cli.sweeps.passes import Evaluations
from deepsvdd_jax.cli.sweeps.pools import ImagePool, Job
from deepsvdd_jax.cli.sweeps.pretraining import Pretrained
from deepsvdd_jax.cli.sweeps.records import QualifiedName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.runs import Program, Progress, Run, streamed
from deepsvdd_jax.runs.memory import device_memory

# Runs of one program on a CPU, where each device loops over its share: enough for the devices to
# end at about the same time, few enough for finished runs to be written regularly.
CPU_RUNS_PER_PROGRAM = 10

# Seconds to aim at between two reports of a program: the bar moves, and a kill loses little time.
SECONDS_PER_CALL = 3.0


class Schedule(NamedTuple):
    """How runs are put into programs, and how often these report.

    Attributes:
      runs_per_program: None chooses.
      evaluate_every: epochs between two full passes over both sets; None makes none.
      wanted: number of runs of the sweeps, finished ones too, and
      longest: most images of one of them, see `image_count`: both fix the shapes of a program, so
        that a resumed sweep runs the same program.
      data_devices: over how many devices the batches of a run are split.
      memory_budget: bytes of images on a device, above which they are streamed; None chooses.
      ahead: compiles the programs that train after these runs; None compiles nothing ahead.
    """

    runs_per_program: int | None
    evaluate_every: int | None
    wanted: int
    longest: int
    data_devices: int = 1
    memory_budget: int | None = None
    ahead: Ahead | None = None


class Callbacks(NamedTuple):
    """Functions that are called while runs train.

    Attributes:
      start_of: returns the autoencoder that a run starts from, or None; called when its program
        begins, so that no more of them are in memory than a program has runs.
      finished: called once a run, when its program has ended.
      epochs: called with a number of run-epochs that are done or skipped.
      chunk: called with a program under way between two chunks of epochs.
      over: called with the names of a program's runs when all of them are finished.
      compiled: called about once a second while programs are compiled, with how many are done and
        of how many.
    """

    start_of: Callable[[QualifiedName], Pretrained | None]
    finished: Callable[["Finished"], None]
    epochs: Callable[[int], None]
    chunk: Callable[[ProgramCheckpoint], None]
    over: Callable[[tuple[QualifiedName, ...]], None]
    compiled: Callable[[int, int], None] = lambda done, total: None


class _Work(NamedTuple):
    """A program, the jobs of its first runs, and the pool of their images."""

    program: Program
    jobs: list[Job]
    pool: ImagePool


def train_jobs(
    config: RunConfig,
    dataset: Dataset,
    jobs: list[Job],
    schedule: Schedule,
    callbacks: Callbacks,
    saved: Sequence[SavedProgram] = (),
) -> None:
    """Trains all jobs, filling each program with the next ones, also those of different sweeps.

    Args:
      config: of all runs; without a pretraining, which is a job of its own.
      dataset: raw images.
      jobs: runs to train; nothing is done for an empty list.
      schedule: see `Schedule`.
      callbacks: see `Callbacks`.
      saved: programs under way whose runs are all among the jobs.

    Raises:
      Failure: a program of one run a device does not fit its memory.
    """
    if not jobs:
        return
    network = build_network(config.network, tuple(dataset.x_train.shape[1:]))
    for pool in pools.image_pools(config, dataset, jobs):
        _train_pool(config, network, pool, schedule, callbacks, saved=saved)


def _train_pool(
    config: RunConfig,
    network: Network,
    pool: ImagePool,
    schedule: Schedule,
    callbacks: Callbacks,
    saved: Sequence[SavedProgram],
) -> None:
    width, mesh = choose_width(schedule)
    engine = streamed.choose_engine(schedule.memory_budget, pool.images, pool.test_images)
    images = engine(mesh, pool.images, pool.test_images)
    at_once = runs.places_for_runs(mesh)
    by_name = {job.run: job for job in pool.jobs}
    to_restore = [one for one in saved if by_name.keys() >= set(one.names)]
    taken = {name for one in to_restore for name in one.names}
    rest = [job for job in pool.jobs if job.run not in taken]
    while rest or to_restore:
        resumed = to_restore.pop(0) if to_restore else None
        part = rest[:width] if resumed is None else [by_name[name] for name in resumed.names]
        full = math.ceil(max(width, len(part)) / at_once) * at_once
        try:
            jobs = [job._replace(start=callbacks.start_of(job.run)) for job in part]
            stacked = pools.stack_jobs(config, pool, jobs, full, schedule.longest)
            program = Program(config, network, mesh, images, runs.place(mesh, stacked))
            checkpoint = None if resumed is None else _restore(program, resumed)
            _train_program(_Work(program, jobs, pool), schedule, callbacks, checkpoint)
        except (jax.errors.JaxRuntimeError, _TooWide) as error:
            width = _narrower(error, full, at_once)
            if resumed is not None and len(part) <= width:
                to_restore.insert(0, resumed)
            else:
                # Resumed runs start anew in narrower programs.
                rest = part + rest if resumed is not None else rest
            continue
        if resumed is None:
            rest = rest[len(part) :]


class _TooWide(RuntimeError):
    """A program of more runs than a device has memory for; so many a device would fit."""

    def __init__(self, runs_per_device: int) -> None:
        super().__init__(f"{runs_per_device} runs a device fit its memory")
        self.runs_per_device = runs_per_device


def _is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)


def _narrower(error: jax.errors.JaxRuntimeError | _TooWide, width: int, at_once: int) -> int:
    """Returns the width of the programs after one that did not fit, a multiple of the runs that
    train at once; prints it on stderr."""
    if isinstance(error, _TooWide):
        programs = math.ceil(width / (error.runs_per_device * at_once))
        narrower = math.ceil(width / programs / at_once) * at_once
    elif _is_out_of_memory(error):
        narrower = width // 2 // at_once * at_once
    else:
        raise error
    if narrower < 1:
        raise exits.Failure(
            "out of device memory with one run a device; lower --batch_size or take a smaller "
            "--network"
        )
    print(
        f"out of device memory with {width} runs in a program; {narrower} from here on",
        file=sys.stderr,
    )
    return narrower


def choose_width(schedule: Schedule) -> tuple[int, jax.sharding.Mesh]:
    """Returns how many runs a program has, a multiple of those that train at once, and the mesh of
    its devices. On an accelerator that reports its memory these are all runs, see `_compile`."""
    split = schedule.data_devices
    devices = jax.local_devices()
    places = len(devices) // split
    if schedule.runs_per_program is not None:
        wanted = schedule.runs_per_program
    elif device_memory() is None:
        wanted = min(CPU_RUNS_PER_PROGRAM, schedule.wanted)
    else:
        wanted = schedule.wanted
    at_once = min(places, wanted)
    mesh = runs.make_mesh(devices[: at_once * split], split)
    return math.ceil(wanted / at_once) * at_once, mesh


def _compile(program: Program, schedule: Schedule, callbacks: Callbacks) -> None:
    """Compiles a program.

    Raises:
      _TooWide: it needs more memory than its device has, and no flag asks for this width.
    """
    needed = program.compile(callbacks.compiled)
    memory = device_memory()
    if memory is not None and needed and schedule.runs_per_program is None:
        width = len(program.runs.data.count) // runs.places_for_runs(program.mesh)
        images = sum(leaf.nbytes for leaf in jax.tree.leaves(program.images))
        fits = runs.widest_program(needed, images, width, memory)
        if fits < width:
            raise _TooWide(fits)
    if schedule.ahead is not None and program.is_resident:
        schedule.ahead.start(*choose_width(schedule), program)


def _restore(program: Program, resumed: SavedProgram) -> ProgramCheckpoint | None:
    """Returns a saved program on the devices; None, with a line on stderr, if it does not fit."""
    checkpoint = checkpoints.restore(resumed, program.state_template(resumed.phase))
    if checkpoint is None:
        return None
    return checkpoint._replace(progress=program.place(checkpoint.progress))


def _train_program(
    work: _Work, schedule: Schedule, callbacks: Callbacks, checkpoint: ProgramCheckpoint | None
) -> None:
    program, jobs = work.program, work.jobs
    config = program.config
    started = time.perf_counter()
    _compile(program, schedule, callbacks)
    if checkpoint is None:
        names = tuple(job.run for job in jobs)
        checkpoint = ProgramCheckpoint(names, _init(work), {}, 0.0)
    epochs_reported = checkpoint.progress.epoch
    callbacks.epochs(epochs_reported * len(jobs))
    epochs, warm, before_seconds = 1, False, checkpoint.seconds
    while not runs.is_over(config, checkpoint.progress):
        before = time.perf_counter()
        asked = _up_to_a_pass(epochs, checkpoint.progress.epoch, schedule.evaluate_every)
        progress = program.advance(checkpoint.progress, asked)
        done = progress.epoch
        if warm:
            # The first call includes compilation; from the second on its time decides the number of
            # epochs.
            seconds = max(time.perf_counter() - before, 1e-3)
            per_call = round((done - epochs_reported) * SECONDS_PER_CALL / seconds)
            epochs = max(1, min(4 * epochs, per_call))
        warm = True
        callbacks.epochs((done - epochs_reported) * len(jobs))
        epochs_reported = done
        checkpoint = checkpoint._replace(
            progress=progress,
            evaluations=_with_pass(work, schedule, progress, checkpoint.evaluations),
            seconds=before_seconds + time.perf_counter() - started,
        )
        callbacks.chunk(checkpoint)
    outcome = program.finish(checkpoint.progress)
    outcome, untrained = jax.device_get((outcome, checkpoint.progress.untrained_distances))
    callbacks.epochs((config.training.epochs - epochs_reported) * len(jobs))
    seconds = (before_seconds + time.perf_counter() - started) / len(jobs)
    for number, job in enumerate(jobs):
        callbacks.finished(
            outcomes.finish(
                config,
                job,
                work.pool,
                number,
                outcome=outcome,
                checkpoint=checkpoint,
                untrained=untrained[number],
                seconds=seconds,
            )
        )
    callbacks.over(checkpoint.names)


def _init(work: _Work) -> Progress:
    """Starts a program. The untrained network of a run that starts from an autoencoder is the
    autoencoder's own first state."""
    progress = work.program.init()
    if all(job.start is None for job in work.jobs):
        return progress
    drawn = dataclasses.replace(work.program, runs=_untrained_runs(work))
    return progress._replace(untrained_distances=drawn.init().untrained_distances)


def _untrained_runs(work: _Work) -> Run:
    """Returns the runs of a program with the weights that their autoencoders started with."""
    config, mesh = work.program.config, work.program.mesh
    width, longest = work.program.runs.data.indices.shape
    jobs = [job._replace(start=None) for job in work.jobs]
    fresh = runs.place(mesh, pools.stack_jobs(config, work.pool, jobs, width, longest))
    draw = runs.compiled(runs.init_params, mesh, config, work.program.network)
    params, statistics = draw((), (fresh,))
    return fresh._replace(weights={**params, "statistics": statistics})


def _with_pass(
    work: _Work, schedule: Schedule, progress: Progress, found: Evaluations
) -> Evaluations:
    """Adds the figures of a full pass over both sets where one is due."""
    every = schedule.evaluate_every
    if every is None or progress.epoch % every:
        return found
    train, test = jax.device_get(work.program.evaluate(progress))
    measured = passes.measure(work.jobs, train, test, progress.state.squared_radius)
    return passes.add(found, progress.epoch, measured)


def _up_to_a_pass(epochs: int, done: int, every: int | None) -> int:
    """Returns how many of the next epochs may run before a full pass is due."""
    return epochs if every is None else min(epochs, every - done % every)
