"""The false-alarm command: what it counts, and what it calls a failure."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np
import pytest

from deepsvdd_jax import datasets, detectors, recipes
from deepsvdd_jax.cli.commands import false_alarms
from deepsvdd_jax.cli.commands.false_alarms import Count
from deepsvdd_jax.configs import DataConfig, DetectorConfig, replace_at
from deepsvdd_jax.scoring.calibration import AlarmInterval

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]


def detector_config(rate: float) -> DetectorConfig:
    run = recipes.preset("auto", "digits", (8, 8, 1))
    for path, value in {"training.epochs": 2, "training.optimizer.milestones": ()}.items():
        run = replace_at(run, path, value)
    return DetectorConfig(run, (0,), 0.25, "conformal", alarm_rate=rate)


@pytest.mark.slow
def test_what_is_put_aside_is_seen_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.load(DataConfig("digits"))
    given = []
    fit = detectors.fit_detector

    def note(config: DetectorConfig, images: np.ndarray) -> object:
        given.append(images)
        return fit(config, images)

    monkeypatch.setattr(detectors, "fit_detector", note)
    count = false_alarms.count_alarms(detector_config(0.2), dataset, 3)
    normals = dataset.x_train[dataset.y_train == 3]
    assert count.aside == round(0.2 * len(normals)) and len(given[0]) + count.aside == len(normals)
    rows = {image.tobytes() for image in normals}
    assert {image.tobytes() for image in given[0]} < rows
    assert count.calibration == round(0.25 * len(given[0]))
    assert count.test == (dataset.y_test == 3).sum()
    assert 0 <= count.alarms <= count.aside and 0 <= count.test_alarms <= count.test


def test_a_count_outside_its_interval_does_not_hold() -> None:
    count = Count(3, 100, aside=50, alarms=4, expected=AlarmInterval(0, 4), test=20, test_alarms=1)
    assert count.holds and not count._replace(alarms=5).holds
    assert re.search(r"3 +100 +50 +4 +0 to 4 +20 +1 +5.00", false_alarms.table([count]))


def test_the_command_fails_where_a_class_does_not_hold(
    calling: Calling, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(config: DetectorConfig, dataset: object, label: int) -> Count:
        return Count(label, 100, 50, 9 * (label == 8), AlarmInterval(0, 4), 20, 1)

    monkeypatch.setattr(false_alarms, "count_alarms", count)
    with calling(false_alarms) as command:
        assert command("--normal_classes=3") == 0
        assert "every class keeps 0.05" in capsys.readouterr().err
        assert command("--normal_classes=3,8") == 1
        assert "classes 8: alarms outside" in capsys.readouterr().err
        assert command("--normal_classes=10") == 2
        assert command("--false_alarm_rate=2") == 2
