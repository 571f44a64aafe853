"""Watching a folder: every image once, through restarts, damage and a vanished folder."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import deepsvdd_jax as svdd
from deepsvdd_jax import detectors
from deepsvdd_jax.cli import arrivals, score_log
from deepsvdd_jax.cli.commands import score, watch
from deepsvdd_jax.cli.score_log import open_log
from deepsvdd_jax.scoring import drift
from tests.helpers import rows_of

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]
SIDE = 8


def pixels(seed: int, bright: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    return (random.randint(0, 60, (SIDE, SIDE, 1)) + 90 + bright).astype(np.uint8)


def put(folder: Path, name: str, image: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(folder / name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = np.stack([pixels(seed) for seed in range(60)])
    detector = svdd.DeepSVDD(epochs=2, batch_size=16, preprocessing="none", false_alarm_rate=0.1)
    path = tmp_path_factory.mktemp("watched") / "model"
    svdd.save_model(path, detector.fit(images).model_)
    return path


def settings_of(model: Path, folder: Path) -> watch.Watch:
    loaded = svdd.load_model(model)
    return watch.Watch(loaded, loaded.threshold, folder, 0.01)


def test_a_file_is_scored_at_the_second_look_and_once(model: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "camera", settings_of(model, tmp_path / "camera")
    put(folder, "a.png", pixels(100))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.look(settings, log, watch.resume(settings, log.rows))
        assert log.rows == []
        put(folder / "sub", "b.png", pixels(101))
        seen = watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["a.png"]
        for _ in range(3):
            seen = watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["a.png", "sub/b.png"]
        images = np.stack([pixels(100), pixels(101)])
        scores = detectors.score_images(settings.model, images)
        np.testing.assert_array_equal([row.score for row in log.rows], scores)
        calibration = settings.model.calibration_scores
        np.testing.assert_allclose(
            [float(row.drift) for row in log.rows], drift.watch(calibration, scores), rtol=1e-5
        )


def test_a_damaged_file_is_named_passed_over_and_tried_again_when_it_changes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    put(settings.root, "good.png", pixels(1))
    put(settings.root, "wide.png", np.zeros((SIDE, SIDE + 1, 1), np.uint8))
    (settings.root / "bad.png").write_bytes(b"\x89PNG half a file")
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(4):
            seen = watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["good.png"]
        said = capsys.readouterr().err
        assert said.count("bad.png") == 1 and said.count("wide.png") == 1
        put(settings.root, "bad.png", pixels(2))
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["good.png", "bad.png"]


@pytest.mark.parametrize("pixel_range", [(100.0, 4095.0), None])
def test_images_of_more_than_eight_bits_have_the_scores_of_score(
    calling: Calling,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pixel_range: tuple[float, float] | None,
) -> None:
    loaded = svdd.load_model(model)
    data = {"pixel_range": pixel_range and list(pixel_range)}
    svdd.save_model(tmp_path / "m", loaded._replace(summary={**loaded.summary, "data": data}))
    settings = settings_of(tmp_path / "m", tmp_path / "camera")
    settings.root.mkdir()
    for seed in range(3):
        deep = np.random.RandomState(seed).randint(100, 4096, (SIDE, SIDE)).astype(np.uint16)
        Image.fromarray(deep).save(settings.root / f"{seed}.png")
    with open_log(tmp_path / "watched.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        found = {row.name: row.score for row in log.rows}
    told = "the upper 8 of 16" in capsys.readouterr().err
    assert told == (pixel_range is None)
    with calling(score) as command:
        arguments = (f"--model={tmp_path / 'm'}", f"--data_dir={settings.root}")
        assert command(*arguments, f"--out={tmp_path / 'scores.csv'}") == 0
    assert found == {row["name"]: float(row["score"]) for row in rows_of(tmp_path / "scores.csv")}
    assert len(found) == 3


def test_a_file_that_stays_empty_is_named_after_a_while(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    put(settings.root, "good.png", pixels(1))
    for name in ("new.png", "old.png"):
        (settings.root / name).touch()
    old = time.time() - 11
    os.utime(settings.root / "old.png", (old, old))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(3):
            seen = watch.look(settings, log, seen)
        said = capsys.readouterr().err
        assert said.count("old.png") == 1 and "new.png" not in said
        put(settings.root, "old.png", pixels(2))
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["good.png", "old.png"]


def test_masks_are_not_scored_and_told_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    for name in ("a.png", "a_mask.png", "masked.png"):
        put(settings.root, name, pixels(1))
    put(settings.root / "ground_truth" / "dent", "b.png", pixels(2))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(3):
            seen = watch.look(settings, log, seen)
        assert sorted(row.name for row in log.rows) == ["a.png", "masked.png"]
        # Its image may come later.
        put(settings.root, "c-mask.png", pixels(3))
        for _ in range(3):
            seen = watch.look(settings, log, seen)
        assert len(log.rows) == 2
    assert capsys.readouterr().err.splitlines() == [
        "a_mask.png and 1 more: masks by their names, not scored",
        "c-mask.png: masks by their names, not scored",
    ]


def test_a_folder_that_vanishes_is_waited_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    put(settings.root, "a.png", pixels(1))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        shutil.rmtree(settings.root)
        for _ in range(3):
            seen = watch.look(settings, log, seen)
        assert capsys.readouterr().err.count("is gone") == 1
        put(settings.root, "b.png", pixels(2))
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        assert "goes on" in capsys.readouterr().err
        assert [row.name for row in log.rows] == ["a.png", "b.png"]


def test_rows_that_cannot_be_written_are_tried_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    put(settings.root, "a.png", pixels(1))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.look(settings, log, watch.resume(settings, log.rows))

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(score_log.os, "write", full)
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        assert log.rows == [] and capsys.readouterr().err.count("No space left") == 1
        monkeypatch.undo()
        watch.look(settings, log, seen)
        assert [row.name for row in log.rows] == ["a.png"]
        calibration, scores = settings.model.calibration_scores, [log.rows[0].score]
        # A try that failed leaves no trace in the drift alarm.
        assert float(log.rows[0].drift) == pytest.approx(drift.watch(calibration, scores)[0], 1e-5)


def test_a_stream_of_other_images_raises_the_drift_alarm_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(model, tmp_path / "camera")
    for number in range(60):
        put(settings.root, f"{number:02d}.png", pixels(200 + number, bright=80))
    with open_log(tmp_path / "scores.csv") as log:
        seen = watch.resume(settings, log.rows)
        for _ in range(2):
            seen = watch.look(settings, log, seen)
        assert seen.drift is not None and drift.has_drifted(seen.drift)
    assert capsys.readouterr().err.count("drift: after") == 1


def test_another_rate_of_drift_alarms_is_kept_by_the_file(
    calling: Calling, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "camera", "a.png", pixels(1))
    quick = ("--poll_seconds=0.02", "--stop_after_idle=0.1")
    with calling(watch) as command:

        def call(out: str, *more: str) -> int:
            data = f"--data_dir={tmp_path / 'camera'}"
            return command(f"--model={model}", data, f"--out={tmp_path / out}", *quick, *more)

        assert call("often.csv", "--drift_false_alarm_rate=0.05") == 0
        assert call("usual.csv") == 0
        put(tmp_path / "camera", "b.png", pixels(2))
        assert call("often.csv", "--drift_false_alarm_rate=0.05") == 0
        assert [row["drift_alarm"] for row in rows_of(tmp_path / "often.csv")] == ["20", "20"]
        assert "drift_alarm" not in rows_of(tmp_path / "usual.csv")[0]
        capsys.readouterr()
        for out, rate, begun in (("often.csv", 0.01, 0.05), ("usual.csv", 0.2, 0.01)):
            assert call(out, f"--drift_false_alarm_rate={rate}") == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert f"begun with --drift_false_alarm_rate={begun}, and {rate} is asked for" in said


# Copies images as a camera does: each in two writes, one after the other.
_COPIER = """
import os, sys, time
source, target, first, last = sys.argv[1:]
for name in sorted(os.listdir(source))[int(first) : int(last)]:
    with open(os.path.join(source, name), "rb") as read:
        content = read.read()
    with open(os.path.join(target, name), "wb") as file:
        file.write(content[:60])
        file.flush()
        time.sleep(0.02)
        file.write(content[60:])
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_images_that_come_while_it_is_killed_twice_are_scored_once_each(
    model: Path, tmp_path: Path
) -> None:
    folder, source, out = tmp_path / "camera", tmp_path / "source", tmp_path / "scores.csv"
    folder.mkdir()
    arguments = [f"--model={model}", f"--data_dir={folder}", f"--out={out}", "--poll_seconds=0.05"]
    command = [sys.executable, "-m", "experiments.watch", "--compilation_cache=", *arguments]
    names = [f"{number:03d}.png" for number in range(200)]
    for number, name in enumerate(names):
        put(source, name, pixels(number))
    copiers = []
    for first, last, rows in ((0, 70, 20), (70, 140, 90), (140, 200, 200)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        assert b"Ctrl-C ends" in process.stderr.readline()
        given = [source, folder, str(first), str(last)]
        copiers.append(subprocess.Popen([sys.executable, "-c", _COPIER, *given]))
        _wait_for(lambda rows=rows: len(rows_of(out)) >= rows)  # type: ignore[misc]
        if rows < 200:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            # A kill in the middle of a write.
            with out.open("ab") as file:
                file.write(b"000.png,0.5")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and b"SIGTERM" in said and b"Traceback" not in said
    assert [copier.wait(60) for copier in copiers] == [0, 0, 0]
    scored = {row["name"]: float(row["score"]) for row in rows_of(out)}
    assert len(rows_of(out)) == 200 and sorted(scored) == names
    loaded = svdd.load_model(model)
    images = np.stack([pixels(number) for number in range(200)])
    np.testing.assert_array_equal(
        [scored[name] for name in names], detectors.score_images(loaded, images)
    )
    capital = drift.watch(loaded.calibration_scores, list(scored.values()))
    np.testing.assert_allclose([float(row["drift"]) for row in rows_of(out)], capital, rtol=1e-5)


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing came in two minutes"
        time.sleep(0.1)


def test_the_command_ends_when_nothing_comes(
    calling: Calling, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "camera", "a.png", pixels(1))
    os.mkfifo(tmp_path / "camera" / "pipe.png")
    arguments = [f"--model={model}", f"--data_dir={tmp_path / 'camera'}"]
    quick = ["--poll_seconds=0.05", "--stop_after_idle=0.5"]
    with calling(watch) as command:
        out = tmp_path / "scores.csv"
        assert command(*arguments, f"--out={out}", *quick, "--threshold=-1") == 0
        assert "1 images, 1 anomalous" in capsys.readouterr().out
        with open_log(out):
            assert command(*arguments, f"--out={out}", *quick) == 2
        assert "another command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--data_dir=nowhere",), "nowhere: not a folder"),
        (("--threshold=1", "--false_alarm_rate=0.1"), "give one"),
        (("--false_alarm_rate=2",), "--false_alarm_rate is 2.0; it must lie in (0, 1)"),
        (("--false_alarm_rate=0.001",), "needs at least 999 calibration scores"),
        (("--threshold=nan",), "finite"),
        (("--drift_false_alarm_rate=0",), "must lie in (0, 1)"),
    ],
)
def test_wrong_flags_are_one_line(
    calling: Calling,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    out = tmp_path / "scores.csv"
    with calling(watch) as command:
        common = (f"--model={model}", f"--data_dir={tmp_path}", f"--out={out}")
        assert command(*common, *arguments) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
    assert not out.exists()


def test_the_names_of_unreadable_files_do_not_count_as_scored() -> None:
    stamp = arrivals.Stamp(1, 1)
    changed = arrivals.Stamp(2, 2)
    done = {"scored": None, "bad": stamp, "mended": stamp}
    now = {"scored": changed, "bad": stamp, "mended": changed}
    assert watch._current(done, now) == {"scored": None, "bad": stamp}
