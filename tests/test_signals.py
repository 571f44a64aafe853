"""Signals that end a process: a command ends with a line, and leaves nothing half-written."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepsvdd_jax.io import atomic

ROOT = Path(__file__).parents[1]

# A command that waits, having said so.
WAITING = (
    "import sys, time\n"
    "from deepsvdd_jax.cli import process\n"
    "def main():\n"
    "    print('ready', flush=True)\n"
    "    time.sleep({seconds})\n"
    "    print('done')\n"
    "process.run_command(main)\n"
)


def started(*arguments: str, ignored: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=None if ignored is None else lambda: signal.signal(ignored, signal.SIG_IGN),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_says_so(number: signal.Signals) -> None:
    process = started("-c", WAITING.format(seconds=100))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.count("\n") == 1 and f"stopped by {number.name}" in said


def test_what_was_started_by_nohup_outlives_its_terminal() -> None:
    process = started("-c", WAITING.format(seconds=0.5), ignored=signal.SIGHUP)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60) == ("done\n", "")
    assert process.returncode == 0


def test_a_signal_is_not_lost_in_a_callback_of_the_garbage_collection() -> None:
    """Where jax has one, and Python discards what a handler raises."""
    script = (
        "import gc, os, signal, time\n"
        "from deepsvdd_jax.cli import process\n"
        "def callback(phase, info):\n"
        "    gc.callbacks.remove(callback)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.1)\n"
        "def main():\n"
        "    gc.callbacks.append(callback)\n"
        "    gc.collect()\n"
        "    print('went on')\n"
        "process.run_command(main)\n"
    )
    process = started("-c", script)
    printed, said = process.communicate(timeout=50)
    assert process.returncode == 1 and printed == ""
    assert "stopped by SIGTERM" in said


@pytest.mark.slow
def test_fit_ends_with_a_line_and_without_a_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    process = started(
        *("-m", "experiments.fit", "--dataset=digits", f"--model={model}", "--seeds=1"),
        *("--epochs=100000", "--milestones=9", "--compilation_cache=", "--false_alarm_rate=0.1"),
    )
    assert process.stderr is not None
    # The first line is of the data, and no platform was looked for in vain.
    assert "normal:" in process.stderr.readline()
    time.sleep(3.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "stopped by SIGTERM" in said.splitlines()[-1] and "Traceback" not in said
    # What was trained is kept for the same command, and is no model.
    left = list(model.iterdir()) if model.exists() else []
    assert all(path.name.startswith("under-way-") for path in left)


def test_a_sweep_saves_although_its_terminal_has_gone(tmp_path: Path) -> None:
    """Every line that it still prints would fail."""
    saved = tmp_path / "saved"
    script = (
        "import pathlib, sys, time\n"
        "from deepsvdd_jax.cli import exits, signals\n"
        "with signals.stop_signals() as stop:\n"
        "    print('ready', flush=True)\n"
        "    for _ in range(300):\n"
        "        time.sleep(0.1)\n"
        "        print('.', end='', file=sys.stderr, flush=True)\n"
        "        try:\n"
        "            stop.check()\n"
        "        except exits.Interrupted as reason:\n"
        f"            pathlib.Path({str(saved)!r}).write_text(str(reason))\n"
        "            break\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", script])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    os.waitpid(child, 0)
    assert saved.read_text() == "SIGHUP"


# --- drafts -------------------------------------------------------------------------------------


def killed_while_writing(path: Path) -> None:
    script = (
        "import os, pathlib, signal\n"
        "from deepsvdd_jax.io import atomic\n"
        f"atomic.draft_of(pathlib.Path({str(path)!r})).write_bytes(b'half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_drafts_of_the_killed_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    killed_while_writing(path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".scores.csv-")
    atomic.write_bytes(tmp_path / "other.csv", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["other.csv"]


def test_a_draft_that_is_a_folder_is_removed_with_all_in_it(tmp_path: Path) -> None:
    path = tmp_path / "maps"
    killed_while_writing(path)
    (left,) = tmp_path.iterdir()
    left.unlink()
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "a.npy").write_bytes(b"half")
    elsewhere = tmp_path / "kept"
    elsewhere.mkdir()
    link = left.with_name(left.name + "7")
    link.symlink_to(elsewhere)
    atomic.write_bytes(tmp_path / "other.csv", b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept", "other.csv"]


def test_drafts_of_the_living_and_of_other_hosts_stay(tmp_path: Path) -> None:
    ours = atomic.draft_of(tmp_path / "elsewhere" / "running.csv").name
    _, host, process, thread = ours.rsplit("-", 3)
    assert process == str(os.getpid())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    elsewhere = f"{int(host, 16) ^ 1:08x}"
    kept = [ours, f".a-{host}-{os.getppid()}-{thread}", f".a-{elsewhere}-{dead.pid}-{thread}"]
    kept += ["a-file", ".hidden-1-2", f"a-{host}-{dead.pid}-{thread}"]
    for name in (*kept, f".a-{host}-{dead.pid}-{thread}"):
        (tmp_path / name).touch()
    atomic.write_bytes(tmp_path / "scores.csv", b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, "scores.csv"])
