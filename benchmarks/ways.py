"""Training beside all ways in which PyTorch can use an accelerator: the suite's part `peers`."""

import concurrent.futures
import contextlib
import contextvars
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import subjects, training
from benchmarks.rows import Row, advantage
from benchmarks.training import Case, Program, Timer
from deepsvdd_jax import runs
from deepsvdd_jax.networks import build_network

# A case and its numbers of runs in a program.
CASES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("mnist_lenet", "one-class", (1, 10, 100)),
    ("mnist_lenet", "autoencoder", (1, 100)),
    ("cifar10_lenet", "one-class", (1, 10)),
    ("cifar10_lenet", "autoencoder", (1, 10)),
)
LONE_MODES = {"loop": "PyTorch loop", "graph": "PyTorch CUDA graph", "compiled": "torch.compile"}
ENSEMBLE = "torch.func ensemble"


class Budget(NamedTuple):
    """When to start nothing more, by `time.monotonic`; None never."""

    ends: float | None

    def allows(self, what: str) -> bool:
        """Whether there is time; says on stderr what is left out."""
        if self.ends is None or time.monotonic() < self.ends:
            return True
        print(f"no time is left for {what}", file=sys.stderr)
        return False


def budget_of(minutes: float | None) -> Budget:
    """Returns the budget of a call that starts now."""
    return Budget(None if minutes is None else time.monotonic() + 60 * minutes)


@contextlib.contextmanager
def open_ways(
    task: dict[str, Any], modes: Sequence[str], models: int
) -> Iterator[dict[str, Timer]]:
    """Starts a PyTorch process for each way to train and yields the timers of those that work here,
    by mode; one that does not is named on stderr, with the reason.

    Args:
      task: see `training.peer_task`.
      modes: some of `torch_peer.MODES`.
      models: of an ensemble.
    """
    workers = {mode: training.start_worker(subjects.cores()) for mode in modes}
    try:
        timers = {}
        for mode, worker in workers.items():
            many = models if mode == "ensemble" else 1
            said = training.say(worker, {"task": task | {"mode": mode, "models": many}})
            if said == "done":
                timers[mode] = _timer(worker, many)
            else:
                print(f"{mode} does not work here: {said or 'the process ended'}", file=sys.stderr)
        yield timers
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()


def _timer(worker: Any, models: int) -> Timer:
    time_epochs = training.worker_timer([worker])
    return lambda epochs: time_epochs(epochs) / models


def measure_case(
    case: Case, widths: Sequence[int], repeats: int, epochs: int | None, modes: Sequence[str]
) -> list[Row]:
    """Returns seconds a run and epoch, a row for every number of runs in a program and every way of
    PyTorch; an ensemble has as many models as the program runs.

    Args:
      case: what is trained.
      widths: numbers of runs.
      repeats: rounds, of which the fastest counts.
      epochs: of one timing; None takes as many as fill it.
      modes: the ways, some of `torch_peer.MODES`; without any, a row for every width alone.
    """
    images = subjects.random_images(case.network, case.images)
    lone = training.lone_start(case, images)
    ours = _our_timers(case, widths, images, lone)
    task, alone = training.peer_task(case), [mode for mode in modes if mode != "ensemble"]
    timed: dict[str, Timer] = {f"ours {width}": timer for width, timer in ours.items()}
    with contextlib.ExitStack() as stack:
        timed |= stack.enter_context(open_ways(task, alone, 1))
        if "ensemble" in modes:
            for width in (width for width in widths if width > 1):
                found = stack.enter_context(open_ways(task, ["ensemble"], width))
                timed |= {f"ensemble {width}": timer for timer in found.values()}
        first = ours[widths[0]]
        count = epochs or training.epochs_per_timing(min(first(1), first(1)) * widths[0])
        seconds = training.smallest_times(timed, count, repeats, lambda turn, name: None)
    rows = []
    for width in widths:
        what = f"{case.network} {case.objective}, {case.images} images, {width} run(s)"
        value = seconds[f"ours {width}"]
        theirs = {LONE_MODES[mode]: seconds[mode] for mode in alone if mode in seconds}
        if f"ensemble {width}" in seconds:
            theirs[ENSEMBLE] = seconds[f"ensemble {width}"]
        unit = "s / run and epoch"
        rows += [
            Row("peers", what, value, unit, advantage(unit, value, other), peer=name)
            for name, other in theirs.items()
        ] or [Row("peers", what, value, unit)]
    return rows


def _our_timers(
    case: Case, widths: Sequence[int], images: np.ndarray, lone: runs.Progress
) -> dict[int, Timer]:
    """Returns a timer for every width, all compiled at the same time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # A thread begins without the form of convolution that was asked for.
        made = {
            width: pool.submit(
                contextvars.copy_context().run,
                training.our_timer,
                case,
                Program(width),
                1,
                images,
                lone,
            )
            for width in widths
        }
        return {width: one.result() for width, one in made.items()}


def measure_repetition(case: Case, width: int) -> Row:
    """Returns how many weights and components of centers differ between two trainings alike."""
    images = subjects.random_images(case.network, case.images)
    config = training.run_config(case)
    mesh = runs.make_mesh(jax.local_devices()[:1])
    network = build_network(config.network, images.shape[1:])
    pools = runs.in_memory(mesh, images, images[:1])
    members = [training.make_run(config, seed, images) for seed in range(width)]
    stacked = runs.place(mesh, runs.stack_runs(members))
    program = runs.Program(config, network, mesh, pools, stacked)

    def trained() -> list[np.ndarray]:
        done = program.advance(program.init(), 2)
        return [
            np.asarray(leaf) for leaf in jax.tree.leaves((done.state.params, done.state.center))
        ]

    different = sum(
        int(np.sum(one != other)) for one, other in zip(trained(), trained(), strict=True)
    )
    what = f"{case.network} {case.objective}, {width} run(s), two epochs twice"
    return Row("peers", what, different, "numbers that differ")


def measure(
    cases: Sequence[tuple[Case, Sequence[int]]],
    modes: Sequence[str],
    repeats: int,
    epochs: int | None,
    budget: Budget,
) -> Iterator[list[Row]]:
    """Measures case by case, as long as there is time; see `measure_case`."""
    for case, widths in cases:
        if budget.allows(f"{case.network} {case.objective}"):
            yield measure_case(case, widths, repeats, epochs, modes)
    for case, widths in cases:
        if case.objective == "one-class" and budget.allows(f"{case.network} twice"):
            yield [measure_repetition(case, widths[-1])]
