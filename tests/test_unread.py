"""Every flag of a sweep does something for a method, or is refused by name."""

import csv
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import methods, plans
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.io.models import ModelError

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

DEEP = tuple(methods.deep())
METHODS = methods.names()

# How a sweep is carried out, where, and by whom; none of it may change a figure.
CARRIED_OUT_BY = {
    *("out", "platform", "compilation_cache", "runs_per_program", "data_devices"),
    *("memory_budget", "distributed", "coordinator", "num_processes", "process_id", "patience"),
}
# Whose data a sweep is of, and which recipe names its folder: of every method alike.
ABOUT_ALL = {
    *("dataset", "data_dir", "normal_classes", "protocol", "anomalous_classes", "seeds"),
    *("outlier_fraction", "validation_fraction", "prepare", "label_column", "ignore_columns"),
    *("id_column", "max_megapixels", "pixel_range", "methods", "preset", "config"),
    *("pollution_ratio", "labelled_ratio", "known_anomalous_classes", "outliers", "outlier_count"),
}

# Values that no recipe has; flags that are not here are given another of their choices, or the
# opposite of the preset's.
OTHER = {
    "nu": "0.25",
    "warm_up_epochs": "3",
    "radius_every": "2",
    "radius_rate": "3",
    "center_batches": "1",
    "center_floor": "0.01",
    "reconstruction_penalty": "0.5",
    "learning_rate": "0.02",
    "milestones": "7",
    "drop_factor": "0.3",
    "decay_after_epoch": "9",
    "momentum": "0.5",
    "rho": "0.5",
    "epochs": "31",
    "batch_size": "17",
    "weight_decay": "0.25",
    "weight_decay_factor": "3",
    "stop_below": "0.5",
    "rep_dim": "7",
    "kernel_size": "5",
    "hidden": "9",
    "leaky_slope": "0.3",
    "dropout": "0.25",
    "zca_epsilon": "0.5",
    "initial_model": "nowhere",
    "threshold_quantile": "0.5",
    "pretrain_epochs": "3",
    "network": "mnist_lenet",
    "optimizer": "sgd",
    "pretrain_optimizer": "sgd",
    "svm_nu": "0.3",
    "svm_gamma": "0.5",
    "kde_bandwidths": "0.5,1",
    "knn_neighbors": "3",
    "evaluate_every": "2",
    "image_size": "4,4",
    "channels": "3",
    "augment": "noise",
    "synthetic_anomalies": "mix",
    "eta": "3",
    "focus": "2",
    "map_share": "0.5",
    "map_loss_share": "0.25",
}


@pytest.fixture(scope="module")
def plan(calling: Calling) -> Iterator[Callable[..., plans.Sweep]]:
    read = functools.cache(datasets.LOADERS["digits"])
    with calling(sweep), mock.patch.dict(datasets.LOADERS, digits=read):

        def parse(*arguments: str) -> plans.Sweep:
            values = flags.FLAGS
            values.unparse_flags()
            for name in values:
                values[name].unparse()
            values(["sweep", "--normal_classes=0", "--seeds=1", *arguments])
            return plans.plan(values)

        yield parse


def values_of(name: str) -> list[str]:
    flag = flags.FLAGS[name]
    rest = name.removeprefix("pretrain_")
    if name in OTHER or rest in OTHER:
        return [f"--{name}={OTHER.get(name, OTHER.get(rest))}"]
    if isinstance(flag, flags.EnumFlag):
        return [f"--{name}={choice}" for choice in flag.parser.enum_values]
    return [f"--{name}", f"--no{name}"]


def planned(of: plans.Sweep, method: str) -> Any:
    """What a method's figures follow from."""
    settings = of.settings.configs.get(method)
    if settings is not None:
        return settings, of.settings.evaluate_every, of.settings.save_models
    shallow, one = of.settings.shallow, methods.shallow()[method]
    own = one.config(shallow), one.preprocessing(shallow)
    return own, shallow.recipe, shallow.pca, shallow.threshold_quantile


@pytest.mark.parametrize("method", METHODS)
def test_every_flag_changes_what_is_planned_or_is_refused_by_its_name(
    plan: Callable[..., plans.Sweep], method: str, tmp_path: Path
) -> None:
    out = f"--out={tmp_path / 'out'}"
    base = recipe = planned(plan(f"--methods={method}", out), method)
    defined_by = flags.FLAGS.find_module_defining_flag
    own = [
        name
        for name in flags.FLAGS
        if not str(defined_by(name)).startswith("absl")
        and name not in CARRIED_OUT_BY | ABOUT_ALL
        and not name.startswith("no")
    ]
    assert len(own) > 60
    idle = []
    for name in own:
        outcomes = []
        beside = ("--kernel_size=2",) if name == "padding" and method in DEEP else ()
        if beside:
            # Eight pixels are too few for 'valid' kernels of the recipe's size.
            base = planned(plan(f"--methods={method}", out, *beside), method)
        for argument in values_of(name):
            try:
                found = planned(plan(f"--methods={method}", out, *beside, argument), method)
            except ConfigError as error:
                outcomes.append(f"--{name}" in str(error) or name in str(error))
            except ModelError as error:
                outcomes.append("nowhere" in str(error))
            else:
                outcomes.append(found != base)
        if beside:
            base = recipe
        if not any(outcomes):
            idle.append(name)
    assert not idle


IDLE = [
    ("--methods=ocsvm", "--zca"),
    ("--methods=kde", "--contrast=l2"),
    ("--methods=isolation_forest", "--min_max"),
    ("--methods=ocsvm,kde", "--pretrain_epochs=3"),
    ("--methods=kde", "--network=mnist_lenet"),
    ("--methods=kde", "--epochs=3"),
    ("--methods=ocsvm", "--evaluate_every=2"),
    ("--methods=kde", "--svm_nu=0.3"),
    ("--methods=ocsvm", "--svm_gamma=2", "--selection=paper"),
    ("--methods=deep_svdd", "--kde_bandwidths=1"),
    ("--methods=deep_svdd", "--pca=always"),
    ("--methods=knn", "--save_models"),
    ("--methods=deep_svdd", "--nu=0.3"),
    ("--methods=deep_svdd", "--radius_rule=gradient"),
    ("--methods=deep_svdd", "--warm_up_epochs=3"),
    ("--methods=soft_boundary", "--radius_every=3"),
    ("--methods=soft_boundary", "--radius_rate=3"),
    ("--methods=soft_boundary", "--objective=one-class"),
    ("--methods=soft_boundary", "--warm_up_epochs=3", "--radius_rule=gradient"),
    ("--methods=dcae", "--center_rule=gradient"),
    ("--methods=dcae", "--stop_below=0.5"),
    ("--methods=deep_svdd", "--momentum=0.5"),
    ("--methods=deep_svdd", "--rho=0.5", "--optimizer=momentum"),
    ("--methods=deep_svdd", "--milestones=50"),
    ("--methods=deep_svdd", "--drop_factor=0.5", "--milestones="),
    ("--methods=deep_svdd", "--decay_after_epoch=49"),
    ("--methods=deep_svdd", "--weight_decay_factor=2", "--weight_decay=0"),
    ("--methods=deep_svdd", "--leaky_slope=0.3", "--activation=relu"),
    ("--methods=deep_svdd", "--affine", "--nobatch_norm"),
    ("--methods=deep_svdd", "--statistics_first", "--nobatch_norm"),
    ("--methods=deep_svdd", "--dropout_on=all"),
    ("--methods=deep_svdd", "--decoder=pytorch"),
    ("--methods=deep_svdd", "--reconstruction_error=cross-entropy"),
    ("--methods=deep_svdd", "--zca_epsilon=0.5"),
    ("--methods=deep_svdd", "--min_max", "--standardize"),
    ("--methods=deep_svdd", "--center_floor=0.3", "--center_init=constant"),
    ("--methods=deep_svdd", "--center_batches=3", "--center_init=constant"),
    ("--methods=deep_svdd", "--pretrain_momentum=0.5", "--pretrain_epochs=3"),
    ("--methods=deep_svdd", "--eta=3", "--objective=deep-sad"),
    ("--methods=deep_svdd", "--balanced_batches", "--objective=deep-sad"),
    (
        "--methods=deep_svdd",
        "--balanced_batches",
        "--objective=hsc",
        "--synthetic_anomalies=confetti",
    ),
    ("--methods=deep_svdd", "--image_size=4,4"),
    ("--methods=deep_svdd", "--channels=3"),
    ("--methods=deep_svdd", "--pixel_range=0,9"),
    ("--methods=deep_svdd", "--max_megapixels=9"),
    ("--methods=deep_svdd", "--prepare"),
    ("--methods=deep_svdd", "--data_dir=/nowhere"),
    ("--methods=deep_svdd", "--eta=2"),
]


@pytest.mark.parametrize("arguments", IDLE, ids=" ".join)
def test_a_flag_without_effect_is_named(
    plan: Callable[..., plans.Sweep], arguments: tuple[str, ...], tmp_path: Path
) -> None:
    method, idle, *others = arguments
    name = idle.split("=")[0]
    with pytest.raises(ConfigError, match=rf"{name} has no effect here: \w+"):
        plan(method, idle, *others, f"--out={tmp_path / 'out'}")
    if others:
        # What makes it idle is no fault by itself.
        plan(method, *[other for other in others if other != "--milestones="], f"--out={tmp_path}")


@pytest.mark.slow
def test_a_model_with_a_center_leaves_nothing_to_the_flags_of_a_new_one(
    plan: Callable[..., plans.Sweep],
    calling: Calling,
    tmp_path: Path,
) -> None:
    with calling(sweep) as call:
        short = ("--normal_classes=0", "--seeds=1", "--epochs=1", "--milestones=", "--save_models")
        assert call("--methods=deep_svdd,dcae", *short, f"--out={tmp_path / 'first'}") == 0
    models = tmp_path / "first" / "models"
    out = f"--out={tmp_path / 'out'}"
    begun = f"--initial_model={models / 'deep_svdd-class0-seed0'}"
    autoencoder = f"--initial_model={models / 'dcae-class0-seed0'}"
    for flag in ("--center_floor=0.3", "--center_batches=2", "--center_init=constant"):
        name = flag.split("=")[0]
        with pytest.raises(ConfigError, match=f"{name} has no effect here: initial_model brings"):
            plan("--methods=deep_svdd", begun, flag, out)
        # An autoencoder has no center, and what is pretrained in between gets a new one.
        plan("--methods=deep_svdd", autoencoder, flag, out)
        plan("--methods=deep_svdd", begun, "--pretrain_epochs=1", flag, out)


def test_the_data_set_itself_is_no_outlier(
    plan: Callable[..., plans.Sweep], tmp_path: Path
) -> None:
    arguments = ("--methods=deep_svdd", "--objective=hsc", "--outliers=digits")
    with pytest.raises(ConfigError, match="outliers digits: the data set itself"):
        plan(*arguments, f"--out={tmp_path / 'out'}")


READ = [
    ("--methods=deep_svdd,ocsvm", "--zca"),
    ("--methods=knn", "--contrast=l2"),
    ("--methods=deep_svdd,soft_boundary", "--warm_up_epochs=3"),
    ("--methods=deep_svdd", "--nu=0.3", "--save_models"),
    ("--methods=dcae", "--reconstruction_error=cross-entropy"),
    ("--methods=deep_svdd", "--objective=soft-boundary", "--nu=0.3"),
    ("--methods=soft_boundary", "--radius_rule=block-coordinate", "--radius_every=2"),
    ("--methods=ocsvm,kde,isolation_forest,knn", "--threshold_quantile=0.9"),
    ("--methods=deep_svdd", "--milestones=30,60"),
]


@pytest.mark.parametrize("arguments", READ, ids=" ".join)
def test_what_one_method_reads_is_taken(
    plan: Callable[..., plans.Sweep], arguments: tuple[str, ...], tmp_path: Path
) -> None:
    found = plan(*arguments, f"--out={tmp_path / 'out'}")
    if "dcae" in found.settings.configs:
        objective = found.settings.configs["dcae"].training.objective
        assert objective.reconstruction_error == "cross-entropy"


def test_the_threshold_of_a_baseline_is_the_quantile_that_was_asked_for(
    calling: Calling, tmp_path: Path
) -> None:
    with calling(sweep) as call:
        arguments = ("--methods=ocsvm", "--normal_classes=0", "--threshold_quantile=0.5")
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 0
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        threshold = float(next(csv.DictReader(file))["threshold"])
    with np.load(tmp_path / "out" / "scores" / "ocsvm-class0-seed0.npz") as stored:
        above = stored["train_distances"] > threshold
    assert above.mean() == pytest.approx(0.5, abs=0.02)
