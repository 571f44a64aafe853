"""Where the time of a program goes: seconds of every operation, on one device.

    python -m benchmarks.profile --program=scoring
    python -m benchmarks.profile --program=autoencoder --network=mnist_lenet --images=2000 --top=20

Runs the program under JAX's profiler on random images, a few rounds, and prints each of XLA's
operations in its fastest round, with what it makes and what in this project it was written as. On
a CPU a fusion whose name begins with `ynn` is a product or a convolution by XLA's library of
kernels.
"""

import collections
import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

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
    """What an instruction of a compiled program makes, and what it was written as."""

    shape: str
    source: str


class Event(NamedTuple):
    """Something that the profiler saw, and how long it took."""

    name: str
    nanoseconds: float


class Cost(NamedTuple):
    """An instruction, and its milliseconds in a round."""

    name: str
    milliseconds: float


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_enum("program", "scoring", PROGRAMS, "What is profiled.")
    flags.DEFINE_enum("network", "mnist_lenet", list(SUBJECTS), "Network.")
    flags.DEFINE_integer("images", 2000, "Images.", lower_bound=training.BATCH_SIZE)
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

    What encloses others or is no instruction of the program is left out.
    """
    names = {name for name in known if not name.startswith(_ENCLOSING)}
    sums: list[dict[str, float]] = [collections.defaultdict(float) for _ in rounds]
    for total, events in zip(sums, rounds, strict=True):
        for event in events:
            total[event.name] += event.nanoseconds / 1e6
    seen = names.intersection(*sums)
    found = [Cost(name, min(total[name] for total in sums)) for name in seen]
    return sorted(found, key=lambda cost: (-cost.milliseconds, cost.name))


def make_work(program: str, network: str, images: int) -> Callable[[], object]:
    """Returns what does a round of the program on one device, compiled."""
    data = subjects.random_images(network, images)
    work: Callable[[], object]
    if program == "scoring":
        work = functools.partial(detectors.member_distances, scoring.make_model(network, 1), data)
    else:
        case = training.Case(network, program, images)
        start = training.lone_start(case, data)
        work = functools.partial(training.our_timer(case, training.Program(1), 1, data, start), 1)
    work()
    return work


def traced_events(work: Callable[[], object]) -> list[Event]:
    """Returns what happens while the work is done once."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        return [
            Event(event.name, event.duration_ns)
            for plane in planes
            for line in plane.lines
            for event in line.events
        ]


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
        work = make_work(values.program, values.network, values.images)
        texts = [path.read_text() for path in Path(dump).rglob("*after_optimizations.txt")]
    # The largest program is the one that does the work.
    known = operations(max(texts, key=len))
    seconds = min(subjects.timed(work) for _ in range(ROUNDS))
    found = costs([traced_events(work) for _ in range(ROUNDS)], known)
    print(f"{values.network}, {values.program}, {values.images} images, {subjects.processor()}")
    print(report(found, known, seconds, values.top))


if __name__ == "__main__":
    define_flags()
    app.run(main)
