"""Kills a sweep at random moments, resumes it and compares every output byte by byte.

    python -m benchmarks.faults                                  # the embedded digits
    python -m benchmarks.faults --kills=20 --dataset=mnist --data_dir=DIR
    python -m benchmarks.faults --kills=20 --processes=2         # one or both of two are killed

One sweep runs to its end. Then, `--kills` times, the same sweep is started in a new folder, killed
with SIGKILL after a time drawn uniformly from the length of the whole, and called again until it
ends; its files must equal those of the whole one but for `train_seconds`. Exit code 1 if one does
not. A sweep that finished before its moment does not count. If several processes share the sweep,
some of them, also drawn, are killed; the others end by themselves before the sweep is called again.
"""

import contextlib
import csv
import io
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from tqdm import tqdm

SWEEP = (
    *("--normal_classes=3;8", "--seeds=2", "--preset=icml2018", "--network=mnist_lenet"),
    *("--pretrain_epochs=3", "--epochs=6", "--milestones=4", "--pretrain_milestones=2"),
)

# Seconds that a process waits for another that was killed before it showed up.
PATIENCE = 60


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_integer("kills", 20, "How many sweeps to kill.", lower_bound=1)
    flags.DEFINE_integer("processes", 1, "How many share a sweep.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_string("dataset", "digits", "Data set of the sweep.")
    flags.DEFINE_string("data_dir", None, "Where it is.")
    flags.DEFINE_list("sweep", list(SWEEP), "Flags of the sweep, a semicolon for a comma.")


def commands(out: Path) -> list[list[str]]:
    """Returns the command line of each process of a sweep; its time for saving is measured."""
    values = flags.FLAGS
    data = [f"--data_dir={values.data_dir}"] if values.data_dir else []
    given = [text.replace(";", ",") for text in values.sweep]
    arguments = [f"--dataset={values.dataset}", *data, *given, "--save_models", f"--out={out}"]
    start = [sys.executable, "-m", "benchmarks.saving", *arguments]
    if values.processes == 1:
        return [start]
    shared = [
        *("--distributed", f"--patience={PATIENCE}", f"--num_processes={values.processes}"),
        f"--coordinator=127.0.0.1:{_free_port()}",
    ]
    return [[*start, *shared, f"--process_id={place}"] for place in range(values.processes)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run_whole(out: Path) -> tuple[float, list[str]]:
    """Runs a sweep to its end; returns its seconds and each process's line on saving."""
    started = time.monotonic()
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    # Otherwise the last line of a crash is jax's remark on hidden frames.
    plain = os.environ | {"JAX_TRACEBACK_FILTERING": "off"}
    running = [subprocess.Popen(line, env=plain, **pipes) for line in commands(out)]
    said = [process.communicate()[1].strip().splitlines() for process in running]
    seconds = time.monotonic() - started
    for process, lines in zip(running, said, strict=True):
        if process.returncode:
            sys.exit(f"benchmarks.faults: the sweep failed: {lines[-1] if lines else 'silently'}")
    return seconds, [line for lines in said for line in lines if line.startswith("saving: ")]


def run_killed(out: Path, after: float, victims: Sequence[int]) -> bool:
    """Starts a sweep, kills some of its processes and lets the others end.

    Returns:
      Whether one of the victims was still running.
    """
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    until = time.monotonic() + after
    running = [subprocess.Popen(line, **silent) for line in commands(out)]
    for victim in victims:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[victim].wait(max(0.0, until - time.monotonic()))
    alive = [running[victim] for victim in victims if running[victim].poll() is None]
    for process in alive:
        process.send_signal(signal.SIGKILL)
    for process in running:
        process.wait()
    return bool(alive)


def draw_victims(draws: random.Random, processes: int) -> list[int]:
    """Returns which processes to kill: any one, or any more, each choice as likely."""
    choices = [
        [place for place in range(processes) if chosen >> place & 1]
        for chosen in range(1, 2**processes)
    ]
    return draws.choice(choices)


def content(out: Path) -> dict[str, object]:
    """Returns every file of a sweep's folder, without the time that runs took."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or path.name.startswith("."):
            continue
        if name == "runs.csv":
            rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            found[name] = [{**row, "train_seconds": ""} for row in rows]
        elif path.suffix == ".json":
            lines = path.read_text(encoding="utf-8").splitlines()
            found[name] = [line for line in lines if "train_seconds" not in line]
        else:
            found[name] = path.read_bytes()
    return found


def differences(whole: dict[str, object], other: dict[str, object]) -> list[str]:
    """Returns the names of files that differ or that one side lacks."""
    return [name for name in sorted(whole | other) if whole.get(name) != other.get(name)]


def describe(number: int, moment: float, victims: Sequence[int], found: Sequence[str]) -> str:
    """Returns a line on one killed sweep: who was killed when, and which files differ."""
    who = f"killed {', '.join(map(str, victims))} after" if victims else "over before"
    return f"sweep {number}: {who} {moment:.1f} s; {', '.join(found[:5]) or 'nothing'} differs"


def kill_and_compare(folder: Path, whole: dict[str, object], seconds: float) -> int:
    """Kills `--kills` sweeps of about so many seconds midway, and returns how many of the sweeps
    that it started differ in the end from the whole one."""
    values = flags.FLAGS
    draws, numbers, unequal = random.Random(values.seed), itertools.count(), 0
    with tqdm(total=values.kills, unit=" sweep") as bar:
        while bar.n < bar.total:
            number, out = next(numbers), folder / "killed"
            moment, victims = draws.uniform(0.0, seconds), draw_victims(draws, values.processes)
            killed = run_killed(out, moment, victims)
            run_whole(out)
            found = differences(whole, content(out))
            unequal += bool(found)
            print(describe(number, moment, victims if killed else [], found), flush=True)
            shutil.rmtree(out)
            bar.update(killed)
            # The machine has become faster: later sweeps would finish too early as well.
            seconds = seconds if killed else moment
    return unequal


def main(arguments: list[str]) -> None:
    """Kills, resumes, compares, reports."""
    if arguments[1:]:
        sys.exit(f"benchmarks.faults: {arguments[1]!r} is no flag")
    values = flags.FLAGS
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        # The first sweep fills the cache of compiled programs, so that the second has their length.
        run_whole(folder / "cold")
        seconds, savings = run_whole(folder / "whole")
        whole = content(folder / "whole")
        print(f"whole sweep: {seconds:.1f} s, {len(whole)} files")
        print("\n".join(savings))
        unequal = kill_and_compare(folder, whole, seconds)
        print(f"{values.kills} killed midway, of all {unequal} not equal to the last byte")
        if unequal:
            sys.exit(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
