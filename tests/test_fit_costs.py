"""What fit says of its cost beforehand, and what it chooses within a time budget."""

import dataclasses
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import detectors, recipes
from deepsvdd_jax.cli.commands import fit
from deepsvdd_jax.cli.fitting import costs
from deepsvdd_jax.cli.fitting.samples import Defects, Samples
from deepsvdd_jax.cli.fitting.tasks import Plan, Task
from deepsvdd_jax.configs import ConfigError, DetectorConfig
from deepsvdd_jax.detectors import Speed
from deepsvdd_jax.io import models
from deepsvdd_jax.runs import initialization

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

SHAPE = (12, 12, 1)


def plan_of(count: int, seeds: int = 5, epochs: int = 50, twice: bool = False) -> Plan:
    """Images of which a fifth is held out, in batches of 64."""
    images = np.zeros((count, *SHAPE), np.uint8)
    samples = Samples(
        images=images,
        test_images=images[:0],
        test_kinds=(),
        normal="good",
        has_test_part=False,
        read_defects=lambda: Defects(images[:0], ()),
    )
    run = recipes.preset("auto", "folder", SHAPE)
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, epochs=epochs))
    task = Task("one-class", DetectorConfig(run, tuple(range(seeds)), 0.2), images[:0])
    return Plan(samples, task, task if twice else None, {})


def test_an_estimate_is_steps_times_epochs_and_the_passes_around_them() -> None:
    # 400 are trained on: 7 steps of 64.
    speed = Speed({"training": 0.5}, begin=3.0, compilation=20.0)
    alone = costs.estimate(plan_of(500), speed)
    assert alone == pytest.approx(50 * 7 * 0.5 + 2 * 3.0)
    # A second training has programs of its own.
    assert costs.estimate(plan_of(500, twice=True), speed) == pytest.approx(2 * alone + 20)


def test_half_anomalies_double_an_epoch() -> None:
    assert detectors.steps_of_epoch(64, 400, 10, balanced=True) == 13
    assert detectors.steps_of_epoch(64, 400, 10, balanced=False) == 7
    assert detectors.steps_of_epoch(64, 400, 0, balanced=True) == 7


def test_a_budget_takes_as_many_members_as_fit_and_then_fewer_epochs() -> None:
    # Measured with 4 members on 2 devices: a round is 0.25 s a step, 87.5 s of 50 epochs.
    speed = Speed({"training": 0.5}, begin=0.0, compilation=9.0)
    planned = plan_of(500, seeds=4)
    assert costs.choose(planned, speed, 600, None, None)[:2] == (5, 50)
    assert costs.choose(planned, speed, 200, None, None)[:2] == (4, 50)
    assert costs.choose(planned, speed, 120, None, None)[:2] == (2, 50)
    # 0.9 of 60 s, less 9 s of compilation, are 25 epochs of 1.75 s.
    assert costs.choose(planned, speed, 60, None, None)[:2] == (2, 25)
    assert costs.choose(planned, speed, 120, 3, None)[:2] == (3, 28)
    assert costs.choose(planned, speed, 120, None, 10)[:2] == (5, 10)
    with pytest.raises(ConfigError, match="time_budget: 9.0 s are left .* at least 11 s"):
        costs.choose(planned, speed, 10, None, None)


def test_the_learning_rate_falls_as_late_in_fewer_epochs() -> None:
    config = plan_of(10).main.config
    assert config.run.training.optimizer.milestones == (40,)
    chosen = costs.with_choice(config, costs.Choice(2, 20, 0.0), (0, 1))
    assert chosen.run.training.epochs == 20 and chosen.seeds == (0, 1)
    assert chosen.run.training.optimizer.milestones == (16,)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5min", 300), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert costs.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "min", "-3s", "0s", "5 m", "1e9h", "nans"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give 90s, 5min or 2h"):
        costs.parse_duration(text)


def test_large_images_have_fewer_members() -> None:
    assert [costs.default_members(s) for s in ((64, 64, 3), (128, 128, 1), (9,))] == [5, 2, 5]


@pytest.mark.slow
def test_a_measured_step_is_one_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.RandomState(0).randint(0, 255, (300, *SHAPE)).astype(np.uint8)
    config = plan_of(1, seeds=1, epochs=4).main.config
    traced: list[object] = []
    judged = detectors.deep_svdd.runs.run_epochs

    def count(*given: object) -> object:
        traced.append(given)
        return judged(*given)

    monkeypatch.setattr("deepsvdd_jax.runs.phases.run_epochs", count)
    speed = detectors.measure(config, images)
    assert set(speed.steps) == {"training"} and speed.steps["training"] > 0
    assert speed.compilation > speed.steps["training"]
    before = len(traced)
    detectors.fit_detector(config, images)
    # The training itself runs the program that was measured.
    assert len(traced) == before > 0


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for number in range(count):
        pixels = random.randint(0, 255, (12, 12)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


@pytest.mark.slow
def test_estimate_only_says_the_cost_and_writes_nothing(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "good", 30)
    with calling(fit) as command:
        given = (f"--data_dir={tmp_path / 'good'}", f"--model={tmp_path / 'm'}", "--estimate_only")
        assert command(*given, "--seeds=2", "--epochs=3") == 0
        said = capsys.readouterr().out
        assert "30 normal samples of 12 x 12 x 1; 2 members, 3 epochs each" in said
        assert f"from {tmp_path / 'good'}: the folder itself (30)" in said
        assert re.search(r"about [\d.]+ s to train, from .* s a step of training", said)
        assert [path.name for path in tmp_path.iterdir()] == ["good"]
        for more, words in (
            (("--seeds=2", "--epochs=3"), "both given; leave one out"),
            ((), "time_budget is '5'"),
        ):
            budget = "--time_budget=5min" if more else "--time_budget=5"
            assert command(*given, *more, budget) == 2
            assert words in capsys.readouterr().err


@pytest.mark.slow
def test_samples_are_prepared_and_a_dictionary_is_learned_once(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "good", 30)
    calls: list[str] = []

    def counted(module: ModuleType, name: str) -> None:
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or plain(*given))

    counted(detectors.deep_svdd.preprocessing, "fit")
    counted(initialization, "dictionary_kernel")
    with calling(fit) as command:
        given = (f"--data_dir={tmp_path / 'good'}", f"--model={tmp_path / 'm'}", "--seeds=2")
        more = ("--first_layer=dictionary", "--epochs=2", "--pretrain_epochs=1")
        assert command(*given, *more) == 0
    # A dictionary for each of the two members, for two phases that are measured and the training.
    assert sorted(calls) == ["dictionary_kernel", "dictionary_kernel", "fit"]
    learned = models.load_model(tmp_path / "m")
    assert learned.summary["epochs"] == [2, 2]


@pytest.mark.slow
def test_a_budget_decides_what_is_trained(
    calling: Calling,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "good", 30)
    # A step a minute of 5 members, in 3 rounds: 30 images are one step.
    slow = Speed({"training": 60.0}, 0.0, 0.0)
    monkeypatch.setattr(detectors, "measure", lambda *given: slow)
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    with calling(fit) as command:
        given = (f"--data_dir={tmp_path / 'good'}", f"--model={tmp_path / 'm'}")
        assert command(*given, "--time_budget=2min", "--batch_size=64") == 0
    # 0.9 * 120 s at 20 s a round.
    said = capsys.readouterr().err
    assert "time_budget 2min: 2 members, 5 epochs each" in said
    model = models.load_model(tmp_path / "m")
    assert len(model.center) == 2 and model.summary["epochs"] == [5, 5]
    assert model.config.training.optimizer.milestones == (4,)
