"""A sweep that was stopped, killed or damaged, and taken up again."""

import csv
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from deepsvdd_jax import runs
from deepsvdd_jax.cli import exits, signals
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import checkpoints, deep, locks, records
from deepsvdd_jax.io import archives, atomic
from tests.helpers import folder_content, stop_at

Command = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Command]]

# Two programs of two runs; every chunk is one epoch, so that there is much to be stopped between.
ARGUMENTS = (
    *("--normal_classes=0,1", "--seeds=2", "--epochs=3", "--milestones=2", "--evaluate_every=1"),
    *("--pretrain_epochs=2", "--runs_per_program=2", "--save_models"),
)


@pytest.fixture(scope="module")
def command(calling: Calling) -> Iterator[Command]:
    with calling(sweep) as call:
        yield lambda out, *more: call(*ARGUMENTS, f"--out={out}", *more)


@pytest.fixture(scope="module")
def whole(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert command(out) == 0
    return folder_content(out)


# Two epochs of pretraining and three of training a program: the first chunk, the last of the
# pretraining, the middle and the end of the training, and the second program.
@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 8])
def test_a_stopped_sweep_ends_as_one_that_was_not(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chunk: int,
) -> None:
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e-6)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, chunk)
        assert command(out) == 1
    assert "stopped by SIGTERM; the same command goes on" in capsys.readouterr().err
    assert len(list((out / "under-way").glob("*.bin"))) == 1
    assert command(out) == 0
    assert "start anew" not in capsys.readouterr().err
    assert not (out / "under-way").exists()
    assert folder_content(out) == whole


@pytest.mark.slow
def test_a_damaged_program_under_way_starts_anew(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        assert command(out) == 1
    (path,) = (out / "under-way").glob("*.bin")
    path.write_bytes(path.read_bytes()[:-100])
    assert command(out) == 0
    message = capsys.readouterr().err
    assert f"{path}: damaged" in message and "start anew" in message
    assert folder_content(out) == whole


@pytest.mark.parametrize(
    "broken",
    [
        *({"epoch": float("inf")}, {"epoch": -4}, {"seconds": None}, {"seconds": float("inf")}),
        {"names": [[]]},
    ],
)
def test_a_program_under_way_with_senseless_numbers_is_damaged(
    broken: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "program.bin"
    header = {"names": [["deep_svdd", 1, 0]], "phase": "training", "epoch": 2, "seconds": 1.5}
    for values in (header, header | broken):
        text = json.dumps(values).encode()
        archives.write_archive(path, {"header": np.frombuffer(text, np.uint8)})
        saved = checkpoints.read_checkpoint(path)
        assert (saved is None) == (values != header)
    assert f"{path}: damaged" in capsys.readouterr().err


def test_runs_that_were_saved_without_a_sweep_are_of_the_one_whose_folder_it_is(
    tmp_path: Path,
) -> None:
    names = [["deep_svdd", 1, 0], ["deep_svdd", 1, 0, "other"]]
    header = {"names": names, "phase": "training", "epoch": 2, "seconds": 1.5}
    data = np.frombuffer(json.dumps(header).encode(), np.uint8)
    archives.write_archive(tmp_path / "program.bin", {"header": data})
    name = records.RunName("deep_svdd", 1, 0)
    for sweep_name in ("", "own"):
        saved = checkpoints.read_checkpoint(tmp_path / "program.bin", sweep_name)
        assert saved is not None
        own, other = saved.names
        assert own == records.QualifiedName(name, sweep_name)
        assert other == records.QualifiedName(name, "other") != own


@pytest.mark.slow
def test_damaged_results_run_again(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert command(out) == 0
    scores = out / "scores" / "deep_svdd-class0-seed1.npz"
    scores.write_bytes(scores.read_bytes()[:-1] + b"!")
    (out / "rows" / "deep_svdd-class1-seed0.json").write_text("{")
    (out / "history" / "deep_svdd-class1-seed1.csv").unlink()
    (out / "runs.csv").write_text("gone")
    capsys.readouterr()
    assert command(out) == 0
    message = capsys.readouterr().err
    assert "scores/deep_svdd-class0-seed1.npz has changed" in message
    assert "deep_svdd-class1-seed0 runs again" in message
    assert "history/deep_svdd-class1-seed1.csv is missing" in message
    assert "1 runs are there, 3 to go" in message
    assert folder_content(out) == whole


def test_a_folder_in_use_is_refused_and_left_alone(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with locks.locked(out):
        assert command(out) == 2
        message = capsys.readouterr().err
        assert "is in use by process" in message and message.count("\n") == 1
        assert not (out / "config.json").exists()
    with locks.locked(out):
        pass


@pytest.mark.slow
def test_a_streamed_sweep_is_taken_up_in_memory(
    command: Command, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        assert command(out, "--memory_budget=100KB") == 1
    assert list((out / "under-way").glob("*.bin"))
    assert command(out) == 0
    for name, stored in whole.items():
        if name.startswith("scores/"):
            assert isinstance(stored, bytes)
            with np.load(out / name) as ours, np.load(io.BytesIO(stored)) as theirs:
                np.testing.assert_allclose(ours["scores"], theirs["scores"], rtol=1e-4)


@pytest.mark.slow
def test_too_little_device_memory_halves_the_program(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    init = runs.Program.init
    widths = []

    def init_narrow(program: runs.Program) -> Any:
        width = len(program.runs.key)
        widths.append(width)
        if width > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return init(program)

    monkeypatch.setattr(runs.Program, "init", init_narrow)
    out = tmp_path / "out"
    assert command(out, "--runs_per_program=4") == 0
    assert "out of device memory with 4 runs in a program; 2 from here on" in (
        capsys.readouterr().err
    )
    # The autoencoders, then the runs that start from them, whose untrained networks are scored too.
    assert widths == [4, 2, 2, 4, 2, 2, 2, 2]
    ours = folder_content(out)
    del ours["config.json"]
    assert ours == {name: value for name, value in whole.items() if name != "config.json"}


@pytest.mark.slow
def test_a_program_that_would_not_fit_is_made_narrower_before_it_runs(
    calling: Calling,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on an accelerator: all runs in a program, as many times as the memory makes it."""
    widths = []
    advance = runs.Program.advance

    def watched(program: runs.Program, *parts: Any) -> Any:
        widths.append(len(program.runs.key))
        return advance(program, *parts)

    monkeypatch.setattr(runs.Program, "advance", watched)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(deep, "device_memory", lambda: 2**40)
    # Four of five runs fit: two programs of three waste less than one of four and one of one.
    monkeypatch.setattr(runs, "widest_program", lambda needed, pools, width, memory: min(width, 4))
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e3)
    arguments = ("--normal_classes=0", "--seeds=5", "--epochs=1", "--milestones=")
    with calling(sweep) as call:
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 0
        assert widths == [3, 3]
        error = capsys.readouterr().err
        assert "out of device memory with 5 runs in a program; 3 from here on" in error
        # Who asks for a width gets it.
        assert call(*arguments, f"--out={tmp_path / 'wide'}", "--runs_per_program=5") == 0
    assert widths == [3, 3, 5]


@pytest.mark.slow
def test_a_program_under_way_goes_on_in_its_width_though_a_wider_one_does_not_fit(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    advance = runs.Program.advance

    def watched(program: runs.Program, progress: runs.Progress, wanted: int) -> Any:
        epochs.append((len(program.runs.key), progress.epoch))
        return advance(program, progress, wanted)

    monkeypatch.setattr(runs.Program, "advance", watched)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(deep, "device_memory", lambda: 2**40)
    monkeypatch.setattr(runs, "widest_program", lambda needed, pools, width, memory: min(width, 2))
    arguments = ("--normal_classes=0", "--seeds=4", "--epochs=2", "--milestones=")
    with calling(sweep) as call:
        with monkeypatch.context() as patch:
            stop_at(patch, 1)
            assert call(*arguments, f"--out={tmp_path}") == 1
        assert call(*arguments, f"--out={tmp_path}") == 0
    assert epochs == [(2, 0), (2, 1), (2, 0), (2, 1)]


def test_not_even_one_run_a_device_is_one_line(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def exhaust(*_: object) -> int:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(runs.Program, "compile", exhaust)
    assert command(tmp_path / "out") == 1
    assert "lower --batch_size" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", no_space_for("deep_svdd-class1-seed0.npz"))
        assert command(out) == 1
    message = capsys.readouterr().err
    assert "deep_svdd-class1-seed0.npz: No space left on device" in message
    rows = records.read_rows(out)
    assert sorted(name.stem for name in rows) == [
        "deep_svdd-class0-seed0",
        "deep_svdd-class0-seed1",
    ]
    assert command(out) == 0
    assert folder_content(out) == whole


@pytest.mark.slow
def test_a_full_disk_leaves_the_program_as_it_was_saved_last(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e-6)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        assert command(out) == 1
        (path,) = (out / "under-way").glob("*.bin")
        before = path.read_bytes()
        patch.setattr(atomic, "write_bytes", no_space_for(path.name))
        # A stop saves at once; how fast the machine is does not matter.
        stop_at(patch, 1)
        assert command(out) == 1
    assert f"cannot write {path}: No space left on device" in capsys.readouterr().err
    assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", no_space_for("model.json"))
        assert command(out) == 1
    model = out / "models" / "deep_svdd-class0-seed0"
    message = capsys.readouterr().err
    assert f"cannot write model {model}: No space left on device" in message
    assert command(out) == 0
    assert "start anew" not in message + capsys.readouterr().err
    assert folder_content(out) == whole


def no_space_for(name: str) -> Callable[[Path, bytes], None]:
    write = atomic.write_bytes

    def write_others(path: Path, data: bytes) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write(path, data)

    return write_others


@pytest.mark.slow
def test_a_folder_that_vanishes_is_not_made_anew(
    command: Command,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e-6)
    out, away = tmp_path / "out", tmp_path / "away"
    write_run = records.write_run

    def vanish(*parts: object) -> None:
        write_run(*parts)  # type: ignore[arg-type]
        out.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_run", vanish)
        assert command(out) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith(f": cannot write {out}: it has vanished, or its config.json has")
    assert not out.exists()
    away.rename(out)
    assert command(out) == 0
    assert "1 runs are there, 3 to go" in capsys.readouterr().err
    assert folder_content(out) == whole


@pytest.mark.slow
def test_a_kill_between_the_last_row_and_the_table_is_made_good(
    command: Command, whole: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert command(out) == 0
    for name in ("runs.csv", "summary.csv"):
        (out / name).unlink()
    (out / "under-way").mkdir()
    (out / "under-way" / "deep_svdd-class1-seed0.bin").write_bytes(b"of a program that is over")
    assert command(out) == 0
    assert not (out / "under-way").exists()
    assert folder_content(out) == whole


def test_the_first_signal_is_a_wish_and_the_second_interrupt_an_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.stop_signals() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert capsys.readouterr().err == "SIGTERM: saving, then stopping\n"
        with pytest.raises(exits.Interrupted, match="SIGTERM"):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_full_passes_end_at_the_row_and_select_nothing(
    whole: dict[str, object],
) -> None:
    rows = whole["runs.csv"]
    assert isinstance(rows, list)
    for row in rows:
        stem = f"deep_svdd-class{row['normal_class']}-seed{row['seed']}"
        table = whole[f"history/{stem}.csv"]
        assert isinstance(table, bytes)
        history = list(csv.DictReader(io.StringIO(table.decode())))
        assert [line["phase"] for line in history] == ["pretraining"] * 2 + ["training"] * 3
        assert all(0 <= float(line["test_auroc"]) <= 1 for line in history)
        assert float(history[-1]["test_auroc"]) == pytest.approx(float(row["auroc"]), abs=1e-12)


def test_archives_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "archive.bin"
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "text": np.array(["x"])}
    archives.write_archive(path, arrays)
    read = archives.read_archive(path)
    assert read.keys() == arrays.keys()
    np.testing.assert_array_equal(read["a/b"], arrays["a/b"])
    data = path.read_bytes()
    for damaged in (b"", data[:20], data[:-1], b"X" + data[1:], data[:-5] + b"?" + data[-4:]):
        path.write_bytes(damaged)
        with pytest.raises(archives.ModelError, match="damaged"):
            archives.read_archive(path)
    assert checkpoints.read_checkpoint(path) is None
