"""Kills a sweep at random moments, takes it up again and compares every output byte by byte.

    python -m benchmarks.faults                                  # the embedded digits
    python -m benchmarks.faults --kills=20 --dataset=mnist --data_dir=DIR

One sweep runs to its end. Then, `--kills` times, the same sweep is started in a new folder, killed
with SIGKILL after a time drawn uniformly from the length of the whole, and called again until it
ends; what it leaves must equal the whole one's in every file but for `train_seconds`. Exit code 1
if one does not.
"""

import csv
import io
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags
from tqdm import tqdm

SWEEP = (
    *("--normal_classes=3;8", "--seeds=2", "--preset=icml2018", "--network=mnist_lenet"),
    *("--pretrain_epochs=3", "--epochs=6", "--milestones=4", "--pretrain_milestones=2"),
)


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_integer("kills", 20, "How many sweeps to kill.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_string("dataset", "digits", "Data set of the sweep.")
    flags.DEFINE_string("data_dir", None, "Where it is.")
    flags.DEFINE_list("sweep", SWEEP, "Flags of the sweep, a semicolon for a comma.")


def command(out: Path) -> list[str]:
    """Returns the command line of the sweep."""
    values = flags.FLAGS
    data = [f"--data_dir={values.data_dir}"] if values.data_dir else []
    given = [text.replace(";", ",") for text in values.sweep]
    arguments = [f"--dataset={values.dataset}", *data, *given, "--save_models", f"--out={out}"]
    return [sys.executable, "-m", "experiments.sweep", *arguments]


def run_whole(out: Path) -> float:
    """Runs a sweep to its end; returns its seconds."""
    started = time.monotonic()
    done = subprocess.run(command(out), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmarks.faults: the sweep failed: {done.stderr.strip().splitlines()[-1]}")
    return time.monotonic() - started


def run_killed(out: Path, after: float) -> bool:
    """Starts a sweep and kills it; returns whether it was still running then."""
    with subprocess.Popen(
        command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
    return False


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


def main(arguments: list[str]) -> None:
    """Kills, resumes, compares, reports."""
    if arguments[1:]:
        sys.exit(f"benchmarks.faults: {arguments[1]!r} is no flag")
    values = flags.FLAGS
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        # The first sweep fills the cache of compiled programs, so that the second has their length.
        run_whole(folder / "cold")
        seconds = run_whole(folder / "whole")
        whole = content(folder / "whole")
        print(f"whole sweep: {seconds:.1f} s, {len(whole)} files", file=sys.stderr)
        moments = random.Random(values.seed)
        equal, interrupted = 0, 0
        for number in tqdm(range(values.kills), unit=" sweep"):
            out = folder / f"killed-{number}"
            interrupted += run_killed(out, moments.uniform(0.0, seconds))
            run_whole(out)
            found = differences(whole, content(out))
            equal += not found
            if found:
                print(f"sweep {number}: {', '.join(found[:5])} differ", file=sys.stderr)
            shutil.rmtree(out)
        print(f"{equal} of {values.kills} equal to the last byte; {interrupted} were killed midway")
        if equal < values.kills:
            sys.exit(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
