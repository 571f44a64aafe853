"""The deep runs of a sweep in stages: the autoencoders that methods share, then each method."""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from deepsvdd_jax import runs
from deepsvdd_jax.cli import bars
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
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.cli.sweeps.store import SweepStore
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.networks import build_network


class Stage(NamedTuple):
    """Runs of one configuration, none with a pretraining: that is a stage of its own.

    Attributes:
      label: of the progress bar.
      config: of all runs.
      wanted: all of them, finished ones too.
      missing: those that are not finished.
      start_of: returns the autoencoder that a run starts from, or None.
      write: takes what a run left when it ended.
      following: configuration of the runs that train next, without a pretraining, and whether they
        start from an autoencoder; None where nothing trains next.
    """

    label: str
    config: RunConfig
    wanted: dict[RunName, OneClassSplit]
    missing: set[RunName]
    start_of: Callable[[RunName], Pretrained | None]
    write: Callable[[outcomes.Finished], None]
    following: tuple[RunConfig, bool] | None = None


def train_deep(
    sweep: Sweep,
    own: Collection[RunName],
    store: SweepStore,
) -> None:
    """Trains those of some deep runs that are missing."""
    problems = dict.fromkeys((name.normal_class, name.seed) for name in own)
    methods = dict.fromkeys((AUTOENCODER, *sweep.settings.configs))
    saved = store.checkpoints.saved(
        RunName(method, *problem) for method in methods for problem in problems
    )
    under_way = {name for one in saved for name in one.names}
    started = None
    for stage in _stages(sweep, problems, store, under_way):
        started = _train_stage(sweep, stage, store, saved, started)


def _train_stage(
    sweep: Sweep,
    stage: Stage,
    store: SweepStore,
    saved: list[checkpoints.SavedProgram],
    started: ahead.Ahead | None,
) -> ahead.Ahead | None:
    """Trains a stage, whose programs `started` compiles; returns what compiles the next stage's."""
    saved = [one for one in saved if _continues(one, stage)]
    under_way = {name for one in saved for name in one.names}
    jobs = [
        pools.Job(name, split, stage.start_of(name))
        for name, split in stage.wanted.items()
        if name in stage.missing or name in under_way
    ]
    schedule = deep.Schedule(
        sweep.settings.runs_per_program,
        sweep.settings.evaluate_every,
        # Of all processes alike: they then run the same compiled program.
        math.ceil(max(len(sweep.splits), sweep.shape.runs) / sweep.group.size),
        max(sweep.shape.images, *map(pools.image_count, sweep.splits.values())),
        sweep.settings.data_devices,
        sweep.settings.memory_budget,
        ahead.Ahead(*stage.following) if stage.following and ahead.pays() else None,
    )
    with bars.progress_bar(stage.label, len(jobs) * stage.config.training.epochs, "epoch") as bar:
        compiled = bars.show_compilation(bar)
        if started is not None:
            started.wait(compiled)
        callbacks = deep.Callbacks(
            stage.write,
            bar.update,
            store.save_checkpoint,
            store.checkpoints.delete,
            compiled,
        )
        deep.train_jobs(stage.config, sweep.dataset, jobs, schedule, callbacks, saved)
    return schedule.ahead


def _stages(
    sweep: Sweep,
    problems: Iterable[tuple[int, int]],
    store: SweepStore,
    under_way: Container[RunName],
) -> Iterator[Stage]:
    """Yields what is to be trained in turn: the autoencoders first, which the methods share, then
    each method."""
    autoencoder = _autoencoder_of(sweep.settings.configs)
    methods = {
        method: config for method, config in sweep.settings.configs.items() if method != AUTOENCODER
    }
    if autoencoder is not None:
        stage = _autoencoder_stage(sweep, problems, store, under_way, autoencoder)
        yield stage._replace(following=_following(methods, None))
    for method, config in methods.items():
        wanted = _splits_of(sweep, problems, method)
        missing = {name for name in wanted if name not in store.rows}
        start_of = functools.partial(
            _start_of, sweep, store, autoencoder if config.pretraining else None
        )
        alone = dataclasses.replace(config, pretraining=None)
        write, following = _writer(sweep, store, config), _following(methods, method)
        yield Stage(method, alone, wanted, missing, start_of, write, following)


def _following(
    methods: Mapping[str, RunConfig], present: str | None
) -> tuple[RunConfig, bool] | None:
    """Returns what a stage says of the method after the present one, the first where that is None;
    None after the last."""
    names = list(methods)
    rest = names if present is None else names[names.index(present) + 1 :]
    if not rest:
        return None
    config = methods[rest[0]]
    return dataclasses.replace(config, pretraining=None), config.pretraining is not None


def _autoencoder_of(run_configs: Mapping[str, RunConfig]) -> RunConfig | None:
    """Returns the autoencoder of a sweep, of which all methods have the same; None without one."""
    found = (
        config if method == AUTOENCODER else runs.autoencoder_config(config)
        for method, config in run_configs.items()
        if method == AUTOENCODER or config.pretraining is not None
    )
    return next(found, None)


def _autoencoder_stage(
    sweep: Sweep,
    problems: Iterable[tuple[int, int]],
    store: SweepStore,
    under_way: Container[RunName],
    autoencoder: RunConfig,
) -> Stage:
    """Returns the stage of the autoencoders that are DCAE rows to come, or starts of other runs."""
    wanted = _splits_of(sweep, problems, AUTOENCODER)
    asked = AUTOENCODER in sweep.settings.methods
    missing = {name for name in wanted if asked and name not in store.rows}
    starting = [method for method, config in sweep.settings.configs.items() if config.pretraining]
    for name in wanted.keys() - missing:
        followers = [name._replace(method=method) for method in starting]
        needed = any(run not in store.rows or run in under_way for run in followers)
        if needed and _start_of(sweep, store, autoencoder, name) is None:
            missing.add(name)

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
            _writer(sweep, store, autoencoder)(finished)

    label = AUTOENCODER if asked else "pretraining"
    return Stage(label, autoencoder, wanted, missing, lambda name: None, write)


def _start_of(
    sweep: Sweep, store: SweepStore, autoencoder: RunConfig | None, name: RunName
) -> Pretrained | None:
    """Reads the autoencoder of a run's class and seed, of which there is none without a
    configuration of one."""
    if autoencoder is None:
        return None
    network = build_network(autoencoder.network, tuple(sweep.dataset.x_train.shape[1:]))
    return pretraining.read(pretraining.path_of(store.folder, name), network)


def _splits_of(
    sweep: Sweep, problems: Iterable[tuple[int, int]], method: str
) -> dict[RunName, OneClassSplit]:
    return {RunName(method, *problem): sweep.splits[problem] for problem in problems}


def _continues(one: checkpoints.SavedProgram, stage: Stage) -> bool:
    return all(name in stage.wanted for name in one.names) and any(
        name in stage.missing for name in one.names
    )


def _writer(
    sweep: Sweep, store: SweepStore, config: RunConfig
) -> Callable[[outcomes.Finished], None]:
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
                f"{name.stem}: collapsed, all inputs are mapped to nearly one point; try "
                "--nobias, a lower --learning_rate or fewer --epochs",
                file=sys.stderr,
            )
        store.write_run(record, finished.scores, finished.history)

    return write
