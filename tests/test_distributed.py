"""Sweeps that several real processes share, on this host: who trains what, and who dies."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import faults
from deepsvdd_jax.cli import files
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.exits import Failure, Interrupted
from deepsvdd_jax.cli.sweeps import config_file, locks, records, workers
from deepsvdd_jax.cli.sweeps.records import Record, RunName
from deepsvdd_jax.cli.sweeps.store import SweepStore, open_store
from deepsvdd_jax.cli.sweeps.workers import WorkerGroup

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags of a small sweep of a table: two classes, two seeds, two methods."""
    random = np.random.RandomState(0)
    labels = np.arange(60) % 2
    features = random.randn(60, 3).astype(np.float32) + labels[:, None]
    path = tmp_path_factory.mktemp("data") / "table.npz"
    np.savez(path, x_train=features, y_train=labels, x_test=features, y_test=labels)
    return (
        *("--dataset=npz", f"--data_dir={path}", "--seeds=2", "--methods=deep_svdd,ocsvm"),
        *("--epochs=3", "--milestones=2", "--hidden=4", "--rep_dim=2", "--platform=cpu"),
        f"--compilation_cache={tmp_path_factory.mktemp('cache')}",
    )


@pytest.fixture(scope="module")
def whole(
    arguments: tuple[str, ...], calling: Calling, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """What one process makes of the sweep, in this one."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with calling(sweep) as call:
        assert call(*arguments, f"--out={out}") == 0
    return content(out)


def content(out: Path) -> dict[str, object]:
    found = faults.content(out)
    # It names the devices, of which a process has its own.
    assert found.pop("config.json")
    return found


def free_port(first: int = 0, count: int = 1) -> int:
    """Returns a port of this host that is free, one of some if need be."""
    for port in range(first, first + count):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise AssertionError("no port is free")


def start(
    arguments: tuple[str, ...], *more: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *arguments, "--distributed", *more],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_team(arguments: tuple[str, ...], out: Path, size: int) -> list[subprocess.Popen[str]]:
    shared = (
        *(f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={size}"),
        *(f"--patience={PATIENCE}", f"--out={out}"),
    )
    return [start(arguments, *shared, f"--process_id={number}") for number in range(size)]


def ends(running: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Returns exit code, stdout and stderr of each process."""
    said = [process.communicate(timeout=300) for process in running]
    return [(process.returncode, *texts) for process, texts in zip(running, said, strict=True)]


def wait_for(path: Path, seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} has not come"
        time.sleep(0.01)


@pytest.mark.slow
def test_one_of_two_is_killed(
    arguments: tuple[str, ...], whole: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, second = start_team(arguments, out, 2)
    wait_for(out / ".owner-1-of-2")
    # Held up, not dead, until the first has seen it come; it would be waited for with all patience.
    second.send_signal(signal.SIGSTOP)
    try:
        wait_for(out / "rows" / "ocsvm-class0-seed0.json", 5 * PATIENCE)
    finally:
        second.send_signal(signal.SIGKILL)
        second.communicate()
    ((code, printed, said),) = ends([first])
    assert code == 1
    lost = ["deep_svdd-class1-seed0", "deep_svdd-class1-seed1", "ocsvm-class1-seed0"]
    error = said.splitlines()[-1]
    assert error.startswith("sweep: 3 runs of process 1 are missing: ") and "goes on" in error
    assert all(name in error for name in lost)
    # The survivor's own runs are there, in the tables too.
    rows = records.read_rows(out)
    assert {name.stem for name in rows} == {
        *("deep_svdd-class0-seed0", "deep_svdd-class0-seed1", "ocsvm-class0-seed0")
    }
    with (out / "runs.csv").open(newline="") as file:
        assert [row["normal_class"] for row in csv.DictReader(file)] == ["0", "0", "0"]
    assert "deep_svdd" in printed
    told = ends(start_team(arguments, out, 2))
    assert [code for code, *_ in told] == [0, 0]
    assert "3 runs are there, 0 to go" in told[0][2] and "3 to go" in told[1][2]
    assert told[0][1].splitlines()[-1].startswith("mean") and told[1][1] == ""
    assert content(out) == whole


@pytest.mark.slow
def test_the_first_of_two_is_killed(
    arguments: tuple[str, ...],
    whole: dict[str, object],
    calling: Calling,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    first, second = start_team(arguments, out, 2)
    wait_for(out / "config.json")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    ((code, printed, _),) = ends([second])
    assert (code, printed) == (0, "")
    assert {name.normal_class for name in records.read_rows(out)} >= {1}
    # One process alone goes on with what two have begun.
    with calling(sweep) as call:
        assert call(*arguments, f"--out={out}") == 0
    assert "runs are there" in capsys.readouterr().err
    assert content(out) == whole


@pytest.mark.slow
def test_four_find_each_other_through_the_cluster(
    arguments: tuple[str, ...], whole: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # jax derives SLURM's port from the number of the job.
    port = free_port(61500, 1000)
    job = {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "4",
    }
    running = [
        start(
            arguments,
            *(f"--patience={PATIENCE}", f"--out={out}"),
            environment=job | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
        )
        for number in range(4)
    ]
    told = ends(running)
    assert [code for code, *_ in told] == [0, 0, 0, 0]
    assert content(out) == whole


@pytest.mark.slow
def test_a_process_that_nobody_meets_says_so(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shared = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--process_id=1")
    lone = start(arguments, *shared, "--patience=1", f"--out={tmp_path / 'out'}")
    ((code, _, said),) = ends([lone])
    assert code == 1
    assert said.splitlines()[-1].startswith("sweep: not all processes came to 127.0.0.1:")
    assert not (tmp_path / "out").exists()


# --- without processes --------------------------------------------------------------------------


@pytest.fixture
def command(calling: Calling) -> Iterator[Callable[..., int]]:
    with calling(sweep) as call:
        yield call


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--coordinator=a:1",), "--coordinator is for several processes; give --distributed"),
        (("--process_id=0",), "--process_id is for several"),
        (("--distributed", "--coordinator=node0"), "coordinator is 'node0'; give HOST:PORT"),
        (
            ("--distributed", "--num_processes=2", "--process_id=2"),
            "process_id is 2; 2 processes have the numbers 0 to 1",
        ),
        (("--distributed", "--num_processes=0"), "num_processes"),
        (("--distributed",), "give --coordinator=HOST:PORT, --num_processes and --process_id"),
    ],
)
def test_flags_that_do_not_fit(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    expected: str,
) -> None:
    assert command(*flags, f"--out={tmp_path / 'out'}") == 2
    message = capsys.readouterr().err.removeprefix("waiting for the other processes\n")
    assert expected in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_run_has_one_owner_and_neighbours_stay_together(size: int) -> None:
    problems = [(label, seed) for label in range(3) for seed in range(2)]
    owner = workers.owners(size, problems)
    assert list(owner) == problems
    numbers = list(owner.values())
    assert numbers == sorted(numbers) and set(numbers) <= set(range(size))
    shares = [numbers.count(number) for number in range(size)]
    assert max(shares) - min(shares) <= 1


def test_a_folder_of_another_number_of_processes_is_in_use(tmp_path: Path) -> None:
    with locks.locked(tmp_path, 1, 2):
        assert locks.is_held(tmp_path, 1, 2) and not locks.is_held(tmp_path, 0, 2)
        with locks.locked(tmp_path, 0, 2):
            pass
        for others in ((0, 1), (2, 3)):
            with pytest.raises(files.ResultsError, match="in use by process"):
                locks.locked(tmp_path, *others).__enter__()
            assert not locks.is_held(tmp_path, *others)
    assert not locks.is_held(tmp_path, 1, 2)
    with locks.locked(tmp_path):
        pass


def test_collecting_ends_with_the_process_that_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file.take_up(tmp_path, {"seeds": [0]})
    there, lost = RunName("kde", 0, 0), RunName("kde", 1, 0)
    record = Record(dataset="toy", protocol="one-vs-rest", **there._asdict())
    records.write_run(tmp_path, {}, record, None, None)
    store = SweepStore(tmp_path, WorkerGroup(0, 2, timeout=0.1))
    store.collect({there: 1, lost: 1})
    assert list(store.rows) == [there]
    assert "process 1 ended before its runs did" in capsys.readouterr().err

    store.stop.note(signal.SIGTERM, None)
    with locks.locked(tmp_path, 1, 2), pytest.raises(Interrupted, match="SIGTERM"):
        store.collect({lost: 1})


def test_the_others_wait_for_the_first_to_open_the_folder(tmp_path: Path) -> None:
    group = WorkerGroup(1, 2, timeout=0.1)
    settings = {"seeds": [0], "shallow": 1}
    missing = "process 0 has not written .*config.json within 0.1 s"
    with pytest.raises(Failure, match=missing), open_store(tmp_path, settings, group):
        pass
    config_file.take_up(tmp_path, settings)
    before = (tmp_path / "config.json").read_bytes()
    with open_store(tmp_path, {**settings, "seeds": [1]}, group) as store:
        assert store.rows == {}
    differs = "shallow is 1 there, 2 here"
    with (
        pytest.raises(files.ResultsError, match=differs),
        open_store(tmp_path, {**settings, "shallow": 2}, group),
    ):
        pass
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_first_waits_for_the_other_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SweepStore(tmp_path, WorkerGroup(0, 3, timeout=0.1))
    with locks.locked(tmp_path, 1, 3):
        store.wait_for_workers([0, 1, 1])
        assert capsys.readouterr().err == ""
        store.wait_for_workers([0, 1, 2])
    assert "process 2 did not come within 0.1 s; going on without" in capsys.readouterr().err


def test_an_error_names_some_of_many_missing_runs() -> None:
    missing = {RunName("deep_svdd", label, 0): 1 + label % 2 for label in range(25)}
    line = workers.describe_missing(missing)
    assert line.startswith("25 runs of processes 1, 2 are missing: deep_svdd-class0-seed0, ")
    assert "class19-seed0 and 5 more;" in line and "class20" not in line and "\n" not in line
