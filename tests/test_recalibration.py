"""fit --recalibrate: a saved model's threshold from new normals, nothing trained."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import detectors
from deepsvdd_jax.cli.commands import fit, score
from deepsvdd_jax.io import models

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

COLUMNS = ("a", "b", "c")


def write(path: Path, values: np.ndarray, columns: tuple[str, ...] = COLUMNS) -> str:
    np.savetxt(path, values, delimiter=",", header=",".join(columns), comments="", fmt="%.17g")
    return f"--data_dir={path}"


@pytest.fixture
def model(calling: Calling, tmp_path: Path) -> Path:
    data = write(tmp_path / "normal.csv", np.random.RandomState(0).randn(60, 3))
    path = tmp_path / "model"
    with calling(fit) as command:
        quick = ("--false_alarm_rate=0.2", "--epochs=2", "--seeds=2", "--batch_size=16")
        assert command("--dataset=csv", data, f"--model={path}", *quick) == 0
    return path


def test_new_normals_move_the_threshold_and_nothing_else(
    calling: Calling, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = models.load_model(model)
    new = 3 * np.random.RandomState(1).randn(50, 3)
    # Columns in another order are found by their names.
    data = write(tmp_path / "new.csv", new[:, [2, 0, 1]], ("c", "a", "b"))
    with calling(fit) as command:
        given = ("--dataset=csv", data, f"--model={model}", "--recalibrate")
        assert command(*given, "--false_alarm_rate=0.1") == 0
    after = models.load_model(model)
    scores = np.sort(detectors.score_images(before, new))
    np.testing.assert_array_equal(after.calibration_scores, scores)
    # ceil(51 * 0.9) = 46: the 46th smallest.
    assert after.threshold == scores[45]
    above = int((scores > before.threshold).sum())
    assert above > 10
    assert f"{above} of which were above the old one" in capsys.readouterr().out
    evidence = after.summary["recalibration"]
    assert evidence["samples"] == 50 and evidence["threshold_before"] == before.threshold
    assert evidence["above_the_threshold_before"] == above
    assert after.summary["alarm_rate"] == 0.1 and "train_alarms" not in after.summary
    for name in ("center", "train_means", "shift", "scale"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.config == before.config

    with calling(score) as command:
        out = tmp_path / "scores.csv"
        assert command(f"--model={model}", data, f"--out={out}") == 0
    alarms = [line.rsplit(",", 1)[1] for line in out.read_text().splitlines()[1:]]
    assert alarms.count("1") == 50 - 46


@pytest.mark.slow
def test_images_are_read_as_the_models_were(calling: Calling, tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    for name, count, shape in (("old", 20, (12, 12)), ("new", 9, (30, 25, 3))):
        (tmp_path / name / "good").mkdir(parents=True)
        for number in range(count):
            pixels = random.randint(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / "good" / f"{number}.png")
    (tmp_path / "new" / "crack").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "new" / "crack" / "0.png")
    path = f"--model={tmp_path / 'model'}"
    quick = ("--epochs=1", "--seeds=1", "--false_alarm_rate=0.25", "--image_size=8,8")
    with calling(fit) as command:
        assert command(f"--data_dir={tmp_path / 'old'}", path, "--channels=1", *quick) == 0
        assert command(f"--data_dir={tmp_path / 'new'}", path, "--recalibrate") == 0
    new = models.load_model(tmp_path / "model")
    with calling(score) as command:
        out = tmp_path / "scores.csv"
        assert command(path, f"--data_dir={tmp_path / 'new' / 'good'}", f"--out={out}") == 0
    scores = [float(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    np.testing.assert_array_equal(np.float32(sorted(scores)), new.calibration_scores)


def test_without_a_rate_the_models_own_is_kept_or_the_lowest_that_can_be(
    calling: Calling, model: Path, tmp_path: Path
) -> None:
    random = np.random.RandomState(2)
    with calling(fit) as command:
        for count, rate in ((30, 0.2), (3, 0.25)):
            data = write(tmp_path / "new.csv", random.randn(count, 3))
            given = ("--dataset=csv", data, f"--model={model}", "--recalibrate")
            assert command(*given) == 0
            assert models.load_model(model).summary["alarm_rate"] == rate


def test_what_cannot_be_is_refused_and_the_model_stays(
    calling: Calling, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.RandomState(2)
    good = write(tmp_path / "new.csv", random.randn(30, 3))
    other = write(tmp_path / "other.csv", random.randn(30, 2), ("a", "b"))
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with calling(fit) as command:
        given = ("--dataset=csv", "--recalibrate")
        for arguments, words in (
            ((good, f"--model={model}", "--false_alarm_rate=0.01"), "needs at least 99"),
            ((good, f"--model={model}", "--epochs=3"), "--epochs has no effect here"),
            ((good, f"--model={model}", "--time_budget=1h"), "--time_budget has no effect here"),
            ((other, f"--model={model}"), "the column 'c' is missing"),
            ((good, f"--model={tmp_path / 'none'}"), "model.json"),
        ):
            capsys.readouterr()
            assert command(*given, *arguments) == 2
            lines = capsys.readouterr().err.splitlines()
            assert words in lines[-1] and "Traceback" not in "".join(lines)
            assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert not (tmp_path / "none").exists()


def test_a_model_that_cannot_be_written_stays_whole(
    calling: Calling, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new arrays are written, then the disk is full."""
    before = json.loads((model / "model.json").read_text())
    data = write(tmp_path / "new.csv", np.random.RandomState(2).randn(30, 3))
    write_bytes = models.atomic.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.name == "model.json":
            raise OSError(28, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr(models.atomic, "write_bytes", full)
    with calling(fit) as command:
        assert command("--dataset=csv", data, f"--model={model}", "--recalibrate") == 2
    assert json.loads((model / "model.json").read_text()) == before
    assert models.load_model(model).threshold == before["threshold"]
