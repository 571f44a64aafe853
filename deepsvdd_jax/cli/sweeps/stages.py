"""The deep runs of sweeps in stages: the autoencoders that methods share, then each method."""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from deepsvdd_jax import runs
from deepsvdd_jax.cli import bars, exits
from deepsvdd_jax.cli.sweeps import (
    ahead,
    checkpoints,
    deep,
    outcomes,
    pools,
    pretraining,
    records,
)
from deepsvdd_jax.cli.sweeps.methods import AUTOENCODER
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.pretraining import Pretrained
from deepsvdd_jax.cli.sweeps.records import QualifiedName, RunName
from deepsvdd_jax.cli.sweeps.store import SweepStore
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.networks import build_network


class Member(NamedTuple):
    """A sweep, the runs that this process trains of it, and its folder."""

    sweep: Sweep
    own: Collection[RunName]
    store: SweepStore

    @property
    def problems(self) -> list[tuple[int, int]]:
        """Classes and seeds of the runs."""
        return list(dict.fromkeys((name.normal_class, name.seed) for name in self.own))

    def qualified(self, name: RunName) -> QualifiedName:
        """Returns the name of a run among those of all sweeps."""
        return QualifiedName(name, self.store.sweep)


class Stage(NamedTuple):
    """Runs of one configuration without a pretraining, which is a stage of its own.

    Attributes:
      label: of the progress bar.
      config: of all runs.
      members: their sweeps, by name.
      wanted: all of them, finished ones too.
      missing: those that are not finished.
      start_of: returns, by sweep, the autoencoder that a run starts from.
      write: by sweep, takes the result of a finished run.
    """

    label: str
    config: RunConfig
    members: dict[str, Member]
    wanted: dict[QualifiedName, OneClassSplit]
    missing: set[QualifiedName]
    start_of: dict[str, Callable[[RunName], Pretrained]]
    write: dict[str, Callable[[outcomes.Finished], None]]


def train_deep(members: Sequence[Member], program_over: Callable[[], None] = lambda: None) -> None:
    """Trains the missing deep runs of sweeps: runs of one configuration together, also those of
    different sweeps.

    Args:
      members: sweeps of one data set and one group of processes, with equal settings that do not
        belong to runs, such as `runs_per_program`. Their stores differ in `sweep`.
      program_over: called when all runs of a program are written.

    Raises:
      Interrupted: a signal has come; the programs under way are saved.
      Failure: a program of one run a device does not fit its memory, or an autoencoder vanished.
    """
    saved = [one for member in members for one in _saved_programs(member)]
    under_way = {name for one in saved for name in one.names}
    stages = _stages(members, under_way)
    compiling = None
    for stage, following in itertools.zip_longest(stages, stages[1:]):
        compiling = _train_stage(stage, saved, _ahead(following), compiling, program_over)


def _saved_programs(member: Member) -> list[checkpoints.SavedProgram]:
    methods = dict.fromkeys((AUTOENCODER, *member.sweep.settings.configs))
    return member.store.checkpoints.saved(
        RunName(method, *problem) for method in methods for problem in member.problems
    )


def _ahead(following: Stage | None) -> ahead.Ahead | None:
    if following is None or not ahead.pays():
        return None
    return ahead.Ahead(following.config, bool(following.start_of))


def _train_stage(
    stage: Stage,
    saved: list[checkpoints.SavedProgram],
    next_programs: ahead.Ahead | None,
    own_programs: ahead.Ahead | None,
    program_over: Callable[[], None],
) -> ahead.Ahead | None:
    """Trains a stage, whose programs `own_programs` compiles; returns the compilation of the next
    stage's."""
    saved = [one for one in saved if _continues(one, stage)]
    under_way = {name for one in saved for name in one.names}
    jobs = [
        pools.Job(name, split)
        for name, split in stage.wanted.items()
        if name in stage.missing or name in under_way
    ]
    sweeps = [member.sweep for member in stage.members.values()]
    asked = sweeps[0].settings
    schedule = deep.Schedule(
        runs_per_program=asked.runs_per_program,
        evaluate_every=asked.evaluate_every,
        # The same for all processes, so that they run the same compiled program.
        wanted=math.ceil(sum(len(sweep.splits) for sweep in sweeps) / sweeps[0].group.size),
        longest=max(
            pools.image_count(split) for sweep in sweeps for split in sweep.splits.values()
        ),
        data_devices=asked.data_devices,
        memory_budget=asked.memory_budget,
        ahead=next_programs,
    )

    def store_of(name: QualifiedName) -> SweepStore:
        return stage.members[name.sweep].store

    def start_of(name: QualifiedName) -> Pretrained | None:
        return stage.start_of[name.sweep](name.name) if stage.start_of else None

    def finished(one: outcomes.Finished) -> None:
        stage.write[one.job.run.sweep](one)

    def over(names: tuple[QualifiedName, ...]) -> None:
        store_of(names[0]).checkpoints.delete(names)
        program_over()

    label = stage.label if len(sweeps) == 1 else f"{stage.label}, {len(sweeps)} sweeps"
    with bars.progress_bar(label, len(jobs) * stage.config.training.epochs, "epoch") as bar:
        compiled = bars.show_compilation(bar)
        if own_programs is not None:
            own_programs.wait(compiled)
        callbacks = deep.Callbacks(
            start_of=start_of,
            finished=finished,
            epochs=bar.update,
            # A checkpoint lies in the folder of the sweep of its first run.
            chunk=lambda checkpoint: store_of(checkpoint.names[0]).save_checkpoint(checkpoint),
            over=over,
            compiled=compiled,
        )
        deep.train_jobs(stage.config, sweeps[0].dataset, jobs, schedule, callbacks, saved=saved)
    return schedule.ahead


def _continues(one: checkpoints.SavedProgram, stage: Stage) -> bool:
    """Whether a stage resumes a saved program; prints a line if it trains its runs anew."""
    if stage.missing.isdisjoint(one.names):
        return False
    others = [name for name in one.names if name not in stage.wanted]
    if others:
        print(
            f"the program of {one.names[0].path} was left with runs that are not asked for now, "
            f"as {others[0].path}; its other runs start anew",
            file=sys.stderr,
        )
    return not others


def _stages(members: Sequence[Member], under_way: Container[QualifiedName]) -> list[Stage]:
    """Returns the stages in order: first the autoencoders, which methods share, then each method.
    Sweeps share a stage if its configuration is the same."""
    autoencoders = [_autoencoder_stage(member, under_way) for member in members]
    methods = [stage for member in members for stage in _method_stages(member)]
    joined: dict[tuple[str, RunConfig, bool], Stage] = {}
    for stage in (*filter(None, autoencoders), *methods):
        key = (stage.label, stage.config, bool(stage.start_of))
        joined[key] = _join(joined[key], stage) if key in joined else stage
    return list(joined.values())


def _join(one: Stage, other: Stage) -> Stage:
    return one._replace(
        members=one.members | other.members,
        wanted=one.wanted | other.wanted,
        missing=one.missing | other.missing,
        start_of=one.start_of | other.start_of,
        write=one.write | other.write,
    )


def _method_stages(member: Member) -> Iterator[Stage]:
    sweep, store = member.sweep, member.store
    autoencoder = _autoencoder_of(sweep.settings.configs)
    for method, config in sweep.settings.configs.items():
        if method == AUTOENCODER:
            continue
        wanted = _splits_of(member, method)
        start_of: dict[str, Callable[[RunName], Pretrained]] = {}
        if autoencoder is not None and config.pretraining is not None:
            start_of[store.sweep] = functools.partial(_known_start_of, member, autoencoder)
        yield Stage(
            label=method,
            config=dataclasses.replace(config, pretraining=None),
            members={store.sweep: member},
            wanted=wanted,
            missing={name for name in wanted if name.name not in store.rows},
            start_of=start_of,
            write={store.sweep: _writer(member, config)},
        )


def _autoencoder_of(run_configs: Mapping[str, RunConfig]) -> RunConfig | None:
    """Returns the autoencoder of a sweep, which is the same for all methods; None without one."""
    found = (
        config if method == AUTOENCODER else runs.autoencoder_config(config)
        for method, config in run_configs.items()
        if method == AUTOENCODER or config.pretraining is not None
    )
    return next(found, None)


def _autoencoder_stage(member: Member, under_way: Container[QualifiedName]) -> Stage | None:
    """Returns the stage of the autoencoders that are missing DCAE rows or starts of other runs;
    None without any."""
    sweep, store = member.sweep, member.store
    autoencoder = _autoencoder_of(sweep.settings.configs)
    if autoencoder is None:
        return None
    wanted = _splits_of(member, AUTOENCODER)
    asked = AUTOENCODER in sweep.settings.methods
    missing = {one for one in wanted if asked and one.name not in store.rows}
    starting = [method for method, config in sweep.settings.configs.items() if config.pretraining]
    for one in wanted.keys() - missing:
        followers = [one.name._replace(method=method) for method in starting]
        needed = any(
            run not in store.rows or member.qualified(run) in under_way for run in followers
        )
        if needed and _start_of(member, autoencoder, one.name) is None:
            missing.add(one)

    def write(finished: outcomes.Finished) -> None:
        store.check_there()
        name, state = finished.job.name, finished.state
        kept = Pretrained(
            state.params,
            state.statistics,
            int(state.failure),
            finished.history,
        )
        pretraining.write(pretraining.path_of(store.folder, name), kept)
        if asked and name not in store.rows:
            _writer(member, autoencoder)(finished)

    label = AUTOENCODER if asked else "pretraining"
    return Stage(
        label=label,
        config=autoencoder,
        members={store.sweep: member},
        wanted=wanted,
        missing=missing,
        start_of={},
        write={store.sweep: write},
    )


def _start_of(member: Member, autoencoder: RunConfig, name: RunName) -> Pretrained | None:
    """Reads the autoencoder of a run's class and seed; None where there is none."""
    shape = tuple(member.sweep.dataset.x_train.shape[1:])
    path = pretraining.path_of(member.store.folder, name)
    return pretraining.read(path, build_network(autoencoder.network, shape))


def _known_start_of(member: Member, autoencoder: RunConfig, name: RunName) -> Pretrained:
    """Reads an autoencoder that exists or was trained before; raises Failure if it has vanished or
    was damaged meanwhile."""
    found = _start_of(member, autoencoder, name)
    if found is None:
        path = pretraining.path_of(member.store.folder, name)
        raise exits.Failure(
            f"{path} was there before {name.stem} began and is gone or damaged; the same command "
            "trains this autoencoder again"
        )
    return found


def _splits_of(member: Member, method: str) -> dict[QualifiedName, OneClassSplit]:
    return {
        member.qualified(RunName(method, *problem)): member.sweep.splits[problem]
        for problem in member.problems
    }


def _writer(member: Member, config: RunConfig) -> Callable[[outcomes.Finished], None]:
    sweep, store = member.sweep, member.store

    def write(finished: outcomes.Finished) -> None:
        store.check_there()
        name = finished.job.name
        protocol = sweep.settings.split.protocol
        record = records.record_of(sweep.dataset.name, protocol, name, finished.row)
        if finished.scores is not None and sweep.settings.save_models:
            from deepsvdd_jax.cli.sweeps.models import save_run

            model = store.model_folder(name)
            save_run(model, config, finished, sweep.dataset.pixel_range)
        if record.collapsed:
            print(
                f"{finished.job.run.path}: collapsed, all inputs are mapped to nearly one point; "
                "try --nobias, a lower --learning_rate or fewer --epochs",
                file=sys.stderr,
            )
        store.write_run(record, finished.scores, finished.history)

    return write
