"""All figures in one table: training, scoring, start-up, memory, compilation, tables.

    python -m benchmarks.suite                              # about half an hour on two cores
    python -m benchmarks.suite --quick --json=new.json      # a few minutes
    python -m benchmarks.suite --parts=training,scoring --networks=mnist_lenet --runs=1,16
    python -m benchmarks.suite --compare=old.json new.json
    python -m benchmarks.suite --parts=peers,forms --minutes=8 --json=gpu.json           # on a GPU
    python -m benchmarks.suite --parts=peak,training,scoring,start,gpu --data_dir=DIR    # likewise

Beside each figure stands that of the peer in the same call: PyTorch with its tensors in memory at
its best number of threads, with `torch.compile` too where `--torch_compile` is given and it works;
as many one-thread PyTorch processes as cores; for tables PyOD. A ratio above 1 is in our favour.
`of peak` is the share of the measured matrix product.

The parts: `peak` (matrix products), `training` (seconds a run and epoch), `scoring` (images a
second), `start` (from the command of a small sweep to its first epoch and its table, with an empty
cache of compiled programs and with a filled one), `memory` and `compile` (of a process that trains
one case), `tables` (ten fits of a detector). Three more run everywhere but are meant for a GPU:
`peers` (training with 1 to 100 runs beside PyTorch's loop with a fused Adam, its step as one CUDA
graph, a `torch.func` ensemble of as many models and, with `--torch_compile`, `torch.compile`; and
whether a training repeated has the same bits), `forms` (training with each form of the convolution)
and `gpu` (`--big_sweep` from the command to its table, TF32 against float32). With `--minutes`
measurements that would start later are left out, and reported.
"""

import contextlib
import csv
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import rows as tables_of_rows
from benchmarks import scoring, subjects, tabular, training, ways
from benchmarks.rows import Row, advantage
from benchmarks.subjects import SUBJECTS, BenchmarkError
from deepsvdd_jax import convolution, runs

PARTS = (
    "peak",
    "training",
    "scoring",
    "start",
    "memory",
    "compile",
    "tables",
    "peers",
    "forms",
    "gpu",
)
# Measured only on request.
ON_REQUEST = ("peers", "forms", "gpu")
NETWORKS = ("mnist_lenet", "cifar10_lenet", "itu_cnn", "mlp")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
FORMS = convolution.FORMS
# Of part forms: runs in a program.
FORMED_RUNS = 10
PYTORCH = "PyTorch"
MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """The measurements of a call, flags resolved.

    Attributes:
      parts: some of `PARTS`.
      networks: of `training`, `memory`, `compile`.
      runs: numbers of runs in a program.
      images: training images; None takes each network's own number.
      repeats: rounds, of which the fastest counts.
      epochs: of one timing; None takes as many as fill it.
      devices: that a program is spread over.
      torch, torch_compile: whether these are measured beside it.
      scored: numbers of images to score, and
      scored_network: by what.
      sweep: flags of the sweep of `start`, and
      sweep_run: images, epochs and batch size of one of its runs, and how many it has.
      data_sets: of `tables`, and
      seeds: fits of each.
      big_sweep, precision_sweep: flags of the sweeps of `gpu`.
      data_dir: of `big_sweep`.
      cases: of `peers`: network, objective, numbers of runs.
      minutes: after which `peers` and `forms` start nothing more; None never.
    """

    parts: tuple[str, ...]
    networks: tuple[str, ...] = NETWORKS
    runs: tuple[int, ...] = (1, 4, 16, 64)
    images: int | None = None
    repeats: int = 3
    epochs: int | None = None
    devices: int = 1
    torch: bool = False
    torch_compile: bool = False
    scored: tuple[int, ...] = (10_000, 60_000)
    scored_network: str = "mnist_lenet"
    sweep: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = tuple(tabular.NORMAL_CLASSES)
    seeds: int = 10
    big_sweep: tuple[str, ...] = ("--dataset=mnist", "--preset=icml2018", "--seeds=10")
    precision_sweep: tuple[str, ...] = ()
    data_dir: str | None = None
    cases: tuple[tuple[str, str, tuple[int, ...]], ...] = ways.CASES
    minutes: float | None = None


QUICK: dict[str, Any] = {
    "networks": ("mnist_lenet", "mlp"),
    "runs": (1, 4),
    "images": 1000,
    "repeats": 2,
    "scored": (10_000,),
    "data_sets": ("wine",),
}


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_bool("quick", False, "A pass of a few minutes: less of everything.")
    flags.DEFINE_list("parts", [], f"Some of {','.join(PARTS)}; empty: all but peers, forms, gpu.")
    flags.DEFINE_float("minutes", None, "After which parts peers and forms start nothing more.")
    flags.DEFINE_list("networks", [], f"Some of {','.join(NETWORKS)}; empty: all.")
    flags.DEFINE_list("runs", [], "Numbers of runs in a program; empty: 1 to 64, on a GPU to 200.")
    flags.DEFINE_integer("repeats", None, "Rounds, of which the fastest counts.", lower_bound=1)
    flags.DEFINE_integer("images", None, "Training images of every network.", lower_bound=2)
    flags.DEFINE_bool("torch", True, "Measure PyTorch beside it, where it is installed.")
    flags.DEFINE_bool("torch_compile", False, "Measure `torch.compile` too (needs a C++ compiler).")
    flags.DEFINE_list("big_sweep", list(Plan.big_sweep), "Flags of the sweep of part gpu.")
    flags.DEFINE_string("data_dir", None, "Where that sweep's data are.")
    flags.DEFINE_string("json", None, "File to write the rows to.")
    flags.DEFINE_string("compare", None, "File of older rows; the newer one stands last.")


# --- peers --------------------------------------------------------------------------------------


class PeerStart(NamedTuple):
    """The cost of a lone run in a PyTorch process: seconds to the end of its first epoch, import
    included, seconds of a whole run, bytes at the peak."""

    first_epoch: float
    run: float
    peak_bytes: int


def start_peer(task: Mapping[str, Any], epochs: int) -> PeerStart:
    """Starts a PyTorch process, trains one run in it and ends it."""
    begun = time.perf_counter()
    with _worker() as worker:
        training.ask([worker], {"task": dict(task)})
        training.ask([worker], {"epochs": 1})
        first = time.perf_counter() - begun
        run = subjects.timed(lambda: _train_anew(worker, task, epochs))
        return PeerStart(first, run, int(training.say(worker, {"memory": True})))


def _train_anew(worker: subprocess.Popen[str], task: Mapping[str, Any], epochs: int) -> None:
    training.ask([worker], {"task": dict(task)})
    training.ask([worker], {"epochs": epochs})


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[str]]:
    worker = training.start_worker(subjects.cores())
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def compile_seconds_of_peer(task: Mapping[str, Any]) -> float | None:
    """Returns the seconds that `torch.compile` adds to the building of a network; None, with the
    reason on stderr, if it does not work."""
    with _worker() as worker:
        training.ask([worker], {"task": dict(task)})
        plain = subjects.timed(lambda: training.ask([worker], {"task": dict(task)}))
        begun = time.perf_counter()
        answer = training.say(worker, {"task": {**task, "mode": "compiled"}})
        seconds = time.perf_counter() - begun
    if answer != "done":
        print(f"torch.compile does not work here: {answer}", file=sys.stderr)
        return None
    return seconds - plain


# --- children -----------------------------------------------------------------------------------


class Child(NamedTuple):
    """The cost of a process of `benchmarks.child`.

    Attributes:
      seconds: from its start to its end.
      first_epoch: from its start to the end of the first epochs.
      compile_seconds: of the compiler, or of reading what it had made; threads added up.
      peak_bytes: most memory, of the device where that tells it.
    """

    seconds: float
    first_epoch: float
    compile_seconds: float
    peak_bytes: int


def run_child(kind: str, *arguments: str, variables: Mapping[str, str] | None = None) -> Child:
    """Runs `benchmarks.child` to its end.

    Raises:
      RuntimeError: it failed; with the last line that it said.
    """
    root = pathlib.Path(__file__).parents[1]
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", kind, str(started), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, **(variables or {})},
    )
    seconds = time.time() - started
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"benchmarks.child {kind} {' '.join(arguments)} failed: {said}")
    return Child(seconds, **json.loads(done.stdout.strip().splitlines()[-1]))


# --- parts --------------------------------------------------------------------------------------


def measure_peak(plan: Plan) -> list[Row]:
    """Returns the rates of matrix products on one device, by precision."""
    # A CPU computes all of them in float32.
    precisions = PRECISIONS[:1] if jax.default_backend() == "cpu" else PRECISIONS
    return [
        Row("peak", f"matrix product, {name}", product_rate(name, plan.repeats) / 1e9, "GFLOP / s")
        for name in precisions
    ]


def machine_peak(plan: Plan) -> float:
    """Returns operations a second of matrix products on all devices."""
    time_product = training.peak_timer(plan.devices)
    return training.peak_flops(min(time_product(1) for _ in range(plan.repeats)))


def product_rate(precision: str, repeats: int) -> float:
    """Returns operations a second of a product of square matrices on one device."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    matrix = jnp.ones((training.peak_side(),) * 2, dtype)
    with jax.default_matmul_precision(precision):
        square = jax.jit(lambda values: values @ values).lower(matrix).compile()
    best = min(
        subjects.timed(lambda: jax.block_until_ready(square(matrix))) for _ in range(repeats + 1)
    )
    return training.peak_flops(best)


def cases_of(plan: Plan) -> list[training.Case]:
    """Returns every network with every objective that it has the layers for."""
    return [
        training.Case(name, objective, plan.images or SUBJECTS[name].images)
        for name in plan.networks
        for objective in training.OBJECTIVES
        if objective != "autoencoder" or _has_decoder(name)
    ]


def _has_decoder(name: str) -> bool:
    try:
        subjects.decoder_layers(*SUBJECTS[name][:2])
    except BenchmarkError:
        return False
    return True


def training_settings(plan: Plan, cases: Sequence[training.Case]) -> training.Settings:
    """Returns the settings of `benchmarks.training` for some cases."""
    return training.Settings(
        cases=tuple(cases),
        runs=plan.runs,
        devices=plan.devices,
        repeats=plan.repeats,
        epochs=plan.epochs,
        torch=plan.torch,
        torch_compile=plan.torch_compile,
    )


def measure_training(plan: Plan) -> list[Row]:
    """Returns seconds a run and epoch."""
    settings = training_settings(plan, cases_of(plan))
    _, found, _ = training.results(list(training.measure(settings)), settings)
    return [training_row("training", "", row) for row in found]


def training_row(part: str, note: str, row: training.Row) -> Row:
    """Returns a row of `benchmarks.training` as one of the suite's."""
    split = ", batches split" if row.devices > row.runs else ""
    what = f"{row.network} {row.objective}, {row.images} images, {row.runs} run(s){split}{note}"
    return Row(
        part=part,
        what=what,
        value=row.seconds,
        unit="s / run and epoch",
        ratio=row.torch_ratio,
        processes_ratio=row.processes_ratio,
        of_peak=row.peak_share,
        peer="" if row.torch_ratio is None else PYTORCH,
    )


def measure_scoring(plan: Plan) -> list[Row]:
    """Returns images scored a second by one network."""
    name = plan.scored_network
    config, shape = SUBJECTS[name][:2]
    layers = subjects.encoder_layers(config, shape)
    flops = sum(map(training.layer_flops, layers))
    peak = machine_peak(plan)
    found = scoring.scorers(name, 1, plan.torch)
    rows = []
    for count in plan.scored:
        images = subjects.random_images(name, count)
        ours, *others = scoring.measure(found, images, plan.repeats)
        rate = ours.images_per_second
        best = max((row.images_per_second for row in others), default=None)
        rows.append(
            Row(
                "scoring",
                f"{name}, {count} images",
                rate,
                "images / s",
                advantage("images / s", rate, best),
                of_peak=flops * rate / peak,
                peer="" if best is None else PYTORCH,
            )
        )
    return rows


# Of a run of the default sweep.
DIGITS = training.Case("lenet", "one-class", 144)
DIGITS_EPOCHS, DIGITS_RUNS, DIGITS_BATCH = 50, 50, 64


def measure_start(plan: Plan) -> list[Row]:
    """Returns seconds from the command of a small sweep to its first epoch and to its table.

    PyTorch does not have the command: its first epoch is that of one run in a fresh process, its
    table so many times one run as the default sweep has, in that process.
    """
    task = training.peer_task(DIGITS) | {"batch_size": DIGITS_BATCH}
    peer = start_peer(task, DIGITS_EPOCHS) if plan.torch else None
    first = peer and peer.first_epoch
    table = peer and peer.first_epoch + DIGITS_RUNS * peer.run
    name = PYTORCH if peer else ""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            out = f"--out={folder}/{cache}"
            child = run_child("sweep", *plan.sweep, out, f"--compilation_cache={folder}/programs")
            for what, seconds, other in (
                ("first epoch", child.first_epoch, first),
                ("table", child.seconds, table),
            ):
                ratio = advantage("s", seconds, other)
                rows.append(Row("start", f"{what}, cache {cache}", seconds, "s", ratio, peer=name))
            rows.append(Row("start", f"compiler, cache {cache}", child.compile_seconds, "s"))
            memory, theirs = child.peak_bytes / MEBIBYTE, peer and peer.peak_bytes / MEBIBYTE
            ratio = advantage("MiB", memory, theirs)
            rows.append(Row("start", f"memory, cache {cache}", memory, "MiB", ratio, peer=name))
    return rows


class Trained(NamedTuple):
    """Processes that trained a case with an empty and a filled cache."""

    cold: Child
    warm: Child


@functools.cache
def train_in_children(case: training.Case, width: int) -> Trained:
    """Trains a case twice in processes of their own."""
    described = json.dumps([*case, width])
    with tempfile.TemporaryDirectory() as cache:
        return Trained(*(run_child("training", described, cache) for _ in range(2)))


def measure_memory(plan: Plan) -> list[Row]:
    """Returns the peak memory of processes that train one case."""
    rows = []
    for case in _one_class_cases(plan):
        peer = start_peer(training.peer_task(case), 1) if plan.torch else None
        for width in dict.fromkeys((plan.runs[0], plan.runs[-1])):
            memory = train_in_children(case, width).cold.peak_bytes / MEBIBYTE
            theirs = peer and peer.peak_bytes / MEBIBYTE
            what = f"{case.network} {case.objective}, {width} run(s)"
            ratio = advantage("MiB", memory, theirs)
            rows.append(Row("memory", what, memory, "MiB", ratio, peer=PYTORCH if peer else ""))
    return rows


def measure_compile(plan: Plan) -> list[Row]:
    """Returns seconds of the compiler, without and with the cache of an earlier process."""
    rows = []
    for case in _one_class_cases(plan):
        trained = train_in_children(case, plan.runs[0])
        peer = None
        if plan.torch and plan.torch_compile:
            peer = compile_seconds_of_peer(training.peer_task(case))
        for cache, child in (("empty", trained.cold), ("filled", trained.warm)):
            seconds = child.compile_seconds
            what = f"{case.network} {case.objective}, cache {cache}"
            ratio = advantage("s", seconds, peer)
            name = "" if peer is None else "torch.compile"
            rows.append(Row("compile", what, seconds, "s", ratio, peer=name))
    return rows


def _one_class_cases(plan: Plan) -> list[training.Case]:
    return [case for case in cases_of(plan) if case.objective == "one-class"]


def measure_tables(plan: Plan) -> list[Row]:
    """Returns seconds and AUROC of all seeds' fits, beside PyOD; without PyOD a line on stderr."""
    try:
        peer = tabular.import_pyod(plan.devices)
    except BenchmarkError as error:
        print(f"part tables is left out: {error}", file=sys.stderr)
        return []
    *_, mean = tabular.group_means(tabular.measure(plan.data_sets, plan.seeds, peer))
    ours, theirs = mean.ours, mean.theirs
    auroc, other = (100 * float(np.mean(one.aurocs)) for one in (ours, theirs))
    figures = (
        (f"{plan.seeds} seeds fitted, first", ours.first, "s", theirs.first),
        (f"{plan.seeds} seeds fitted, again", ours.again, "s", theirs.again),
        ("AUROC", auroc, "AUROC %", other),
    )
    return [
        Row("tables", what, value, unit, advantage(unit, value, peer_value), peer="PyOD")
        for what, value, unit, peer_value in figures
    ]


# --- the part for a GPU -------------------------------------------------------------------------


def measure_gpu(plan: Plan) -> list[Row]:
    """Returns the figures of the big sweep and of the precisions."""
    return [*measure_big_sweep(plan), *measure_precisions(plan)]


def measure_peers(plan: Plan, budget: ways.Budget) -> Iterator[list[Row]]:
    """Yields seconds a run and epoch beside every way of PyTorch, case by case."""
    cases = [
        (training.Case(name, objective, plan.images or SUBJECTS[name].images), widths)
        for name, objective, widths in plan.cases
        if name in plan.networks
    ]
    modes = ["loop", "graph", "ensemble"] if plan.torch else []
    if plan.torch and plan.torch_compile:
        modes.append("compiled")
    return ways.measure(cases, modes, plan.repeats, plan.epochs, budget)


def measure_big_sweep(plan: Plan) -> list[Row]:
    """Returns seconds from a sweep's command to its table, and runs an hour.

    PyTorch's are computed from the seconds of its epochs on the same device, as measured here: it
    would take days to train them.
    """
    data = [f"--data_dir={plan.data_dir}"] if plan.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "sweep"
        flags_of_sweep = (*plan.big_sweep, *data, f"--out={out}", "--compilation_cache=")
        child = run_child("sweep", *flags_of_sweep)
        settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
        count = len(_csv_rows(out / "runs.csv"))
    per_hour = 3600 * count / child.seconds
    peer = seconds_of_peer_run(settings["deep_svdd"], plan) if plan.torch else None
    ratio = advantage("runs / h", per_hour, peer and 3600 / peer)
    name = "" if peer is None else f"{PYTORCH}, from its epochs"
    what = f"{count} runs"
    return [
        Row("gpu", f"{what}, command to table", child.seconds, "s"),
        Row("gpu", f"{what}, first epoch", child.first_epoch, "s"),
        Row("gpu", what, per_hour, "runs / h", ratio, peer=name),
        Row("gpu", f"{what}, memory", child.peak_bytes / MEBIBYTE, "MiB"),
    ]


def seconds_of_peer_run(config: Mapping[str, Any], plan: Plan) -> float | None:
    """Returns PyTorch's seconds of a run with some configuration, from its seconds an epoch; None
    for a network that the benchmarks do not have."""
    name = config["network"]["name"]
    phases = {"autoencoder": config["pretraining"], "one-class": config["training"]}
    wanted = {objective: phase for objective, phase in phases.items() if phase is not None}
    if name not in SUBJECTS or ("autoencoder" in wanted and not _has_decoder(name)):
        return None
    total = 0.0
    with training.open_peers(True, training.peer_count()) as peers:
        assert peers is not None
        for objective, phase in wanted.items():
            case = training.Case(name, objective, plan.images or SUBJECTS[name].images)
            timers = training.peer_timers(peers, case)
            alone = {key: timers[key] for key in training.LONE_PEERS if key in timers}
            seconds = training.smallest_times(alone, 1, plan.repeats, lambda turn, name: None)
            total += phase["epochs"] * min(seconds.values())
    return total


def measure_forms(plan: Plan, budget: ways.Budget) -> Iterator[list[Row]]:
    """Yields seconds a run and epoch with each form of the convolution, form by form."""
    names = [name for name in plan.networks if len(SUBJECTS[name].shape) == 3]
    for form in FORMS:
        for name in names:
            if not budget.allows(f"{name}, form {form}"):
                continue
            # Programs compiled in another form would be reused.
            _forget_programs()
            case = training.Case(name, "one-class", plan.images or SUBJECTS[name].images)
            with convolution.use_form(form):
                rows = ways.measure_case(case, [FORMED_RUNS], plan.repeats, plan.epochs, [])
            yield [row._replace(part="forms", what=f"{row.what}, {form}") for row in rows]
    _forget_programs()


def _forget_programs() -> None:
    runs.forget_programs()
    jax.clear_caches()


def measure_precisions(plan: Plan) -> list[Row]:
    """Returns seconds and mean AUROC of the same sweep trained in TF32 and in float32; on a CPU
    both are float32."""
    rows = []
    for precision in PRECISIONS[:2]:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "sweep"
            child = run_child(
                "sweep",
                *plan.precision_sweep,
                f"--out={out}",
                "--compilation_cache=",
                variables={"JAX_DEFAULT_MATMUL_PRECISION": precision},
            )
            mean = next(
                row for row in _csv_rows(out / "summary.csv") if row["normal_class"] == "mean"
            )
        rows += [
            Row("gpu", f"digits in {precision}", child.seconds, "s"),
            Row("gpu", f"digits in {precision}", 100 * float(mean["auroc_mean"]), "AUROC %"),
        ]
    return rows


def _csv_rows(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


MEASURES: dict[str, Callable[[Plan], list[Row]]] = {
    "peak": measure_peak,
    "training": measure_training,
    "scoring": measure_scoring,
    "start": measure_start,
    "memory": measure_memory,
    "compile": measure_compile,
    "tables": measure_tables,
    "gpu": measure_gpu,
}

# These parts write the file piece by piece, and stop when the time is over.
STEPWISE: dict[str, Callable[[Plan, ways.Budget], Iterator[list[Row]]]] = {
    "peers": measure_peers,
    "forms": measure_forms,
}


# --- call ---------------------------------------------------------------------------------------


def plan_from_flags(values: flags.FlagValues) -> Plan:
    """Reads the flags; jax must not have been used yet, since the devices are set here.

    Raises:
      BenchmarkError: a name that is unknown, or a number that is none.
    """
    for given, allowed in ((values.parts, PARTS), (values.networks, NETWORKS)):
        for name in given:
            if name not in allowed:
                raise BenchmarkError(f"{name!r} is unknown; allowed: {', '.join(allowed)}")
    wanted = min(subjects.cores(), training.MOST_DEVICES)
    jax.config.update("jax_num_cpu_devices", wanted)
    chosen: dict[str, Any] = {
        "parts": tuple(values.parts) or tuple(part for part in PARTS if part not in ON_REQUEST),
        "devices": min(wanted, jax.local_device_count()),
        "torch": values.torch and subjects.torch_version() is not None,
        "torch_compile": values.torch_compile,
        "big_sweep": tuple(values.big_sweep),
        "data_dir": values.data_dir,
        "minutes": values.minutes,
    }
    if jax.default_backend() != "cpu":
        chosen["runs"] = (1, 4, 16, 64, 100, 200)
    if values.quick:
        chosen |= QUICK
    if values.networks:
        chosen["networks"] = tuple(values.networks)
    if values.runs:
        chosen["runs"] = training.positive("runs", values.runs)
    for name in ("repeats", "images"):
        if getattr(values, name) is not None:
            chosen[name] = getattr(values, name)
    return Plan(**chosen)


def measure(plan: Plan) -> Iterator[list[Row]]:
    """Measures the parts of a plan, one after the other."""
    budget = ways.budget_of(plan.minutes)
    for part in PARTS:
        if part in plan.parts:
            print(f"part {part}", file=sys.stderr, flush=True)
            if part in STEPWISE:
                yield from STEPWISE[part](plan, budget)
            else:
                yield MEASURES[part](plan)


def report(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Returns the text that a call prints."""
    head = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['devices']}, "
        f"jax {machine['jax']}, torch {machine['torch'] or '-'}; matrix product "
        f"{machine['peak_flops'] / 1e9:.0f} GFLOP/s"
    )
    parts = [head, "", tables_of_rows.format_rows(rows)]
    return "\n".join(parts if machine["torch"] else [*parts, "", training.INSTALL_TORCH])


def compare_files(old: str, rest: Sequence[str]) -> str:
    """Returns the comparison of two files.

    Raises:
      BenchmarkError: there are not two, or they cannot be compared.
    """
    if len(rest) != 1:
        raise BenchmarkError("give the newer file last: --compare=OLD.json NEW.json")
    (_, before), (_, after) = (tables_of_rows.read_json(path) for path in (old, rest[0]))
    return tables_of_rows.compare(before, after)


def run(plan: Plan, json_path: str | None) -> None:
    """Measures the plan; the file holds the finished figures at any time."""
    machine = training.describe_machine(plan.devices, machine_peak(plan))
    rows: list[Row] = []
    # An interrupted call still reports the parts that it has finished.
    with contextlib.suppress(KeyboardInterrupt):
        for part in measure(plan):
            rows += part
            if json_path is not None:
                tables_of_rows.write_json(json_path, machine, rows)
    print(report(machine, rows))


def main(arguments: list[str]) -> None:
    """Measures or compares by the flags and prints the result."""
    values = flags.FLAGS
    try:
        if values.compare is not None:
            print(compare_files(values.compare, arguments[1:]))
            return
        if arguments[1:]:
            raise BenchmarkError(f"{arguments[1]!r} is no flag")
        # Children and PyTorch share the device with this process.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        run(plan_from_flags(values), values.json)
    except BenchmarkError as error:
        print(f"benchmarks.suite: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        sys.exit(f"benchmarks.suite: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
