"""Times the same training on one device of a CPU and on several, and streamed in chunks.

    python -m benchmarks.devices [--devices=2] [--images=2000] [--repeats=3]

A process for each number of devices, since that cannot change within one, takes turns with the
others. Prints seconds a run and epoch, the smallest of the repeats, for 16 runs of `mnist_lenet`
side by side, for one run, for one run whose batches are split over the devices, and for one run
whose images are streamed.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks import training as benchmark
from benchmarks.subjects import cores, random_images, timed
from deepsvdd_jax import runs
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import streamed as streaming

RUNS = 16


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_integer("devices", None, "Devices; by default the cores, at most 8.")
    flags.DEFINE_integer("images", 2000, "Training images.", lower_bound=benchmark.BATCH_SIZE)
    flags.DEFINE_integer("repeats", 3, "Rounds, of which the smallest counts.", lower_bound=1)
    flags.DEFINE_integer("worker", None, "Time on so many devices, for another process.")


class Subject(NamedTuple):
    """The training to time: so many runs, over so many devices a run, streamed or not."""

    name: str
    runs: int
    data: int
    streamed: bool


def subjects(devices: int) -> tuple[Subject, ...]:
    """Returns the trainings that a process with so many devices times."""
    side_by_side = Subject(f"{RUNS} runs", RUNS, 1, False)
    if devices > 1:
        return side_by_side, Subject("one run, batches split", 1, devices, False)
    return (
        side_by_side,
        Subject("one run", 1, 1, False),
        Subject("one run, streamed", 1, 1, True),
    )


def make_timer(
    subject: Subject, devices: int, case: benchmark.Case, images: np.ndarray
) -> Callable[[], float]:
    """Compiles a subject's program; returns a function that gives seconds a run and epoch."""
    config = benchmark.run_config(case)
    used = subject.data if subject.runs == 1 else devices
    mesh = runs.make_mesh(jax.local_devices()[:used], subject.data)
    # An eighth of the images on the device at a time.
    engine = streaming.engine(images.nbytes // 8) if subject.streamed else runs.in_memory
    members = [benchmark.make_run(config, seed, images) for seed in range(subject.runs)]
    network = build_network(config.network, images.shape[1:])
    stacked = runs.place(mesh, runs.stack_runs(members))
    program = runs.Program(config, network, mesh, engine(mesh, images, images[:1]), stacked)
    start = program.init()

    def train() -> None:
        done = program.advance(start, 1)
        if not np.all(np.asarray(done.state.active)):
            raise RuntimeError(f"{subject.name}: a run stopped; its time would mean nothing")

    train()
    return lambda: timed(train) / subject.runs


def work(devices: int, case: benchmark.Case) -> None:
    """Times for the process at the other end of the pipe, a line for a line."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    images = random_images(case.network, case.images)
    timers = {
        subject.name: make_timer(subject, devices, case, images) for subject in subjects(devices)
    }
    print(json.dumps(sorted(timers)), flush=True)
    for line in sys.stdin:
        print(json.dumps(timers[line.strip()]()), flush=True)


def start_worker(devices: int, images: int) -> "subprocess.Popen[str]":
    """Starts a process with so many devices; its first line says that it has compiled."""
    command = [sys.executable, "-m", "benchmarks.devices"]
    return subprocess.Popen(
        [*command, f"--worker={devices}", f"--images={images}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(worker: "subprocess.Popen[str]", line: str | None = None) -> Any:
    """Sends a line to a worker, if any, and returns its answer."""
    assert worker.stdin is not None and worker.stdout is not None
    if line is not None:
        worker.stdin.write(line + "\n")
        worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        sys.exit("benchmarks.devices: a worker ended; its reason is above")
    return json.loads(answer)


def measure(devices: Sequence[int], images: int, repeats: int) -> dict[tuple[str, int], float]:
    """Returns the smallest seconds a run and epoch by subject and devices."""
    workers = {count: start_worker(count, images) for count in devices}
    try:
        names = {count: ask(worker) for count, worker in workers.items()}
        seconds: dict[tuple[str, int], list[float]] = {}
        for _ in range(repeats):
            for count, worker in workers.items():
                for name in names[count]:
                    seconds.setdefault((name, count), []).append(ask(worker, name))
        return {key: min(found) for key, found in seconds.items()}
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def report(seconds: dict[tuple[str, int], float], images: int) -> str:
    """Returns the table, with the cost of each compared with the same on one device."""
    lines = [
        f"seconds a run and epoch of {images} images, mnist_lenet, one-class",
        "| what | devices | seconds | of one device's |",
        "| --- | --- | --- | --- |",
    ]
    for (name, count), value in sorted(seconds.items(), key=lambda item: item[0][::-1]):
        alike = (f"{RUNS} runs" if name.startswith(f"{RUNS} runs") else "one run", 1)
        lines.append(f"| {name} | {count} | {value:.4f} | {value / seconds[alike]:.2f} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measures and prints, or works for the process that does."""
    values = flags.FLAGS
    if arguments[1:]:
        sys.exit(f"benchmarks.devices: {arguments[1]!r} is no flag")
    if values.worker is not None:
        work(values.worker, benchmark.Case("mnist_lenet", "one-class", values.images))
        return
    several = values.devices or max(2, min(cores(), benchmark.MOST_DEVICES))
    if several < 2 or benchmark.BATCH_SIZE % several:
        sys.exit(
            f"benchmarks.devices: --devices={several} must be 2 or more and divide "
            f"{benchmark.BATCH_SIZE}"
        )
    print(report(measure((1, several), values.images, values.repeats), values.images))


if __name__ == "__main__":
    define_flags()
    app.run(main)
