"""Profiles a program: seconds of every operation, on one device.

    python -m benchmarks.profile --program=scoring
    python -m benchmarks.profile --program=autoencoder --network=mnist_lenet --images=2000 --top=20

Runs the program under JAX's profiler on random images, a few rounds, and prints each of XLA's
operations in its fastest round, with its result and the function of this project that it comes
from. On a CPU a fusion whose name begins with `ynn` is a product or a convolution by XLA's library
of kernels. On a GPU it prints the kernels: how many a training step starts, how much of a round the
GPU is busy, and the costliest; `--runs` trains many runs in the program.
"""

import collections
import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags

from benchmarks import scoring, subjects, training
from benchmarks.subjects import SUBJECTS, format_table
from deepsvdd_jax import detectors

PROGRAMS = ("scoring", *training.OBJECTIVES)
ROUNDS = 5

_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%(\S+) = (\S+) .*?(?:op_name="([^"]*)".*)?$', re.M)
# What encloses other operations: its time is theirs.
_ENCLOSING = ("while", "call", "conditional", "jit_")


class Operation(NamedTuple):
    """The result of an instruction of a compiled program, and the function that it comes from."""

    shape: str
    source: str


class Event(NamedTuple):
    """An event of the profile, and its duration."""

    name: str
    nanoseconds: float


class Cost(NamedTuple):
    """An instruction, and its milliseconds in a round."""

    name: str
    milliseconds: float


class Kernel(NamedTuple):
    """A kernel that ran on a GPU, and its instruction, empty if unknown."""

    name: str
    start: float
    nanoseconds: float
    operation: str


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_enum("program", "scoring", PROGRAMS, "What is profiled.")
    flags.DEFINE_enum("network", "mnist_lenet", list(SUBJECTS), "Network.")
    flags.DEFINE_integer("images", 2000, "Images.", lower_bound=training.BATCH_SIZE)
    flags.DEFINE_integer("runs", 1, "Runs in a program that trains.", lower_bound=1)
    flags.DEFINE_integer("top", 15, "Operations to print.", lower_bound=1)


def operations(text: str) -> dict[str, Operation]:
    """Returns the instructions of a compiled program by name, from its text."""
    return {
        name: Operation(shape.partition("{")[0], _readable(source or ""))
        for name, shape, source in _INSTRUCTION.findall(text)
    }


def _readable(source: str) -> str:
    """Leaves the transformations out of a name, `jit(f)/while/body/dot_general`."""
    parts = [part for part in source.split("/") if part not in ("while", "body", "closed_call")]
    return "/".join(parts[-2:])


def costs(rounds: Sequence[Sequence[Event]], known: Iterable[str]) -> list[Cost]:
    """Adds up the events of every round by instruction and takes the smallest round of each, the
    costliest instruction first.

    Events that enclose others or are not instructions of the program are left out.
    """
    names = {name for name in known if not name.startswith(_ENCLOSING)}
    sums: list[dict[str, float]] = [collections.defaultdict(float) for _ in rounds]
    for total, events in zip(sums, rounds, strict=True):
        for event in events:
            total[event.name] += event.nanoseconds / 1e6
    seen = names.intersection(*sums)
    found = [Cost(name, min(total[name] for total in sums)) for name in seen]
    return sorted(found, key=lambda cost: (-cost.milliseconds, cost.name))


def make_work(program: str, network: str, images: int, count: int = 1) -> Callable[[], object]:
    """Returns a compiled round of the program on one device."""
    data = subjects.random_images(network, images)
    work: Callable[[], object]
    if program == "scoring":
        work = functools.partial(detectors.member_distances, scoring.make_model(network, 1), data)
    else:
        case = training.Case(network, program, images)
        start = training.lone_start(case, data)
        timer = training.our_timer(case, training.Program(count), 1, data, start)
        work = functools.partial(timer, 1)
    work()
    return work


def traced(work: Callable[[], object], read: Callable[[Any], list[Any]]) -> list[Any]:
    """Does the work once and returns the result of `read` on the planes of the profile."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return read(jax.profiler.ProfileData.from_file(str(path)).planes)


def traced_events(work: Callable[[], object]) -> list[Event]:
    """Returns the events while the work is done once."""
    return traced(work, events_of)


def events_of(planes: Iterable[Any]) -> list[Event]:
    """Returns all events of a profile."""
    return [
        Event(event.name, event.duration_ns)
        for plane in planes
        for line in plane.lines
        for event in line.events
    ]


def kernels_of(planes: Iterable[Any]) -> list[Kernel]:
    """Returns the kernels and copies that ran on GPUs, of all streams, in a profile."""
    return [
        Kernel(
            event.name, event.start_ns, event.duration_ns, str(dict(event.stats).get("hlo_op", ""))
        )
        for plane in planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        # Other lines repeat these by module, operation and step.
        if line.name.startswith("Stream")
        for event in line.events
    ]


def busy_nanoseconds(kernels: Iterable[Kernel]) -> float:
    """Returns how long at least one of the kernels ran."""
    busy = end = 0.0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        stop = kernel.start + kernel.nanoseconds
        busy += max(0.0, stop - max(kernel.start, end))
        end = max(end, stop)
    return busy


def report_kernels(
    kernels: Sequence[Kernel],
    known: dict[str, Operation],
    steps: int,
    seconds: float,
    top: int,
) -> str:
    """Returns the table of the costliest kernels, and what a step starts.

    Args:
      kernels: of a round.
      known: the program's instructions, see `operations`.
      steps: training steps or batches of a round.
      seconds: of a round without the profiler.
      top: kernels to show.
    """
    total: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for kernel in kernels:
        source = known[kernel.operation].source if kernel.operation in known else kernel.operation
        total[kernel.name, source].append(kernel.nanoseconds / 1e6)
    costliest = sorted(total.items(), key=lambda item: (-sum(item[1]), item[0]))
    busy = busy_nanoseconds(kernels) / 1e6
    lines = [
        (name[:60], source, f"{len(times) / steps:.1f}", f"{sum(times) / steps:.4f}")
        + (f"{100 * sum(times) / busy:.1f} %",)
        for (name, source), times in costliest[:top]
    ]
    text = format_table(("kernel", "written as", "a step", "ms a step", "of busy"), lines)
    return (
        f"{text}\n{len(kernels) / steps:.1f} kernels a step; the GPU is busy {busy / steps:.4f} of "
        f"{1e3 * seconds / steps:.4f} ms a step"
    )


def report(found: list[Cost], known: dict[str, Operation], seconds: float, top: int) -> str:
    """Returns the table, and how much of a round it does not show."""
    lines = [
        (cost.name, known[cost.name].source, known[cost.name].shape)
        + (f"{cost.milliseconds:.2f}", f"{cost.milliseconds / seconds / 10:.1f} %")
        for cost in found[:top]
    ]
    text = format_table(("operation", "written as", "makes", "ms", "share"), lines)
    rest = seconds * 1e3 - sum(cost.milliseconds for cost in found[:top])
    return f"{text}\n{seconds * 1e3:.1f} ms a round, {rest:.1f} of it elsewhere"


def main(arguments: list[str]) -> None:
    """Profiles and prints."""
    if arguments[1:]:
        sys.exit(f"benchmarks.profile: {arguments[1]!r} is no flag")
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as dump:
        # Read when jax makes its first array: how a program looks after XLA's work on it.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump}"
        work = make_work(values.program, values.network, values.images, values.runs)
        texts = [path.read_text() for path in Path(dump).rglob("*after_optimizations.txt")]
    # The largest program does the work.
    known = operations(max(texts, key=len))
    seconds = min(subjects.timed(work) for _ in range(ROUNDS))
    print(f"{values.network}, {values.program}, {values.images} images, {values.runs} run(s)")
    if jax.default_backend() == "cpu":
        found = costs([traced_events(work) for _ in range(ROUNDS)], known)
        print(subjects.processor(), report(found, known, seconds, values.top), sep="\n")
        return
    steps = -(-values.images // training.BATCH_SIZE)
    kernels = traced(work, kernels_of)
    print(jax.local_devices()[0].device_kind)
    print(report_kernels(kernels, known, steps, seconds, values.top))


if __name__ == "__main__":
    define_flags()
    app.run(main)
