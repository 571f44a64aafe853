"""The tables command: what each table is, what it is said to cost, and its folder."""

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from absl import flags

from deepsvdd_jax import datasets, recipes
from deepsvdd_jax.cli.commands import reproduce
from deepsvdd_jax.cli.reporting import costs, tables
from deepsvdd_jax.cli.reporting.costs import PhaseCost, Speed
from deepsvdd_jax.cli.sweeps import plans, pools
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.cli.sweeps.workers import SINGLE
from deepsvdd_jax.configs import (
    DataConfig,
    NetworkConfig,
    ObjectiveConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.runs import Run
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

SIDES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "gtsrb": (32, 32, 3)}


def toy_dataset(config: DataConfig) -> Dataset:
    """Random images of a data set's shape: 24 a class for training, of 15 classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(24 * 15) % 15
    images = generator.integers(0, 256, (len(labels), *SIDES[config.name])).astype(np.uint8)
    names = tuple(f"class {label}" for label in range(15))
    return Dataset(config.name, images, labels, images[:90], labels[:90], names)


@pytest.fixture
def command(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    monkeypatch.setattr(datasets, "load", toy_dataset)
    with calling(reproduce) as call:
        yield call


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Replaces the measurement by a second a step, a thousandth an image; notes what was asked."""
    asked: list[RunConfig] = []

    def speeds(wanted: dict[RunConfig, np.ndarray]) -> dict[RunConfig, Speed]:
        asked.extend(wanted)
        assert all(images.dtype == np.uint8 for images in wanted.values())
        return {config: Speed(1.0, 1e-3) for config in wanted}

    monkeypatch.setattr(costs, "measure_speeds", speeds)
    return asked


def test_a_table_is_a_sweep_that_is_taken_up_again(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    part = ("--table=itu", "--methods=isolation_forest,ocsvm", "--seeds=2", f"--out={out}")
    assert command(*part) == 0
    printed = capsys.readouterr()
    assert "isolation forest: 100 trees" in printed.err and "99.3" in printed.out
    config = json.loads((out / "config.json").read_text())
    assert (config["table"], config["normal_classes"], config["seeds"]) == ("itu", [1], [0, 1])
    assert config["shallow"]["recipe"] == "itu" and config["device"]["processor"]
    with (out / "runs.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert command(*part) == 0
    assert "every run is there" in capsys.readouterr().err


def test_the_estimate_says_that_the_machine_was_busy(
    command: Call,
    measured: list[RunConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs.os, "cpu_count", lambda: 4)
    for load, said in ((3.2, "busy as the measuring began (load 3.2 on 4 cores)"), (0.4, "")):
        monkeypatch.setattr(costs.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        out = f"--out={tmp_path / 'out'}"
        assert command("--table=mnist", "--estimate_only", "--seeds=3", out) == 0
        printed = capsys.readouterr().out
        assert said in printed and ("busy" in printed) == bool(said)


def test_the_estimate_is_printed_and_nothing_written(
    command: Call,
    measured: list[RunConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert command("--table=mnist", "--estimate_only", "--seeds=3", f"--out={out}") == 0
    printed = capsys.readouterr().out
    # 15 toy classes x 3 seeds; 24 images are one step; 3 x 24 + 2 x 90 images are scored.
    scored = 0.252
    expected = {"autoencoder": 350, "deep_svdd": 250, "soft_boundary": 250}
    for name, epochs in expected.items():
        time = tables.duration(45 * (epochs + scored))
        assert re.search(rf"{name} +45 +{epochs} +{epochs} +{time}", printed), name
    total = 45 * (850 + 3 * scored)
    assert f"135 deep runs: {tables.duration(total)}" in printed
    assert f"{3600 * 135 / total:.3g} runs an hour" in printed
    assert "20 fits" in printed and "isolation forest" in printed and "kernel density" in printed
    assert not out.exists()
    # The autoencoder before Deep SVDD is the DCAE and is measured once; a step with a soft boundary
    # takes as long as one without.
    kinds = [config.training.objective.kind for config in measured]
    assert sorted(kinds) == ["one-class", "reconstruction"]


def planned(*arguments: str) -> plans.Sweep:
    values = flags.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["reproduce", *arguments])
    name, table = reproduce.chosen_table(values)
    with reproduce.flagsaver.as_parsed(**reproduce.missing_flags(values, name, table)):
        return reproduce.prepare(values, name, SINGLE).planned


def test_finished_runs_and_their_pretraining_are_not_counted(command: Call) -> None:
    asked = planned("--table=mnist", "--methods=dcae,deep_svdd", "--seeds=2", "--normal_classes=3")
    dcae, trained = (RunName(method, 3, 0) for method in ("dcae", "deep_svdd"))

    def counts(*there: RunName) -> dict[str, int]:
        found = costs.phases_to_go(asked, {name: {} for name in there})
        return {title: len(problems) for (title, _), problems in found.items()}

    assert counts() == {"autoencoder": 2, "deep_svdd": 2}
    assert counts(dcae) == {"autoencoder": 1, "deep_svdd": 2}
    assert counts(trained) == {"autoencoder": 1, "deep_svdd": 1}


def test_tables_are_the_published_ones(command: Call) -> None:
    mnist = planned("--table=mnist")
    assert (
        mnist.preset == "icml2018"
        and len(mnist.settings.seeds) == 10
        and len(mnist.settings.methods) == 6
    )
    assert mnist.settings.shallow.selection == "paper" and mnist.out == Path("results/mnist")
    assert mnist.settings.configs["deep_svdd"].training.epochs == 250
    # A part without a one-class SVM has nothing to select.
    assert planned("--table=mnist", "--methods=kde").settings.shallow.selection == "none"
    itu = planned("--table=itu")
    assert itu.settings.methods == (
        "deep_svdd",
        "ocsvm",
        "isolation_forest",
    ) and itu.settings.normal_classes == (1,)
    short = planned("--table=cifar10", "--shortened", "--epochs=3", "--milestones=2")
    assert short.out == Path("results/cifar10-shortened") and short.settings.normal_classes == (
        0,
        5,
        8,
    )
    config = short.settings.configs["deep_svdd"]
    assert config.training.epochs == 3 and config.pretraining is not None
    assert config.pretraining.epochs == 10 and len(short.settings.seeds) == 2


def test_the_adversarial_table_is_planned_too(
    command: Call, measured: list[RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("foolbox", reason="the Boundary Attack needs Foolbox")
    arguments = ("--table=gtsrb", "--estimate_only", "--methods=deep_svdd", "--seeds=4")
    assert command(*arguments, f"--out={tmp_path / 'out'}") == 0
    printed = capsys.readouterr().out
    assert re.search(r"autoencoder +4 +350", printed) and re.search(r"deep_svdd +4 +250", printed)
    assert not (tmp_path / "out").exists()


BAD_FLAGS = {
    "no table": ((), "allowed: mnist, cifar10, gtsrb, deep_sad, itu"),
    "table": (("--table=imagenet",), "mnist|cifar10|gtsrb|deep_sad|itu"),
    "not shortened": (("--table=itu", "--shortened"), "--shortened is for --table=cifar10"),
    "fixed": (("--table=mnist", "--dataset=digits"), "--dataset is fixed by --table=mnist"),
    "fixed class": (("--table=gtsrb", "--normal_classes=3"), "--normal_classes is fixed"),
    "class": (("--table=mnist", "--normal_classes=15"), "classes 0 to 14"),
    "deep_sad of what": (("--table=deep_sad",), "needs --dataset, one of mnist, fashion_mnist"),
    "deep_sad elsewhere": (("--table=deep_sad", "--dataset=digits"), "needs --dataset, one of"),
    "deep_sad's share": (
        ("--table=deep_sad", "--dataset=mnist", "--labelled_ratio=0.1"),
        "--labelled_ratio is fixed by --table=deep_sad",
    ),
    "shares": (
        ("--table=deep_sad", "--dataset=mnist", "--labelled_ratios=0,1"),
        "give shares in [0, 1)",
    ),
    "shares of another table": (("--table=mnist", "--labelled_ratios=0"), "for --table=deep_sad"),
    "known class": (
        ("--table=deep_sad", "--dataset=mnist", "--known_anomalous_classes=15"),
        "known_anomalous_classes is '15'",
    ),
    "no pair": (
        (
            *("--table=deep_sad", "--dataset=mnist", "--labelled_ratios=0.1"),
            *("--normal_classes=3", "--known_anomalous_classes=3"),
        ),
        "the one normal class",
    ),
    "no pair but without labels": (
        (
            *("--table=deep_sad", "--dataset=mnist", "--labelled_ratios=0,0.1"),
            *("--normal_classes=3", "--known_anomalous_classes=3"),
        ),
        "the one normal class",
    ),
    "seeds": (("--table=mnist", "--seeds=0"), "a count of 1 to 100000"),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_bad_flags_end_in_one_line(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, expected = BAD_FLAGS[case]
    assert command(*arguments, f"--out={tmp_path / 'out'}") == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def phases_of_digits() -> tuple[RunConfig, RunConfig]:
    """Returns an autoencoder and the one-class phase after it."""
    config = recipes.preset("auto", "digits", (8, 8, 1))
    training = dataclasses.replace(config.training, objective=ObjectiveConfig("reconstruction"))
    return dataclasses.replace(config, training=training), config


@pytest.mark.slow
def test_a_step_is_measured_and_an_image_scored_is_a_third_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    monkeypatch.setattr(costs, "MEASURING_SECONDS", 1e9)
    images = np.random.default_rng(0).random((100, 8, 8, 1), np.float32)
    wanted = dict.fromkeys(phases_of_digits(), images)
    found = costs.measure_speeds(wanted)
    # By that clock an epoch takes a second for one run on each of two devices: two steps of 64.
    step = 1 / (2 * 2)
    assert list(found.values()) == [pytest.approx(Speed(step, step / 64 / 3, True))] * 2


def test_what_would_take_too_long_to_compile_is_computed_from_the_operations_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    autoencoder, one_class = phases_of_digits()
    images = np.random.default_rng(0).random((100, 8, 8, 1), np.float32)
    measured: list[RunConfig] = []

    def measure(config: RunConfig, program: object) -> Speed:
        measured.append(config)
        return Speed(2.0, 0.01)

    monkeypatch.setattr(costs, "measure_speed", measure)
    monkeypatch.setattr(costs, "MEASURING_SECONDS", 0.0)
    found = costs.measure_speeds(dict.fromkeys((autoencoder, one_class), images))
    assert measured == [one_class] and found[one_class] == Speed(2.0, 0.01)
    # Its decoder costs about as much again as the encoder.
    factor = found[autoencoder].step / 2.0
    assert 1.5 < factor < 4
    assert found[autoencoder] == pytest.approx(Speed(2 * factor, 0.01 * factor, False))


def test_twice_the_operations_of_a_layer_are_counted() -> None:
    def operations(hidden: int) -> float:
        network = NetworkConfig("mlp", stages=(), hidden=(hidden,), rep_dim=2, batch_norm=False)
        config = RunConfig(network=network, training=PhaseConfig(batch_size=16))
        return costs.measured_program(config, np.ones((64, 100), np.float32)).operations()

    # Of a step 16 x (100 x hidden + hidden x 2) products forward and about as many, once for the
    # weights and once for the hidden layer, backward, for each of two devices or one.
    products = 2 * 16 * 102 * 2 + 2 * 16 * 2
    added = operations(512) - operations(256)
    assert added / 256 == pytest.approx(products, rel=0.5)
    assert operations(512) > 1.7 * operations(256)


def test_a_sum_is_hours_and_minutes() -> None:
    assert tables.duration(3 * 3600 + 7 * 60 + 29) == "3 h 07 min"
    assert tables.duration(150) == "2 min 30 s"
    assert tables.duration(59.2) == "59 s" and tables.duration(9.46) == "9.5 s"
    assert tables.duration(3599.7) == tables.duration(3629) == "1 h 00 min"
    cost = PhaseCost("deep_svdd", 3, 250, 1200.0)
    assert tables.duration(cost.runs * cost.seconds) == "1 h 00 min"


# --- the table of Deep SAD ----------------------------------------------------------------------

LABELLED = (
    *("--table=deep_sad", "--dataset=mnist", "--labelled_ratios=0,0.1", "--normal_classes=0,3"),
    *("--known_anomalous_classes=1,3", "--pretrain_epochs=0", "--epochs=1", "--milestones="),
    *("--batch_size=16", "--network=lenet", "--rep_dim=2"),
)


@pytest.mark.slow
def test_the_table_of_deep_sad_is_a_sweep_for_each_share_and_known_class(
    command: Call,
    measured: list[RunConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = []
    stack_jobs = pools.stack_jobs

    def noted(*arguments: Any) -> Run:
        run = stack_jobs(*arguments)
        shapes.append(run.data.indices.shape)
        return run

    monkeypatch.setattr(pools, "stack_jobs", noted)
    out = tmp_path / "out"
    assert command(*LABELLED, "--estimate_only", f"--out={out}") == 0
    # Of 24 images two steps of 16, and 3 x 24 + 2 x 90 of a thousandth: 2.25 s a run. Pairs: 2
    # without labels, (0, 1), (3, 1), (0, 3) with them.
    expected = tables.duration(2 * 2.252 + 3 * 2.252 / 0.9)
    printed = capsys.readouterr().out
    assert f"5 runs in 3 sweeps: {expected}" in printed and not out.exists()
    # A part, then all of it: what is there stays and is not trained again.
    assert command(*LABELLED, "--labelled_ratios=0.1", f"--out={out}") == 0
    assert command(*LABELLED, f"--out={out}") == 0
    printed = capsys.readouterr()
    assert "2 runs in 3 sweeps" in printed.err
    # The runs of all sweeps that are to go are in one program, on two devices, as wide as all that
    # are asked for.
    longest = 24 + round(24 / 9)
    assert shapes == [(4, longest), (6, longest)]
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert folders == ["labelled0", "labelled0.1-known1", "labelled0.1-known3"]
    pairs = rows_of(out / "pairs.csv")
    found = [
        (row["labelled_ratio"], row["known_anomalous_class"], row["normal_class"]) for row in pairs
    ]
    assert found == [
        *[("0.0", "", "0"), ("0.0", "", "3")],
        *[("0.1", "1", "0"), ("0.1", "1", "3"), ("0.1", "3", "0")],
    ]
    for folder, known in (("labelled0", None), ("labelled0.1-known3", [3])):
        config = json.loads((out / folder / "config.json").read_text())
        assert config["table"] == "deep_sad-mnist"
        assert config["split"]["known_anomalous_classes"] == known
    aurocs = [100 * float(row["auroc_mean"]) for row in pairs]
    lines = [line.split() for line in printed.out.splitlines()]
    without, labelled = lines[-2:]
    assert without[:3] == ["0", "2", "2"] and labelled[:3] == ["0.1", "3", "3"]
    assert without[-3:] == ["92.8", "±", "4.9"] and labelled[-3:] == ["96.9", "±", "2.3"]
    for line, values in ((without, aurocs[:2]), (labelled, aurocs[2:])):
        assert line[4:7] == [f"{np.mean(values):.2f}", "±", f"{np.std(values, ddof=1):.1f}"]
