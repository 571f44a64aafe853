"""Class-vs-all sweep: every class normal in turn, several seeds, in few compiled programs.

    python -m experiments.sweep                                    # the embedded digits
    python -m experiments.sweep --dataset=mnist --data_dir=DIR     # original archives in DIR/mnist

Writes `config.json`, `runs.csv`, `summary.csv`, `scores/` and `history/` into `--out`, and prints a
table beside the published figures. A sweep that was interrupted, or is given more classes, seeds or
methods, goes on where it was.
"""

import dataclasses
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from tqdm import tqdm

from deepsvdd_jax import configs, datasets, initialization, presets, runs, streaming
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.networks import build_network, check_image_shape
from experiments import deep, environment, flights, results, settings, shallow, tables
from experiments.results import RunName

DEEP_METHODS = ("deep_svdd", "dcae", "soft_boundary")
METHODS = ("deep_svdd", "dcae", *shallow.METHODS, "soft_boundary")


class Sweep(NamedTuple):
    """All that was asked for, checked."""

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


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags()
    settings.define_split_flags()
    flags.DEFINE_string("normal_classes", "all", "`all`, or classes as 0,3,8")
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
    environment.use_platform(values.platform, values.compilation_cache)
    sweep = plan(values)
    with results.locked(sweep.out), environment.stop_signals() as stop_if_asked:
        run(sweep, results.open_folder(sweep.out, describe(sweep)), stop_if_asked)


def run(sweep: Sweep, rows: dict[RunName, results.Row], stop_if_asked: Callable[[], None]) -> None:
    """Trains what is missing, writes and prints the tables.

    Args:
      sweep: what is wanted.
      rows: of the runs that are there; grows.
      stop_if_asked: raises `Interrupted` once a signal has come.

    Raises:
      Failure: runs that failed; everything else is done and written by then.
    """
    print(
        f"{sweep.out}: {len(rows)} runs are there, {_missing(sweep, rows)} to go", file=sys.stderr
    )
    train_deep(sweep, rows, stop_if_asked)
    shallow.score_missing(sweep, rows, stop_if_asked)
    summary = results.write_summary(sweep.out, rows)
    print(tables.summary_table(summary, sweep.preset, sweep.split.protocol))
    for text in tables.itu_tables(rows, sweep.dataset.name, sweep.preset):
        print(text)
    for line in tables.outside_lines(rows):
        print(line)
    failed = [name for name in _wanted(sweep) if rows[name]["failure"]]
    if failed:
        reasons = "; ".join(f"{name.stem}: {rows[name]['failure']}" for name in failed[:3])
        raise environment.Failure(f"{len(failed)} runs failed, see runs.csv; {reasons}")


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


def train_deep(
    sweep: Sweep, rows: dict[RunName, results.Row], stop_if_asked: Callable[[], None]
) -> None:
    """Trains the deep runs that are missing."""
    keeper = flights.Keeper(sweep.out)
    for method, config in sweep.configs.items():
        wanted = {
            RunName(method, label, seed): sweep.splits[label, seed]
            for label in sweep.classes
            for seed in sweep.seeds
        }
        lefts = [left for left in keeper.left() if _goes_on(left, wanted, rows)]
        under_way = {name for left in lefts for name in left.names}
        jobs = [
            deep.Job(name, split)
            for name, split in wanted.items()
            if name not in rows or name in under_way
        ]
        schedule = deep.Schedule(
            sweep.runs_per_program,
            sweep.evaluate_every,
            len(wanted),
            max(len(split.train_indices) for split in wanted.values()),
            sweep.data_devices,
            sweep.memory_budget,
        )
        with progress_bar(method, len(jobs) * deep.total_epochs(config), "epoch") as bar:
            watch = deep.Watch(
                _writer(sweep, rows, config),
                bar.update,
                _saver(keeper, stop_if_asked),
                keeper.drop,
            )
            deep.train_jobs(config, sweep.dataset, jobs, schedule, watch, lefts)


def _goes_on(
    left: flights.Left, wanted: Container[RunName], rows: Mapping[RunName, results.Row]
) -> bool:
    return all(name in wanted for name in left.names) and any(
        name not in rows for name in left.names
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
        results.write_runs(sweep.out, rows)

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


def _missing(sweep: Sweep, rows: dict[RunName, results.Row]) -> int:
    return sum(name not in rows for name in _wanted(sweep))


def _wanted(sweep: Sweep) -> list[RunName]:
    return [
        RunName(method, label, seed)
        for method in sweep.configs
        for label in sweep.classes
        for seed in sweep.seeds
    ] + shallow.wanted_runs(sweep)


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
