"""Plans a sweep: from flags to checked settings, one-class problems and runs."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import paths, settings, unread
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import locks, methods, shallow_settings, workers
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.cli.sweeps.sweep_settings import SweepSettings
from deepsvdd_jax.cli.sweeps.workers import SINGLE, WorkerGroup
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit

with lazily():
    from deepsvdd_jax import networks, runs, training
    from deepsvdd_jax.runs import initialization, memory


class Sweep(NamedTuple):
    """A checked sweep.

    Attributes:
      settings: whose JSON is `config.json`.
      preset: the recipe's name.
      dataset: raw images.
      splits: the one-class problem of every class and seed.
      out: the folder.
      group: the processes that share it.
    """

    settings: SweepSettings
    preset: str
    dataset: Dataset
    splits: dict[tuple[int, int], OneClassSplit]
    out: Path
    group: WorkerGroup = SINGLE


def plan(values: flags.FlagValues) -> Sweep:
    """Checks everything that can be checked before a file is written.

    Raises:
      ConfigError, DataError: says what is wrong and what is allowed.
    """
    # Cheap checks come before the data are read.
    out_folder(values, values.dataset)
    methods.parse(values.methods)
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
      values: parsed flags; it reads those of `define_training_flags`.
      data: where the data set came from.
      split: what is normal.
      dataset: the data.
      classes: the normal classes.
      require_test: whether the anomalies must be there already.

    Raises:
      ConfigError, DataError: says what is wrong and what is allowed.
    """
    chosen = methods.parse(values.methods)
    seeds = settings.seed_list(values.seeds)
    shape = tuple(dataset.x_train.shape[1:])
    base = settings.run_config(values, data.name, shape)
    shallow_config = shallow_settings.read_config(values, base, chosen)
    _check_dcae(values, base, chosen)
    run_configs = {
        name: method.config(base) for name, method in methods.deep().items() if name in chosen
    }
    of_methods = [(one, run_configs.get(one.name)) for one in methods.chosen(chosen)]
    methods.check_flags(values, chosen)
    unread.check_settings(settings.given(values), base, of_methods, values.save_models)
    for config in run_configs.values():
        check_network(config, shape)
        runs.check_radius(config)
        memory.check_memory(config, shape, values.runs_per_program or 1)
        initialization.check_start(config, shape)
    outliers = settings.load_outliers(values, dataset) if "outliers" in values else None
    has_labels = bool(split.labelled_ratio) or outliers is not None
    makes_anomalies = base.training.synthetic_anomalies is not None
    unread.check_label_flags(values, has_labels, has_labels or makes_anomalies)
    _check_labels(run_configs, split, chosen, outliers is not None)
    splits = make_splits(dataset, split, classes, seeds, require_test)
    if outliers is not None:
        dataset, splits = _with_outliers(dataset, splits, outliers, values.outliers)
    _check_batches(run_configs, splits)
    _check_devices(run_configs, values.data_devices)
    budget = values.memory_budget
    sweep_settings = SweepSettings(
        data=data,
        split=split,
        normal_classes=classes,
        seeds=seeds,
        methods=chosen,
        configs=run_configs,
        shallow=shallow_config,
        outliers=None if outliers is None else (Path(values.outliers).name, len(outliers)),
        runs_per_program=values.runs_per_program,
        data_devices=values.data_devices,
        memory_budget=None if budget is None else memory.parse_bytes(budget),
        evaluate_every=values.evaluate_every,
        save_models=values.save_models,
    )
    out = out_folder(values, dataset.name)
    return Sweep(sweep_settings, base.preset, dataset, splits, out)


def out_folder(values: flags.FlagValues, dataset: str) -> Path:
    """Returns the folder of a sweep, which is not written to yet.

    Raises:
      ConfigError, ResultsError: no sweep can be written there.
    """
    default = f"results/{dataset}-{values.preset}"
    folder = paths.folder_to_write("out", default if values.out is None else values.out)
    locks.check_usable(folder)
    return folder


def _check_dcae(values: flags.FlagValues, base: RunConfig, chosen: tuple[str, ...]) -> None:
    """Refuses settings of a phase that no chosen method has: a DCAE has only the autoencoder
    phase."""
    if base.pretraining is None or {methods.AUTOENCODER} != set(chosen) & set(methods.deep()):
        return
    for name in settings.given_in(values, "training."):
        raise ConfigError(f"--{name} is not of the autoencoder: dcae takes --pretrain_{name}")


def _check_labels(
    run_configs: dict[str, RunConfig],
    split: SplitConfig,
    chosen: tuple[str, ...],
    has_outliers: bool,
) -> None:
    """Refuses labels that a method would ignore, and objectives without the labels that they
    need."""
    if split.labelled_ratio or has_outliers:
        name = "labelled_ratio" if split.labelled_ratio else "outliers"
        for method in chosen:
            config = run_configs.get(method)
            if config is None or not config.training.objective.uses_labels:
                hint = "; give --objective=deep-sad" if method == "deep_svdd" else ""
                raise ConfigError(f"{name}: {method} does not learn from labels{hint}")
        return
    for config in run_configs.values():
        phase = config.training
        if phase.objective.needs_anomalies and phase.synthetic_anomalies is None:
            raise ConfigError(
                f"objective {phase.objective.kind} needs known anomalies: give --labelled_ratio, "
                "--outliers or --synthetic_anomalies"
            )


def _with_outliers(
    dataset: Dataset,
    splits: dict[tuple[int, int], OneClassSplit],
    outliers: npt.NDArray[Any],
    source: str,
) -> tuple[Dataset, dict[tuple[int, int], OneClassSplit]]:
    """Adds outliers to the images that runs share, and to the known anomalies of every run."""
    joined, added = datasets.add_outliers(dataset, outliers, source)
    return joined, {
        problem: split._replace(known_anomalies=np.concatenate([split.known_anomalies, added]))
        for problem, split in splits.items()
    }


def make_splits(
    dataset: Dataset,
    split: SplitConfig,
    classes: tuple[int, ...],
    seeds: tuple[int, ...],
    require_test: bool = True,
) -> dict[tuple[int, int], OneClassSplit]:
    """Returns the one-class problem of every class and seed."""
    # Only these settings draw images; without them a class has one split for all seeds.
    drawn = _draws(split)
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


def _draws(split: SplitConfig) -> bool:
    return bool(split.outlier_fraction or split.validation_fraction or split.labelled_ratio)


def check_network(config: RunConfig, shape: tuple[int, ...], has_masks: bool = False) -> None:
    """Refuses a network or a decoder that does not suit images of a shape, and masks where known
    anomalies cannot have any."""
    networks.check_image_shape(config.network, shape)
    training.check_images(config.training, shape, has_masks)
    if config.needs_decoder:
        import jax

        network = networks.build_network(config.network, shape)
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


def owners(sweep: Sweep) -> dict[RunName, int]:
    """Returns the wanted runs, each with the process that trains it."""
    owner = workers.owners(sweep.group.size, list(sweep.splits))
    deep_runs = [
        RunName(method, *problem) for method in sweep.settings.configs for problem in owner
    ]
    wanted = deep_runs + wanted_runs(sweep)
    return {name: owner[name.normal_class, name.seed] for name in wanted}


def wanted_runs(sweep: Sweep) -> list[RunName]:
    """Returns the runs of the baselines; a method that does not depend on a seed runs only for the
    first."""
    asked = sweep.settings
    drawn = _draws(asked.split)
    return [
        RunName(name, label, seed)
        for name, method in methods.shallow().items()
        if name in asked.methods
        for label in asked.normal_classes
        for seed in (asked.seeds if drawn or method.is_random(asked.shallow) else asked.seeds[:1])
    ]
