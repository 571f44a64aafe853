"""Seconds a run and training epoch, beside an equivalent PyTorch loop measured in the same call.

    python -m benchmarks.training
    python -m benchmarks.training --networks=mlp,itu_cnn --objectives=soft-boundary --runs=1,8
    python -m benchmarks.training --notorch --json=training.json

Everything is measured in rounds: in each one, programs of ours and loops of PyTorch take turns, so
that a neighbour on the machine slows both. The smallest of the rounds' times is reported. Data are
random; the steps take the same time as on images. Batch 200, Adam, float32.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as Spec

from benchmarks.subjects import (
    SUBJECTS,
    BenchmarkError,
    Layer,
    cores,
    format_table,
    network_layers,
    processor,
    random_images,
    timed,
    torch_version,
)
from deepsvdd_jax import runs, training
from deepsvdd_jax.configs import ObjectiveConfig, PhaseConfig, RunConfig
from deepsvdd_jax.networks import build_network

BATCH_SIZE = 200
WEIGHT_DECAY = 1e-6
MOST_DEVICES = 8
SECONDS_PER_TIMING = 0.33
PEAK_SIDES = {"cpu": 1536}
ACCELERATOR_PEAK_SIDE = 8192
LONE_PEERS = ("one thread", "all threads", "compiled")
OBJECTIVES = ("one-class", "soft-boundary", "autoencoder")
INSTALL_TORCH = "PyTorch is not installed: pip install 'deepsvdd_jax[benchmark]'"

Timer = Callable[[int], float]
"""Does a number of epochs and returns seconds a run and epoch."""


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_list(
        "networks", "mnist_lenet,cifar10_lenet", "mnist_lenet, cifar10_lenet, itu_cnn, mlp."
    )
    flags.DEFINE_list(
        "objectives",
        [],
        "one-class, soft-boundary, autoencoder; empty: one-class, for mnist_lenet autoencoder too.",
    )
    flags.DEFINE_list("runs", "1,2,4,8,16", "Numbers of runs in one program.")
    flags.DEFINE_integer(
        "images", None, "Training images; by default enough for the network to be timed well."
    )
    flags.DEFINE_integer(
        "epochs", None, "Epochs of one timing; by default as many as take a third of a second."
    )
    flags.DEFINE_integer("repeats", 3, "Rounds, of which the smallest time counts.")
    flags.DEFINE_integer("devices", None, "Devices; by default the cores, at most 8.")
    flags.DEFINE_bool("torch", True, "Measure PyTorch beside it, where it is installed.")
    flags.DEFINE_bool("torch_compile", False, "Measure `torch.compile` too; it compiles for long.")
    flags.DEFINE_string("json", None, "File to write machine and rows to.")


# --- operations ---------------------------------------------------------------------------------


def layer_flops(layer: Layer) -> int:
    """Returns the operations of a direct convolution or product forward on one image; a
    multiplication and an addition count as two, zeros of the padding as any other pixel."""
    if layer.kind not in ("convolution", "dense"):
        return 0
    return 2 * layer.kernel**2 * layer.inputs * layer.outputs * layer.side**2


def training_flops(layers: Sequence[Layer]) -> int:
    """Returns the operations of a training step on one image.

    Each layer is passed forward, its kernel and its input get gradients at the same price; the
    images need none, so that the first layer costs two passes instead of three. Normalisation,
    activations and the optimiser are left out.
    """
    return 3 * sum(map(layer_flops, layers)) - layer_flops(layers[0])


def peak_side() -> int:
    """Returns the side of the matrices whose product is the machine's peak."""
    return PEAK_SIDES.get(jax.default_backend(), ACCELERATOR_PEAK_SIDE)


def peak_timer(devices_busy: int) -> Timer:
    """Returns a timer of a float32 matrix product on all devices, at the precision that jax trains
    with: seconds for one, on a CPU by the faster of JAX and numpy."""
    side = peak_side()
    host = np.random.default_rng(0).random((side, side), np.float32)
    square = jax.jit(lambda matrix: matrix @ matrix)
    placed = [jax.device_put(host, device) for device in jax.local_devices()[:devices_busy]]
    jax.block_until_ready([square(matrix) for matrix in placed])

    def time_products(_: int) -> float:
        one = timed(lambda: jax.block_until_ready(square(placed[0])))
        every = timed(lambda: jax.block_until_ready([square(matrix) for matrix in placed]))
        found = min(one, every / len(placed))
        return min(found, timed(lambda: host @ host)) if jax.default_backend() == "cpu" else found

    return time_products


def peak_flops(seconds: float) -> float:
    """Returns operations a second from the seconds of one product."""
    return 2 * peak_side() ** 3 / seconds


# --- our side -----------------------------------------------------------------------------------


class Case(NamedTuple):
    """What is measured at one time: a network by name, an objective, training images."""

    network: str
    objective: str
    images: int


def run_config(case: Case) -> RunConfig:
    """Returns the configuration of a case, with more epochs than will ever be timed."""
    phase = PhaseConfig(epochs=1_000_000, batch_size=BATCH_SIZE, weight_decay=WEIGHT_DECAY)

    def of(objective: ObjectiveConfig) -> PhaseConfig:
        return dataclasses.replace(phase, objective=objective)

    network = SUBJECTS[case.network].config
    if case.objective == "autoencoder":
        return RunConfig(network=network, pretraining=of(ObjectiveConfig(kind="reconstruction")))
    if case.objective == "one-class":
        return RunConfig(network=network, training=of(ObjectiveConfig(kind="one-class")))
    # Without warm-up, so that the radius takes part from the first epoch, as in the peer.
    objective = ObjectiveConfig(kind="soft-boundary", warm_up_epochs=0)
    return RunConfig(network=network, training=of(objective))


def make_run(config: RunConfig, seed: int, images: np.ndarray) -> runs.Run:
    """Returns a run on all images, taken as network input."""
    ones = (1,) * (images.ndim - 1)
    count = images.shape[0]
    data = training.RunData(
        jnp.arange(count, dtype=jnp.int32), jnp.int32(count), jnp.zeros(ones), jnp.ones(ones)
    )
    return runs.Run(jax.random.key(seed), data, *runs.phase_settings(config), {})


def lone_start(case: Case, images: np.ndarray) -> runs.Progress:
    """Returns the progress of a lone run before its first epoch."""
    config = run_config(case)
    mesh = runs.make_mesh(jax.local_devices()[:1])
    network = build_network(config.network, images.shape[1:])
    pools = runs.in_memory(mesh, images, images[:1])
    run = runs.place(mesh, runs.stack_runs([make_run(config, 0, images)]))
    return runs.Program(config, network, mesh, pools, run).init()


class Program(NamedTuple):
    """What trains at one time.

    Attributes:
      runs: side by side.
      data: devices over which every batch of a run is split.
    """

    runs: int
    data: int = 1

    @property
    def name(self) -> str:
        """Under which its time is kept."""
        return f"runs={self.runs}" + (f" split over {self.data}" if self.data > 1 else "")


def programs_of(counts: Sequence[int], devices: int) -> tuple[Program, ...]:
    """Returns what is measured of so many runs: a lone one, which has one device where PyTorch has
    all cores, with its batches split over all devices too."""
    split = [Program(1, devices)] if devices > 1 and BATCH_SIZE % devices == 0 else []
    return tuple(
        program for count in counts for program in (Program(count), *(split if count == 1 else []))
    )


def devices_for(program: Program, available: int) -> int:
    """Returns how many devices a program takes: as many as divide its runs evenly."""
    most = max(n for n in range(1, available + 1) if program.runs % n == 0)
    return most if program.data == 1 else program.data


def our_timer(
    case: Case, program: Program, devices: int, images: np.ndarray, lone: runs.Progress
) -> Timer:
    """Returns the timer of a program whose runs all start as `lone`; compiles it."""
    config, count = run_config(case), program.runs
    mesh = runs.make_mesh(jax.local_devices()[: devices_for(program, devices)], program.data)
    network = build_network(config.network, images.shape[1:])
    pools = runs.in_memory(mesh, images, images[:1])
    stacked = runs.stack_runs([make_run(config, seed, images) for seed in range(count)])
    ours = runs.Program(config, network, mesh, pools, runs.place(mesh, stacked))
    # Runs that start alike take as long as any, and compiling the start once saves minutes.
    state = jax.device_get(lone.state)
    repeated = jax.tree.map(lambda leaf: np.repeat(leaf, count, axis=0), state)
    start = lone._replace(state=jax.device_put(repeated, NamedSharding(mesh, Spec("run"))))

    def train(epochs: int) -> None:
        done = ours.advance(start, epochs)
        if not np.all(np.asarray(done.state.active)):
            raise RuntimeError(f"{case}: a run stopped; its time would mean nothing")

    train(0)
    return lambda epochs: timed(lambda: train(epochs)) / (count * epochs)


# --- PyTorch ------------------------------------------------------------------------------------


def start_worker(threads: int) -> subprocess.Popen[str]:
    """Starts a process of PyTorch with a number of threads."""
    root = str(pathlib.Path(__file__).parents[1])
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.torch_peer", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=variables,
    )


def ask(workers: Sequence[subprocess.Popen[str]], request: dict[str, Any]) -> None:
    """Sends a request to workers and waits until all have done it.

    Raises:
      RuntimeError: one has ended; what it said stands on stderr.
    """
    for worker in workers:
        _send(worker, request)
    for worker in workers:
        if _answer(worker) != "done":
            raise RuntimeError("a PyTorch process ended early; its message is above")


def say(worker: subprocess.Popen[str], request: dict[str, Any]) -> str:
    """Sends a request to a worker and returns its answer, empty where it has ended."""
    _send(worker, request)
    return _answer(worker)


def _send(worker: subprocess.Popen[str], request: dict[str, Any]) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(request) + "\n")
    worker.stdin.flush()


def _answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


class Peers(NamedTuple):
    """PyTorch processes: one with all threads (None on one core), one with one thread a core, and
    one with all threads and `torch.compile` (None where it is not wanted)."""

    wide: subprocess.Popen[str] | None
    narrow: list[subprocess.Popen[str]]
    compiling: subprocess.Popen[str] | None = None

    def everyone(self) -> list[subprocess.Popen[str]]:
        others = [worker for worker in (self.wide, self.compiling) if worker is not None]
        return [*others, *self.narrow]


@contextlib.contextmanager
def open_peers(wanted: bool, cores: int, compiling: bool = False) -> Iterator[Peers | None]:
    """Starts the PyTorch processes and ends them afterwards; None where they are not wanted."""
    if not wanted:
        yield None
        return
    peers = Peers(
        start_worker(cores) if cores > 1 else None,
        [start_worker(1) for _ in range(cores)],
        start_worker(cores) if compiling else None,
    )
    try:
        yield peers
    finally:
        for worker in peers.everyone():
            worker.kill()
            worker.communicate()


def peer_task(case: Case) -> dict[str, Any]:
    """Returns what `benchmarks.torch_peer` needs to know of a case."""
    subject = SUBJECTS[case.network]
    layers = network_layers(subject.config, subject.shape, case.objective)
    return {
        "layers": [layer._asdict() for layer in layers],
        "objective": case.objective,
        "shape": (subject.shape[-1], *subject.shape[:-1]),
        "images": case.images,
        "batch_size": BATCH_SIZE,
        "weight_decay": WEIGHT_DECAY,
    }


def worker_timer(workers: list[subprocess.Popen[str]]) -> Timer:
    """Returns the timer of processes that train a run each at the same time."""

    def time_epochs(epochs: int) -> float:
        return timed(lambda: ask(workers, {"epochs": epochs})) / (epochs * len(workers))

    return time_epochs


def peer_timers(peers: Peers, case: Case) -> dict[str, Timer]:
    """Returns the timers of PyTorch on a case, by name; builds its networks."""
    task, plain = peer_task(case), peers._replace(compiling=None)
    ask(plain.everyone(), {"task": task})
    timers = {"one thread": worker_timer(peers.narrow[:1])}
    if peers.wide is not None:
        timers["all threads"] = worker_timer([peers.wide])
        timers["processes"] = worker_timer(peers.narrow)
    if peers.compiling is not None:
        reason = say(peers.compiling, {"task": task | {"mode": "compiled"}})
        if reason == "done":
            timers["compiled"] = worker_timer([peers.compiling])
        else:
            print(f"torch.compile does not work here: {reason}", file=sys.stderr)
    return timers


def peer_count() -> int:
    """Returns how many one-thread processes of PyTorch fill the machine; a GPU has room for one
    loop."""
    return cores() if jax.default_backend() == "cpu" else 1


# --- rounds -------------------------------------------------------------------------------------


def take_turns(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """Returns the items of both in turn: one of the first, one of the second, and so on."""
    missing = object()
    pairs = itertools.zip_longest(first, second, fillvalue=missing)
    return [item for pair in pairs for item in pair if item is not missing]


def smallest_times(
    timers: dict[str, Timer], epochs: int, repeats: int, tell: Callable[[int, str], None]
) -> dict[str, float]:
    """Runs all timers in turn, `repeats` rounds, and returns the smallest time of each."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(repeats):
        for name, timer in timers.items():
            tell(turn + 1, name)
            times[name].append(timer(epochs))
    return {name: min(values) for name, values in times.items()}


def epochs_per_timing(seconds_per_epoch: float) -> int:
    """Returns how many epochs fill a timing, as many at most as a call can do."""
    wanted = math.ceil(SECONDS_PER_TIMING / seconds_per_epoch)
    return min(max(wanted, 1), runs.MOST_EPOCHS_PER_CALL)


def make_bar(total: int) -> Callable[[str], None]:
    """Returns a function that says on stderr what comes next: on a terminal a bar that is written
    over, otherwise a line every tenth of the way."""
    steps = itertools.count()

    def tell(what: str) -> None:
        done = next(steps)
        if sys.stderr.isatty():
            filled = "#" * round(20 * done / total)
            end = "\n" if done == total else ""
            line = f"[{filled:<20}] {done}/{total} {what}"
            print(f"\r{line:<79.79}", end=end, file=sys.stderr, flush=True)
        elif done % max(total // 10, 1) == 0 or done == total:
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)

    return tell


class Settings(NamedTuple):
    """What a call measures, flags resolved."""

    cases: tuple[Case, ...]
    runs: tuple[int, ...]
    devices: int
    repeats: int = 3
    epochs: int | None = None
    torch: bool = False
    torch_compile: bool = False


def steps_of(settings: Settings) -> int:
    """Returns how often a call will tell the bar what comes next, the last word left out."""
    peers = (3 if peer_count() > 1 else 1) + settings.torch_compile if settings.torch else 0
    programs = len(programs_of(settings.runs, settings.devices))
    return len(settings.cases) * (1 + programs + settings.repeats * (programs + peers + 1))


class Measured(NamedTuple):
    """A case and the smallest time of each of its timers, by name."""

    case: Case
    seconds: dict[str, float]


def measure_case(
    case: Case, settings: Settings, peers: Peers | None, tell: Callable[[str], None]
) -> Measured:
    """Compiles what a case needs, then measures it in rounds."""
    label, images = f"{case.network} {case.objective}", random_images(case.network, case.images)
    tell(f"{label}: first weights")
    lone = lone_start(case, images)
    ours = {}
    for program in programs_of(settings.runs, settings.devices):
        tell(f"{label}: compiling {program.name}")
        ours[program.name] = our_timer(case, program, settings.devices, images, lone)
    others = {} if peers is None else peer_timers(peers, case)
    others["peak"] = peak_timer(settings.devices)
    # One run's second epoch is the first without any start-up.
    first = next(iter(ours.values()))
    epochs = settings.epochs or epochs_per_timing(min(first(1), first(1)) * settings.runs[0])
    timers = dict(take_turns(list(others.items()), list(ours.items())))
    seconds = smallest_times(
        timers, epochs, settings.repeats, lambda turn, name: tell(f"{label}: round {turn}, {name}")
    )
    return Measured(case, seconds)


def measure(settings: Settings) -> Iterator[Measured]:
    """Measures the cases of a call, one after the other."""
    tell = make_bar(steps_of(settings))
    with open_peers(settings.torch, peer_count(), settings.torch_compile) as peers:
        for case in settings.cases:
            yield measure_case(case, settings, peers, tell)
    tell("done")


# --- report -------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One program of ours; a ratio above 1 says that ours is faster, None that there is no peer.

    Attributes:
      network: its name.
      objective: likewise.
      images: of a run and epoch.
      runs: in the program.
      devices: that they are spread over; more than runs where every batch is split.
      seconds: a run and epoch.
      torch_ratio: seconds of PyTorch in one process, best of one thread, all threads and
        `torch.compile` where that was measured, over ours.
      processes_ratio: seconds a run of one-thread processes on every core at once, over ours.
      peak_share: operations of the direct convolutions a second, over the machine's peak.
    """

    network: str
    objective: str
    images: int
    runs: int
    devices: int
    seconds: float
    torch_ratio: float | None
    processes_ratio: float | None
    peak_share: float


class PeerRow(NamedTuple):
    """PyTorch's seconds a run and epoch; on one core there is nothing but one thread, and
    `compiled` only where it was asked for and works."""

    network: str
    objective: str
    one_thread: float
    all_threads: float | None
    processes: float | None
    compiled: float | None = None


def rows_of(measured: Measured, settings: Settings, peak: float) -> list[Row]:
    """Returns the rows of a case; `peak` in operations a second."""
    case, seconds = measured.case, measured.seconds
    subject = SUBJECTS[case.network]
    layers = network_layers(subject.config, subject.shape, case.objective)
    flops = training_flops(layers) * case.images
    alone = [seconds[name] for name in LONE_PEERS if name in seconds]
    torch = min(alone, default=None)
    processes = seconds.get("processes", seconds.get("one thread"))
    return [
        Row(
            *case,
            runs=program.runs,
            devices=devices_for(program, settings.devices),
            seconds=ours,
            torch_ratio=None if torch is None else torch / ours,
            processes_ratio=None if processes is None else processes / ours,
            peak_share=flops / ours / peak,
        )
        for program in programs_of(settings.runs, settings.devices)
        for ours in (seconds[program.name],)
    ]


def peer_row(measured: Measured) -> PeerRow | None:
    """Returns PyTorch's row of a case, None where it was not measured."""
    case, seconds = measured.case, measured.seconds
    if "one thread" not in seconds:
        return None
    names = ("all threads", "processes", "compiled")
    return PeerRow(
        case.network, case.objective, seconds["one thread"], *(seconds.get(name) for name in names)
    )


def results(
    measured: Sequence[Measured], settings: Settings
) -> tuple[dict[str, Any], list[Row], list[PeerRow]]:
    """Returns the machine, our rows and PyTorch's rows of the cases measured so far."""
    peak = best_peak(measured)
    rows = [row for one in measured for row in rows_of(one, settings, peak)]
    peers = [row for row in map(peer_row, measured) if row is not None]
    return describe_machine(settings.devices, peak), rows, peers


def best_peak(measured: Sequence[Measured]) -> float:
    """Returns the highest rate of the matrix product in a call, operations a second."""
    return peak_flops(min(one.seconds["peak"] for one in measured))


def describe_machine(devices: int, peak: float) -> dict[str, Any]:
    """Returns what the figures depend on; asks the system."""
    used = jax.local_devices()[:devices]
    return {
        "processor": processor(),
        "system": platform.platform(),
        "cores": cores(),
        "jax": jax.__version__,
        "torch": torch_version(),
        "devices": f"{len(used)} x {used[0].device_kind}",
        "peak_flops": peak,
    }


def format_number(value: float | None, digits: int = 2) -> str:
    """Returns a number with so many digits after the point, nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def format_rows(rows: Sequence[Row]) -> str:
    """Returns the table of our programs."""
    header = (
        "network",
        "objective",
        "images",
        "runs",
        "devices",
        "s / run and epoch",
        "PyTorch / ours",
        "N processes / ours",
        "of peak",
    )
    return format_table(
        header,
        [
            (
                row.network,
                row.objective,
                str(row.images),
                str(row.runs),
                str(row.devices),
                format_number(row.seconds, 4),
                format_number(row.torch_ratio),
                format_number(row.processes_ratio),
                f"{row.peak_share:.1%}",
            )
            for row in rows
        ],
    )


def format_peers(rows: Sequence[PeerRow], cores: int) -> str:
    """Returns the table of PyTorch's seconds a run and epoch."""
    header = (
        *("network", "objective", "1 thread", f"{cores} threads", f"{cores} processes"),
        "torch.compile",
    )
    lines = [(*row[:2], *(format_number(value, 4) for value in row[2:])) for row in rows]
    return format_table(header, lines)


def format_report(
    machine: dict[str, Any], rows: Sequence[Row], peers: Sequence[PeerRow], repeats: int
) -> str:
    """Returns all that a call prints."""
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['devices']} devices, "
        f"jax {machine['jax']}, torch {machine['torch'] or '-'}",
        f"float32 matrix product: {machine['peak_flops'] / 1e9:.0f} GFLOP/s; "
        f"every time is the smallest of {repeats} rounds",
        "",
        format_rows(rows),
    ]
    if peers:
        parts += ["", "PyTorch, seconds a run and epoch", format_peers(peers, machine["cores"])]
    if machine["torch"] is None:
        parts += ["", INSTALL_TORCH]
    return "\n".join(parts)


def as_json(
    machine: dict[str, Any], rows: Sequence[Row], peers: Sequence[PeerRow], settings: Settings
) -> str:
    """Returns machine, settings and rows as JSON."""
    report = {
        "machine": machine,
        "settings": {"repeats": settings.repeats, "statistic": "minimum", "batch_size": BATCH_SIZE},
        "rows": [row._asdict() for row in rows],
        "peers": [row._asdict() for row in peers],
    }
    return json.dumps(report, indent=2, allow_nan=False)


# --- call ---------------------------------------------------------------------------------------


def cases_of(
    networks: Sequence[str], objectives: Sequence[str], images: int | None
) -> tuple[Case, ...]:
    """Returns the cases that flags ask for.

    Raises:
      BenchmarkError: a name that is unknown, or an autoencoder of a network without decoder.
    """
    for name, known in ((networks, tuple(SUBJECTS)), (objectives, OBJECTIVES)):
        for value in name:
            if value not in known:
                raise BenchmarkError(f"{value!r} is unknown; allowed: {', '.join(known)}")
    cases = tuple(
        Case(network, objective, images or SUBJECTS[network].images)
        for network in networks
        for objective in (objectives or SUBJECTS[network].objectives)
    )
    for case in cases:
        network_layers(*SUBJECTS[case.network][:2], case.objective)
    return cases


def positive(name: str, values: Sequence[Any]) -> tuple[int, ...]:
    """Returns a flag's values as whole numbers.

    Raises:
      BenchmarkError: there is none, or one is not a positive number.
    """
    if not values or not all(str(value).isdecimal() and int(value) > 0 for value in values):
        raise BenchmarkError(f"--{name} is {','.join(map(str, values))}; give positive numbers")
    return tuple(int(value) for value in values)


def settings_from_flags() -> Settings:
    """Reads the flags; jax must not have been used yet, since the devices are set here."""
    values = flags.FLAGS
    for name in ("images", "epochs", "devices", "repeats"):
        positive(name, [1 if values[name].value is None else values[name].value])
    cases = cases_of(values.networks, values.objectives, values.images)
    wanted = values.devices or min(cores(), MOST_DEVICES)
    jax.config.update("jax_num_cpu_devices", wanted)
    return Settings(
        cases=cases,
        runs=positive("runs", values.runs),
        devices=min(wanted, jax.local_device_count()),
        repeats=values.repeats,
        epochs=values.epochs and min(values.epochs, runs.MOST_EPOCHS_PER_CALL),
        torch=values.torch and torch_version() is not None,
        torch_compile=values.torch_compile,
    )


def main(arguments: list[str]) -> None:
    """Measures what the flags say and prints it."""
    try:
        if arguments[1:]:
            raise BenchmarkError(f"{arguments[1]!r} is no flag")
        settings = settings_from_flags()
    except BenchmarkError as error:
        sys.exit(f"benchmarks.training: {error}")
    measured: list[Measured] = []
    # An interrupted call still reports the cases that it has finished.
    with contextlib.suppress(KeyboardInterrupt):
        for one in measure(settings):
            measured.append(one)
            if flags.FLAGS.json is not None:
                text = as_json(*results(measured, settings), settings)
                pathlib.Path(flags.FLAGS.json).write_text(text + "\n")
    if not measured:
        sys.exit("benchmarks.training: interrupted before the first case was measured")
    print(format_report(*results(measured, settings), settings.repeats))


if __name__ == "__main__":
    define_flags()
    app.run(main)
