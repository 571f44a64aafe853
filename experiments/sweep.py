"""Class-vs-all sweep: every class normal in turn, several seeds, in few compiled programs.

    python -m experiments.sweep                                    # the embedded digits
    python -m experiments.sweep --dataset=mnist --data_dir=DIR     # original archives in DIR/mnist

Writes `config.json`, `runs.csv`, `summary.csv`, `scores/` and `history/` into `--out`, and prints a
table beside the published figures. A sweep that was interrupted, or is given more classes, seeds or
methods, goes on where it was.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from tqdm import tqdm

from deepsvdd_jax import configs, datasets, presets
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.networks import build_network, check_image_shape
from experiments import deep, environment, results, settings, shallow, tables
from experiments.results import RunName

DEEP_METHODS = ("deep_svdd", "dcae")
METHODS = DEEP_METHODS + shallow.METHODS


class Sweep(NamedTuple):
    """All that was asked for, checked."""

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
    save_models: bool
    out: Path


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags()
    settings.define_split_flags()
    settings.define_run_flags()
    shallow.define_flags()
    environment.define_flags()
    flags.DEFINE_string("normal_classes", "all", "`all`, or classes as 0,3,8")
    flags.DEFINE_string("seeds", "5", "a count, or a list; `7,` is the list of one seed")
    flags.DEFINE_string("methods", "deep_svdd", f"any of {','.join(METHODS)}")
    flags.DEFINE_string("out", None, "result folder (default results/<dataset>-<preset>)")
    flags.DEFINE_bool("save_models", False, "keep every run's model under models/")
    flags.DEFINE_integer("runs_per_program", None, "runs in a compiled program", lower_bound=1)


def main() -> None:
    """Reads the flags, trains what is missing, writes and prints the tables."""
    values = flags.FLAGS
    environment.use_platform(values.platform, values.compilation_cache)
    sweep = plan(values)
    rows = results.open_folder(sweep.out, describe(sweep))
    print(
        f"{sweep.out}: {len(rows)} runs are there, {_missing(sweep, rows)} to go", file=sys.stderr
    )
    failed = train_deep(sweep, rows) + shallow.score_missing(sweep, rows)
    summary = results.write_summary(sweep.out, rows)
    preset = next(iter(sweep.configs.values())).preset if sweep.configs else values.preset
    print(tables.summary_table(summary, preset, sweep.split.protocol))
    for text in tables.itu_tables(rows, sweep.data.name, preset):
        print(text)
    if failed:
        names = ", ".join(name.stem for name in failed[:3])
        raise environment.Failure(f"{len(failed)} runs failed: {names}; see runs.csv")


# --- what is asked for --------------------------------------------------------------------------


def plan(values: flags.FlagValues) -> Sweep:
    """Checks everything that can be checked before a file is written.

    Raises:
      ConfigError, DataError: what is wrong and what is allowed.
    """
    methods = _methods(values.methods)
    seeds = _seeds(values.seeds)
    data = settings.data_config(values)
    split = settings.split_config(values)
    dataset = datasets.load(data)
    classes = _classes(values.normal_classes, dataset)
    shape = tuple(dataset.x_train.shape[1:])
    base = settings.run_config(values, data.name, shape)
    shallow_config = shallow.read_config(values, base)
    shallow.check(shallow_config, methods)
    run_configs = {name: _method_config(name, base) for name in DEEP_METHODS if name in methods}
    for config in run_configs.values():
        _check_network(config, shape)
    # Only pollution and validation draw; without them a class has one split for all seeds.
    drawn = bool(split.outlier_fraction or split.validation_fraction)
    splits: dict[tuple[int, int], OneClassSplit] = {}
    for label in classes:
        for seed in seeds:
            known = splits.get((label, seeds[0])) if not drawn else None
            splits[label, seed] = known or datasets.one_class_split(
                dataset, label, **dataclasses.asdict(split), seed=seed
            )
    _check_batches(run_configs, splits)
    preset = values.preset
    return Sweep(
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
        values.save_models,
        Path(values.out or f"results/{data.name}-{preset}"),
    )


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(part for part in text.split(",") if part))
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ConfigError(f"methods is {text!r}; allowed: any of {','.join(METHODS)}")
    return methods


def _seeds(text: str) -> tuple[int, ...]:
    numbers = settings.integer_list("seeds", text)
    if "," not in text:
        if len(numbers) != 1 or numbers[0] < 1:
            raise ConfigError(f"seeds is {text!r}; give a count of at least 1, or a list as 0,1,7")
        return tuple(range(numbers[0]))
    if not numbers or any(seed < 0 or seed >= 2**31 for seed in numbers):
        raise ConfigError(f"seeds is {text!r}; seeds lie between 0 and 2147483647")
    return tuple(dict.fromkeys(numbers))


def _classes(text: str, dataset: Dataset) -> tuple[int, ...]:
    there = tuple(range(len(dataset.class_names)))
    if text == "all":
        return tuple(label for label in there if (dataset.y_train == label).any())
    classes = tuple(dict.fromkeys(settings.integer_list("normal_classes", text)))
    unknown = [label for label in classes if label not in there]
    if unknown or not classes:
        raise ConfigError(
            f"normal_classes is {text!r}; {dataset.name} has the classes 0 to {there[-1]}, or all"
        )
    return classes


def _method_config(method: str, base: RunConfig) -> RunConfig:
    """Returns a method's configuration: a DCAE is the autoencoder phase, trained and scored."""
    if method == "deep_svdd":
        return base
    phase = base.pretraining or presets.default_autoencoder(base.training)
    return dataclasses.replace(base, pretraining=None, training=phase)


def _check_network(config: RunConfig, shape: tuple[int, ...]) -> None:
    check_image_shape(config.network, shape)
    if config.needs_decoder:
        import jax

        network = build_network(config.network, shape)
        jax.eval_shape(lambda key: network.init(key, True), jax.random.key(0))


def _check_batches(
    run_configs: dict[str, RunConfig], splits: dict[tuple[int, int], OneClassSplit]
) -> None:
    """A phase of whole batches needs one; a run needs two images for its statistics."""
    for config in run_configs.values():
        for phase in (config.pretraining, config.training):
            for (label, _), split in splits.items():
                count = len(split.train_indices)
                least = phase.batch_size if phase is not None and phase.whole_batches else 2
                if count < least:
                    raise ConfigError(
                        f"class {label} has {count} training images; at least {least} are needed"
                    )


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
        "deep_svdd": _as_dict(sweep.configs.get("deep_svdd")),
        "dcae": _as_dict(sweep.configs.get("dcae")),
        "shallow": dataclasses.asdict(sweep.shallow),
        "runs_per_program": sweep.runs_per_program,
        **environment.describe(),
    }


def _as_dict(config: RunConfig | None) -> dict[str, Any] | None:
    return None if config is None else configs.to_dict(config)


# --- the deep methods ---------------------------------------------------------------------------


def train_deep(sweep: Sweep, rows: dict[RunName, results.Row]) -> list[RunName]:
    """Trains the deep runs that are missing; returns those that failed."""
    failed: list[RunName] = []
    for method, config in sweep.configs.items():
        jobs = [
            deep.Job(RunName(method, label, seed), sweep.splits[label, seed])
            for label in sweep.classes
            for seed in sweep.seeds
            if RunName(method, label, seed) not in rows
        ]
        with progress_bar(method, len(jobs) * deep.total_epochs(config), "epoch") as bar:
            deep.train_jobs(
                config,
                sweep.dataset,
                jobs,
                sweep.runs_per_program,
                _writer(sweep, rows, config, failed),
                bar.update,
            )
    return failed


def _writer(
    sweep: Sweep, rows: dict[RunName, results.Row], config: RunConfig, failed: list[RunName]
) -> Callable[[deep.Finished], None]:
    def write(finished: deep.Finished) -> None:
        name = finished.job.name
        values = identity(sweep, name) | finished.row
        if finished.scores is None:
            failed.append(name)
        elif sweep.save_models:
            from experiments.models import save_run

            save_run(sweep.out / "models" / name.stem, config, finished)
        if values.get("collapsed"):
            print(
                f"{name.stem}: collapsed, all inputs are mapped to nearly one point; try "
                "--nobias, a lower --learning_rate or fewer --epochs",
                file=sys.stderr,
            )
        results.write_run(sweep.out, rows, name, values, finished.scores, finished.history)

    return write


def identity(sweep: Sweep, name: RunName) -> dict[str, Any]:
    """Returns the cells of a row that say which run it is."""
    return {
        "dataset": sweep.data.name,
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
    wanted = [
        RunName(method, label, seed)
        for method in sweep.configs
        for label in sweep.classes
        for seed in sweep.seeds
    ] + shallow.wanted_runs(sweep)
    return sum(name not in rows for name in wanted)


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
