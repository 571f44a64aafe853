"""Class-vs-all sweep: every class normal in turn, several seeds, in few compiled programs.

    python -m experiments.sweep                                    # the embedded digits
    python -m experiments.sweep --dataset=mnist --data_dir=DIR     # original archives in DIR/mnist

Writes `config.json`, `runs.csv`, `summary.csv`, `scores/` and `history/` into `--out`, and prints a
table beside the published figures. A sweep that was interrupted, or is given more classes, seeds or
methods, goes on where it was. With `--distributed`, several processes share it.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from tqdm import tqdm

from deepsvdd_jax import configs, datasets, initialization, presets, runs, streaming
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.networks import build_network, check_image_shape
from experiments import (
    deep,
    environment,
    flights,
    pretraining,
    processes,
    results,
    settings,
    shallow,
    tables,
)
from experiments.pretraining import Pretrained
from experiments.processes import ALONE, Team
from experiments.results import RunName

DEEP_METHODS = ("deep_svdd", "dcae", "soft_boundary")
METHODS = ("deep_svdd", "dcae", *shallow.METHODS, "soft_boundary")


class Sweep(NamedTuple):
    """All that was asked for, checked, and the processes that share it."""

    preset: str
    data: DataConfig
    split: SplitConfig
    dataset: Dataset
    splits: dict[tuple[int, int], OneClassSplit]
    classes: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    configs: dict[str, RunConfig]
    shallow: shallow.ShallowConfig
    runs_per_program: int | None
    data_devices: int
    memory_budget: int | None
    evaluate_every: int | None
    save_models: bool
    out: Path
    team: Team = ALONE


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags()
    settings.define_split_flags()
    flags.DEFINE_string("normal_classes", "all", "`all`, or classes as 0,3,8")
    processes.define_flags()
    define_training_flags()


def define_training_flags() -> None:
    """Defines the flags that hold whatever is normal: methods, settings, files."""
    settings.define_run_flags()
    shallow.define_flags()
    environment.define_flags()
    flags.DEFINE_string("seeds", "5", "a count, or a list; `7,` is the list of one seed")
    flags.DEFINE_string(
        "methods",
        "deep_svdd",
        f"any of {','.join(METHODS)}; soft_boundary is deep_svdd with that objective",
    )
    flags.DEFINE_string("out", None, "result folder (default results/<dataset>-<preset>)")
    flags.DEFINE_bool("save_models", False, "keep every run's model under models/")
    flags.DEFINE_integer("runs_per_program", None, "runs in a compiled program", lower_bound=1)
    flags.DEFINE_integer(
        "data_devices",
        1,
        "devices over which every batch of a run is split, for sweeps of fewer runs than devices; "
        "the batch size must be a multiple of it",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "memory_budget",
        None,
        "bytes of images that a device may hold, as 500MB or 2GiB; sets that are larger stay on "
        "the host and are streamed (default: half of an accelerator's memory, no limit on a CPU)",
    )
    flags.DEFINE_integer(
        "evaluate_every",
        None,
        "epochs between two full passes over training and test set, whose figures, the test AUROC "
        "among them, go into history/ and nowhere else (default: no such passes)",
        lower_bound=1,
    )


def main() -> None:
    """Reads the flags, trains what is missing, writes and prints the tables."""
    values = flags.FLAGS
    team = processes.join(values)
    environment.use_platform(values.platform, values.compilation_cache)
    carry_out(plan(values)._replace(team=team), {})


def carry_out(sweep: Sweep, more: Mapping[str, Any]) -> None:
    """Takes the folder, trains what is missing, writes and prints the tables.

    Args:
      sweep: what is wanted.
      more: what `config.json` shall say beside the settings.
    """
    team = sweep.team
    with (
        results.locked(sweep.out, team.number, team.size),
        environment.stop_signals() as stop_if_asked,
    ):
        settings = describe(sweep) | dict(more)
        rows = processes.open_folder(team, sweep.out, settings, stop_if_asked)
        run(sweep, rows, stop_if_asked)


def run(sweep: Sweep, rows: dict[RunName, results.Row], stop_if_asked: Callable[[], None]) -> None:
    """Trains what is missing of a process's runs; the first process writes and prints the tables.

    Args:
      sweep: what is wanted.
      rows: of the runs that are there; grows.
      stop_if_asked: raises `Interrupted` once a signal has come.

    Raises:
      Failure: runs that failed, or that another process owes; everything else is done and written
        by then.
    """
    team, owners = sweep.team, _owners(sweep)
    own = {name: owner for name, owner in owners.items() if owner == team.number}
    missing = processes.without_rows(owners, rows)
    print(
        f"{sweep.out}: {len(rows)} runs are there, {len(own.keys() & missing.keys())} to go",
        file=sys.stderr,
    )
    processes.call_roll(team, sweep.out, missing.values(), stop_if_asked)
    train_deep(sweep, own, rows, stop_if_asked)
    shallow.score_missing(sweep, own, rows, stop_if_asked)
    if team.is_first:
        missing = processes.without_rows(owners, rows)
        rows |= processes.gather(team, sweep.out, missing, stop_if_asked)
        _write_tables(sweep, rows)
    _report_failures(owners if team.is_first else own, rows)


def _write_tables(sweep: Sweep, rows: dict[RunName, results.Row]) -> None:
    """Writes and prints the tables, and removes what was saved of programs that are over."""
    flights.Keeper(sweep.out).drop_finished(rows)
    processes.write_table(sweep.team, sweep.out, rows)
    summary = results.write_summary(sweep.out, rows)
    print(tables.summary_table(summary, sweep.preset, sweep.split.protocol))
    for text in tables.itu_tables(rows, sweep.dataset.name, sweep.preset):
        print(text)
    for line in tables.outside_lines(rows):
        print(line)


def _report_failures(owners: dict[RunName, int], rows: dict[RunName, results.Row]) -> None:
    missing = processes.without_rows(owners, rows)
    failed = [name for name in owners if name in rows and rows[name]["failure"]]
    parts = []
    if failed:
        reasons = "; ".join(f"{name.stem}: {rows[name]['failure']}" for name in failed[:3])
        parts.append(f"{len(failed)} runs failed, see runs.csv; {reasons}")
    if missing:
        parts.append(processes.describe_missing(missing))
    if parts:
        raise environment.Failure("; ".join(parts))


# --- what is asked for --------------------------------------------------------------------------


def plan(values: flags.FlagValues) -> Sweep:
    """Checks everything that can be checked before a file is written.

    Raises:
      ConfigError, DataError: what is wrong and what is allowed.
    """
    # What is cheap to check is checked before data are read.
    _methods(values.methods)
    settings.seed_list(values.seeds)
    data = settings.data_config(values)
    split = settings.split_config(values)
    dataset = datasets.load(data)
    return plan_on(
        values, data, split, dataset, settings.class_list(values.normal_classes, dataset)
    )


def plan_on(
    values: flags.FlagValues,
    data: DataConfig,
    split: SplitConfig,
    dataset: Dataset,
    classes: tuple[int, ...],
    require_test: bool = True,
) -> Sweep:
    """Checks a sweep over given data.

    Args:
      values: parsed flags, of which those of `define_training_flags` count.
      data: where the data set came from.
      split: what is normal.
      dataset: the data.
      classes: the normal classes.
      require_test: whether the anomalies must be there already.

    Raises:
      ConfigError, DataError: what is wrong and what is allowed.
    """
    methods = _methods(values.methods)
    seeds = settings.seed_list(values.seeds)
    shape = tuple(dataset.x_train.shape[1:])
    base = settings.run_config(values, data.name, shape)
    shallow_config = shallow.read_config(values, base)
    shallow.check(shallow_config, methods)
    _check_dcae(values, base, methods)
    run_configs = {name: method_config(name, base) for name in DEEP_METHODS if name in methods}
    for config in run_configs.values():
        check_network(config, shape)
        initialization.check_start(config, shape)
    splits = make_splits(dataset, split, classes, seeds, require_test)
    _check_batches(run_configs, splits)
    _check_devices(run_configs, values.data_devices)
    return Sweep(
        base.preset,
        data,
        split,
        dataset,
        splits,
        classes,
        seeds,
        methods,
        run_configs,
        shallow_config,
        values.runs_per_program,
        values.data_devices,
        None if values.memory_budget is None else streaming.parse_bytes(values.memory_budget),
        values.evaluate_every,
        values.save_models,
        Path(values.out or f"results/{dataset.name}-{values.preset}").expanduser(),
    )


def _check_dcae(values: flags.FlagValues, base: RunConfig, methods: tuple[str, ...]) -> None:
    """Refuses settings of a phase that no chosen method has: a DCAE is the autoencoder phase."""
    if base.pretraining is None or {"dcae"} != set(methods) & set(DEEP_METHODS):
        return
    for name in settings.given_in(values, "training."):
        raise ConfigError(f"--{name} is not of the autoencoder: dcae takes --pretrain_{name}")


def make_splits(
    dataset: Dataset,
    split: SplitConfig,
    classes: tuple[int, ...],
    seeds: tuple[int, ...],
    require_test: bool = True,
) -> dict[tuple[int, int], OneClassSplit]:
    """Returns the one-class problem of every class and seed."""
    # Only pollution and validation draw; without them a class has one split for all seeds.
    drawn = bool(split.outlier_fraction or split.validation_fraction)
    splits: dict[tuple[int, int], OneClassSplit] = {}
    for label in classes:
        for seed in seeds:
            known = splits.get((label, seeds[0])) if not drawn else None
            splits[label, seed] = known or datasets.one_class_split(
                dataset,
                label,
                **dataclasses.asdict(split),
                seed=seed,
                require_test=require_test,
            )
    return splits


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(part for part in text.split(",") if part))
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ConfigError(f"methods is {text!r}; allowed: any of {','.join(METHODS)}")
    return methods


def method_config(method: str, base: RunConfig) -> RunConfig:
    """Returns a method's configuration: a DCAE is the autoencoder phase, trained and scored.

    Raises:
      ConfigError: `soft_boundary` where `deep_svdd` has that objective already.
    """
    if method == "deep_svdd":
        return base
    if method == "soft_boundary":
        if base.training.objective.kind == "soft-boundary":
            raise ConfigError(
                "methods: soft_boundary is deep_svdd with --objective=soft-boundary; give one"
            )
        return configs.replace_at(base, "training.objective.kind", "soft-boundary")
    phase = base.pretraining or presets.default_autoencoder(base.training)
    return dataclasses.replace(base, pretraining=None, training=phase)


def check_network(config: RunConfig, shape: tuple[int, ...]) -> None:
    """Refuses a network, or a decoder, that images of a shape are too small for or no image of."""
    check_image_shape(config.network, shape)
    if config.needs_decoder:
        import jax

        network = build_network(config.network, shape)
        jax.eval_shape(lambda key: network.init(key, True), jax.random.key(0))


def _check_batches(
    run_configs: dict[str, RunConfig], splits: dict[tuple[int, int], OneClassSplit]
) -> None:
    for config in run_configs.values():
        for (label, _), split in splits.items():
            try:
                runs.check_image_count(config, len(split.train_indices))
            except ConfigError as error:
                raise ConfigError(f"class {label} has {error}") from None


def _check_devices(run_configs: dict[str, RunConfig], data_devices: int) -> None:
    import jax

    available = jax.local_device_count()
    if data_devices > available:
        raise ConfigError(f"data_devices is {data_devices}; there are {available} devices")
    for config in run_configs.values():
        runs.check_data_devices(config, data_devices)


def describe(sweep: Sweep) -> dict[str, Any]:
    """Returns the content of `config.json`: every setting, versions, device."""
    data = configs.to_dict(sweep.data)
    data_dir = data.pop("data_dir")
    return {
        "data": data,
        "data_dir": data_dir,
        "split": configs.to_dict(sweep.split),
        "normal_classes": list(sweep.classes),
        "seeds": list(sweep.seeds),
        "methods": list(sweep.methods),
        **{name: _as_dict(sweep.configs.get(name)) for name in DEEP_METHODS},
        "shallow": dataclasses.asdict(sweep.shallow),
        "runs_per_program": sweep.runs_per_program,
        "data_devices": sweep.data_devices,
        "memory_budget": sweep.memory_budget,
        "evaluate_every": sweep.evaluate_every,
        "save_models": sweep.save_models,
        **environment.describe(),
    }


def _as_dict(config: RunConfig | None) -> dict[str, Any] | None:
    return None if config is None else configs.to_dict(config)


# --- the deep methods ---------------------------------------------------------------------------


class _Stage(NamedTuple):
    """Runs of one configuration, none with a pretraining: that is a stage of its own.

    Attributes:
      label: of the progress bar.
      config: of all runs.
      wanted: all of them, finished ones too.
      missing: those that are not finished.
      start_of: returns the autoencoder that a run starts from, or None.
      write: takes what a run left when it ended.
    """

    label: str
    config: RunConfig
    wanted: dict[RunName, OneClassSplit]
    missing: set[RunName]
    start_of: Callable[[RunName], Pretrained | None]
    write: Callable[[deep.Finished], None]


def train_deep(
    sweep: Sweep,
    own: Collection[RunName],
    rows: dict[RunName, results.Row],
    stop_if_asked: Callable[[], None],
) -> None:
    """Trains those of some deep runs that are missing."""
    keeper = flights.Keeper(sweep.out)
    problems = dict.fromkeys((name.normal_class, name.seed) for name in own)
    methods = dict.fromkeys(("dcae", *sweep.configs))
    lefts = keeper.left(RunName(method, *problem) for method in methods for problem in problems)
    under_way = {name for left in lefts for name in left.names}
    for stage in _stages(sweep, problems, rows, under_way):
        _train_stage(sweep, stage, keeper, lefts, stop_if_asked)


def _train_stage(
    sweep: Sweep,
    stage: _Stage,
    keeper: flights.Keeper,
    lefts: list[flights.Left],
    stop_if_asked: Callable[[], None],
) -> None:
    lefts = [left for left in lefts if _goes_on(left, stage)]
    under_way = {name for left in lefts for name in left.names}
    jobs = [
        deep.Job(name, split, stage.start_of(name))
        for name, split in stage.wanted.items()
        if name in stage.missing or name in under_way
    ]
    schedule = deep.Schedule(
        sweep.runs_per_program,
        sweep.evaluate_every,
        # Of all processes alike: they then run the same compiled program.
        math.ceil(len(sweep.splits) / sweep.team.size),
        max(deep.image_count(split) for split in sweep.splits.values()),
        sweep.data_devices,
        sweep.memory_budget,
    )
    with progress_bar(stage.label, len(jobs) * stage.config.training.epochs, "epoch") as bar:
        watch = deep.Watch(stage.write, bar.update, _saver(keeper, stop_if_asked), keeper.drop)
        deep.train_jobs(stage.config, sweep.dataset, jobs, schedule, watch, lefts)


def _stages(
    sweep: Sweep,
    problems: Iterable[tuple[int, int]],
    rows: dict[RunName, results.Row],
    under_way: Container[RunName],
) -> Iterator[_Stage]:
    """Yields what is to be trained in turn: the autoencoders first, which the methods share, then
    each method."""
    autoencoder = _autoencoder_of(sweep.configs)
    if autoencoder is not None:
        yield _autoencoder_stage(sweep, problems, rows, under_way, autoencoder)
    for method, config in sweep.configs.items():
        if method == "dcae":
            continue
        wanted = _splits_of(sweep, problems, method)
        missing = {name for name in wanted if name not in rows}
        start_of = functools.partial(_start_of, sweep, autoencoder if config.pretraining else None)
        alone = dataclasses.replace(config, pretraining=None)
        yield _Stage(method, alone, wanted, missing, start_of, _writer(sweep, rows, config))


def _autoencoder_of(run_configs: Mapping[str, RunConfig]) -> RunConfig | None:
    """Returns the autoencoder of a sweep, of which all methods have the same; None without one."""
    found = (
        config if method == "dcae" else runs.autoencoder_config(config)
        for method, config in run_configs.items()
        if method == "dcae" or config.pretraining is not None
    )
    return next(found, None)


def _autoencoder_stage(
    sweep: Sweep,
    problems: Iterable[tuple[int, int]],
    rows: dict[RunName, results.Row],
    under_way: Container[RunName],
    autoencoder: RunConfig,
) -> _Stage:
    """Returns the stage of the autoencoders that are DCAE rows to come, or starts of other runs."""
    wanted = _splits_of(sweep, problems, "dcae")
    asked = "dcae" in sweep.methods
    missing = {name for name in wanted if asked and name not in rows}
    starting = [method for method, config in sweep.configs.items() if config.pretraining]
    for name in wanted.keys() - missing:
        followers = [name._replace(method=method) for method in starting]
        needed = any(run not in rows or run in under_way for run in followers)
        if needed and _start_of(sweep, autoencoder, name) is None:
            missing.add(name)

    def write(finished: deep.Finished) -> None:
        results.check_there(sweep.out)
        name, state = finished.job.name, finished.state
        kept = Pretrained(
            state.params,
            state.statistics,
            int(state.failure),
            finished.untrained,
            finished.history,
        )
        pretraining.write(pretraining.path_of(sweep.out, name), kept)
        if asked and name not in rows:
            _writer(sweep, rows, autoencoder)(finished)

    label = "dcae" if asked else "pretraining"
    return _Stage(label, autoencoder, wanted, missing, lambda name: None, write)


def _start_of(sweep: Sweep, autoencoder: RunConfig | None, name: RunName) -> Pretrained | None:
    """Reads the autoencoder of a run's class and seed, of which there is none without a
    configuration of one."""
    if autoencoder is None:
        return None
    network = build_network(autoencoder.network, tuple(sweep.dataset.x_train.shape[1:]))
    return pretraining.read(pretraining.path_of(sweep.out, name), network)


def _splits_of(
    sweep: Sweep, problems: Iterable[tuple[int, int]], method: str
) -> dict[RunName, OneClassSplit]:
    return {RunName(method, *problem): sweep.splits[problem] for problem in problems}


def _goes_on(left: flights.Left, stage: _Stage) -> bool:
    return all(name in stage.wanted for name in left.names) and any(
        name in stage.missing for name in left.names
    )


def _saver(
    keeper: flights.Keeper, stop_if_asked: Callable[[], None]
) -> Callable[[flights.Flight], None]:
    def save(flight: flights.Flight) -> None:
        try:
            stop_if_asked()
        except environment.Interrupted:
            keeper.offer(flight, now=True)
            raise
        keeper.offer(flight)

    return save


def _writer(
    sweep: Sweep, rows: dict[RunName, results.Row], config: RunConfig
) -> Callable[[deep.Finished], None]:
    def write(finished: deep.Finished) -> None:
        results.check_there(sweep.out)
        name = finished.job.name
        values = identity(sweep, name) | finished.row
        if finished.scores is not None and sweep.save_models:
            from experiments.models import save_run

            save_run(sweep.out / "models" / name.stem, config, finished)
        if values.get("collapsed"):
            print(
                f"{name.stem}: collapsed, all inputs are mapped to nearly one point; try "
                "--nobias, a lower --learning_rate or fewer --epochs",
                file=sys.stderr,
            )
        results.write_run(sweep.out, rows, name, values, finished.scores, finished.history)
        processes.write_table(sweep.team, sweep.out, rows)

    return write


def identity(sweep: Sweep, name: RunName) -> dict[str, Any]:
    """Returns the cells of a row that say which run it is."""
    return {
        "dataset": sweep.dataset.name,
        "protocol": sweep.split.protocol,
        "normal_class": name.normal_class,
        "method": name.method,
        "seed": name.seed,
    }


def progress_bar(what: str, total: int, unit: str) -> tqdm:
    """Returns a bar on stderr with an estimate of what is left; silent where there is nothing."""
    slow = 0.5 if sys.stderr.isatty() else 15.0
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}s",
        mininterval=slow,
        disable=total == 0,
        smoothing=0.1,
    )


def _owners(sweep: Sweep) -> dict[RunName, int]:
    """Returns the runs that are wanted, and which process trains each of them."""
    owner = processes.owners(sweep.team.size, list(sweep.splits))
    deep_runs = [RunName(method, *problem) for method in sweep.configs for problem in owner]
    wanted = deep_runs + shallow.wanted_runs(sweep)
    return {name: owner[name.normal_class, name.seed] for name in wanted}


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
