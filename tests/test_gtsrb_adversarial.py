"""The adversarial command on toy signs, whose class is the quarter that is bright."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.adversarial import arrays, attack, configs, stop_signs
from deepsvdd_jax.cli.commands import gtsrb_adversarial, report
from deepsvdd_jax.cli.reporting import finished
from deepsvdd_jax.datasets import Dataset
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

STOP = configs.STOP_CLASS
SHORT = (
    *("--methods=deep_svdd,isolation_forest", "--seeds=2", "--epochs=1", "--milestones="),
    *("--pretrain_epochs=1", "--pretrain_milestones=", "--classifier_epochs=3"),
    *("--adversarials=3", "--steps=20"),
)


def toy_signs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.array([STOP, 0, 1])[np.arange(count) % 3]
    images = generator.integers(0, 90, (count, 32, 32, 3))
    for image, place in zip(images, np.arange(count) % 3, strict=True):
        row, column = divmod(int(place), 2)
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 120
    return images.astype(np.uint8), labels


def toy_dataset() -> Dataset:
    names = tuple(f"sign {label}" for label in range(43))
    return Dataset("gtsrb", *toy_signs(120, 0), *toy_signs(45, 1), names)


@pytest.fixture
def command(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    monkeypatch.setattr(datasets, "load", lambda config: toy_dataset())
    with calling(gtsrb_adversarial) as call:
        yield call


def test_one_command_attacks_scores_and_goes_on(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("foolbox", reason="the Boundary Attack needs Foolbox")
    out = tmp_path / "out"
    assert command(*SHORT, f"--out={out}") == 0
    printed = capsys.readouterr()
    assert "3 adversarial stop signs" in printed.err and "(80.3)" in printed.out
    found = arrays.load_adversarials(out / "adversarials")
    assert found.success.all() and len(found.images) == 3
    assert (out / "adversarials" / arrays.PICTURE_NAME).stat().st_size > 1000
    rows = rows_of(out / "runs.csv")
    assert {(row["dataset"], row["normal_class"]) for row in rows} == {("gtsrb_adversarial", "14")}
    scores = np.load(out / "scores" / "deep_svdd-class14-seed1.npz")
    # 15 stop signs of the test set, then the adversarials.
    assert scores["labels"].tolist() == [0] * 15 + [1] * 3
    config = json.loads((out / "config.json").read_text())
    assert config["attack"]["steps"] == 20 and config["attack"]["start"] == "noise"

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert command(*SHORT, f"--out={out}") == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert command(*SHORT, "--start=images", f"--out={out}") == 2
    assert 'attack.start is "noise" there, "images" here' in capsys.readouterr().err


def test_the_report_shows_the_adversarials(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    signs, out = toy_dataset(), tmp_path / "out"
    stops = signs.x_test[signs.y_test == STOP][:3]
    images = np.random.default_rng(5).integers(0, 256, stops.shape, np.uint8)
    made = attack.Adversarials(
        images=images,
        originals=stops,
        original_indices=np.arange(3),
        distances_l2=np.ones(3),
        predicted=np.zeros(3, np.int64),
        success=np.ones(3, bool),
    )
    monkeypatch.setattr(datasets, "load", lambda config: signs)
    monkeypatch.setattr(attack, "import_foolbox", lambda: None)
    monkeypatch.setattr(gtsrb_adversarial, "make_adversarials", lambda *given: made)
    with calling(gtsrb_adversarial) as call:
        assert call("--methods=isolation_forest", "--seeds=1", f"--out={out}") == 0
    sweep = finished.read_sweep(out, None, None)
    assert sweep.data is not None and sweep.title(STOP) == "14: sign 14"
    np.testing.assert_array_equal(sweep.data.x_test[-3:], images)
    with calling(report) as call:
        assert call(f"--out={out}") == 0
    page = (out / "report.html").read_text()
    assert "Anomaly detection on gtsrb_adversarial" in page and "most anomalous" in page
    # Noise among stop signs: the forest puts it first.
    stored = np.load(out / "scores" / "isolation_forest-class14-seed0.npz")
    assert set(np.argsort(stored["scores"])[-3:]) == {15, 16, 17}
    assert (
        out / "report" / "most-anomalous-isolation_forest-class14-seed0.png"
    ).stat().st_size > 1000

    (out / "adversarials" / arrays.ARRAYS_NAME).write_bytes(b"broken")
    with calling(report) as call:
        assert call(f"--out={out}") == 0
    assert "no adversarial examples can be read" in (out / "report.html").read_text()


def test_missing_foolbox_is_told_before_any_work(
    command: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    assert command(*SHORT, f"--out={tmp_path / 'out'}") == 2
    message = capsys.readouterr().err
    assert "pip install 'deepsvdd_jax[adversarial]'" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_settings_of_the_attack_are_one_line(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, expected in (("--steps=0", "steps is 0"), ("--adversarials=-1", "count is -1")):
        assert command(flag, f"--out={tmp_path / 'out'}") == 2
        message = capsys.readouterr().err
        assert expected in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_problem_is_the_papers() -> None:
    signs = toy_dataset()
    images = np.full((2, 32, 32, 3), 7, np.uint8)
    found = attack.Adversarials(images, images, *(np.zeros(2) for _ in range(4)))
    problem = stop_signs.stop_problem(signs, found)
    np.testing.assert_array_equal(problem.x_train, signs.x_train[signs.y_train == STOP])
    np.testing.assert_array_equal(problem.x_test[-2:], images)
    np.testing.assert_array_equal(problem.x_test[:-2], signs.x_test[signs.y_test == STOP])
    split = datasets.one_class_split(problem, STOP)
    assert split.test_labels.tolist() == [0] * 15 + [1] * 2 and len(split.train_indices) == 40


def test_noise_and_images_to_start_from() -> None:
    signs = toy_dataset()
    noise = gtsrb_adversarial.starting_images(signs, "noise", seed=3)
    assert noise.dtype == np.uint8 and noise.shape[1:] == (32, 32, 3)
    assert 120 < noise.mean() < 135 and noise.std() > 70
    others = gtsrb_adversarial.starting_images(signs, "images", seed=3)
    assert len(others) == (signs.y_train != STOP).sum()
