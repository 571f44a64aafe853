"""fit goes on after a kill, to the bytes of a fit that was left alone."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deepsvdd_jax import detectors
from deepsvdd_jax.cli import exits
from deepsvdd_jax.cli.commands import fit
from deepsvdd_jax.cli.fitting import under_way
from deepsvdd_jax.detectors import Speed

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

ROOT = Path(__file__).parents[1]
QUICK = ("--false_alarm_rate=0.2", "--batch_size=16", "--objective=deep-sad")


@pytest.fixture
def table(tmp_path: Path) -> str:
    random = np.random.RandomState(0)
    x = np.concatenate([random.randn(60, 3), random.randn(10, 3) + 3])
    np.savez(tmp_path / "t.npz", x=x, y=np.repeat([0, 1], [60, 10]))
    return f"--data_dir={tmp_path / 't.npz'}"


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and bytes; the title of a model's card is the folder's name."""
    title = f"# {folder.name}\n".encode()
    return {path.name: path.read_bytes().replace(title, b"") for path in folder.iterdir()}


def stopping_after(monkeypatch: pytest.MonkeyPatch, task: int, calls: int) -> None:
    """Stops as a signal does after so many chunks of a task."""
    make = under_way.UnderWay.checkpoint
    seen: list[int] = []

    def stopping(self: under_way.UnderWay, number: int, total: int, stop: Any) -> Any:
        def check() -> None:
            seen.append(number)
            if seen.count(task) == calls:
                raise exits.Interrupted("SIGTERM")

        return make(self, number, total, check)

    monkeypatch.setattr(under_way.UnderWay, "checkpoint", stopping)


@pytest.mark.parametrize("task", [0, 1])
def test_a_fit_that_is_stopped_goes_on_to_the_same_bytes(
    calling: Calling,
    tmp_path: Path,
    table: str,
    task: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--dataset=npz", table, *QUICK, "--epochs=12", "--seeds=2")
    with calling(fit) as command:
        assert command(*given, f"--model={tmp_path / 'whole'}") == 0
        with monkeypatch.context() as patched:
            stopping_after(patched, task, 2)
            assert command(*given, f"--model={tmp_path / 'm'}") == 1
        assert "stopped by SIGTERM; the same command goes on" in capsys.readouterr().err
        left = files_of(tmp_path / "m")
        assert len(left) == task + 1 and all(name.startswith("under-way-") for name in left)
        assert command(*given, f"--model={tmp_path / 'm'}") == 0
    said = capsys.readouterr().err
    assert said.count("taken up after epoch") == task + 1
    # What was over is not trained again.
    assert task == 0 or "taken up after epoch 12 of the training" in said
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_what_another_fit_left_is_not_taken_up(
    calling: Calling,
    tmp_path: Path,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--dataset=npz", table, *QUICK, "--epochs=8", "--nocompare")
    with calling(fit) as command:
        with monkeypatch.context() as patched:
            stopping_after(patched, 0, 2)
            assert command(*given, f"--model={tmp_path / 'm'}", "--seeds=2") == 1
        capsys.readouterr()
        assert command(*given, f"--model={tmp_path / 'm'}", "--seeds=1") == 0
        said = capsys.readouterr().err
        assert "was left there; it is not taken up" in said and "taken up after" not in said
        assert command(*given, f"--model={tmp_path / 'alone'}", "--seeds=1") == 0
    assert files_of(tmp_path / "m") == files_of(tmp_path / "alone")
    assert sorted(name[:6] for name in files_of(tmp_path / "m")) == ["MODEL.", "arrays", "model."]


def test_another_value_is_another_fit(calling: Calling, tmp_path: Path, table: str) -> None:
    marks = []

    def note(planned: Any, groups: Any, more: Any) -> str:
        marks.append(fingerprint(planned, groups, more))
        raise exits.Failure("enough")

    fingerprint = under_way.fingerprint
    x = np.random.RandomState(1).randn(40, 3)
    with calling(fit) as command, pytest.MonkeyPatch.context() as patched:
        patched.setattr(under_way, "fingerprint", note)
        for change in (0.0, 0.0, 1e-9):
            x[3, 1] += change
            np.savez(tmp_path / "x.npz", x_train=x)
            data = ("--dataset=npz", f"--data_dir={tmp_path / 'x.npz'}")
            assert command(*data, f"--model={tmp_path / 'm'}", "--false_alarm_rate=0.2") == 1
    assert marks[0] == marks[1] != marks[2]


def test_a_budget_chooses_once(
    calling: Calling,
    tmp_path: Path,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--dataset=npz", table, "--false_alarm_rate=0.2", "--batch_size=16")
    given = (*given, f"--model={tmp_path / 'm'}", "--time_budget=10min")
    monkeypatch.setattr(detectors, "measure", lambda *a: Speed({"training": 6.0}, 0.0, 0.0))
    with calling(fit) as command:
        with monkeypatch.context() as patched:
            stopping_after(patched, 0, 1)
            assert command(*given) == 1
        chosen = capsys.readouterr().err
        assert "time_budget 10min: 2 members" in chosen
        # Asked again it would choose something else.
        monkeypatch.setattr(detectors, "measure", lambda *a: Speed({"training": 9.0}, 0.0, 0.0))
        assert command(*given) == 0
    again = capsys.readouterr()
    assert "taken up after epoch" in again.err and "time_budget" not in again.err
    assert "2 members" in again.out
    assert not [name for name in files_of(tmp_path / "m") if name.startswith("under-way")]


@pytest.mark.slow
def test_a_fit_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, table: str) -> None:
    def start(model: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.fit", "--dataset=npz", table),
                *("--false_alarm_rate=0.2", "--batch_size=16", "--epochs=3000", "--seeds=2"),
                *(f"--model={tmp_path / model}", "--compilation_cache="),
            ],
            cwd=ROOT,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    process = start("m")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "m").glob("under-way-*.bin")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "m" / "model.json").exists()
    others = [start("m"), start("whole")]
    said = [process.communicate(timeout=200)[1] for process in others]
    assert [process.returncode for process in others] == [0, 0], said
    assert "taken up after epoch" in said[0], said[0]
    assert "taken up" not in said[1]
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
