"""Trains the pending runs of a sweep, program by program, and hands each on when it has ended."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import objectives, preprocessing, runs, scoring, training
from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.sweeps import flights, pretraining
from deepsvdd_jax.cli.sweeps.ahead import Ahead
from deepsvdd_jax.cli.sweeps.flights import Flight, Left
from deepsvdd_jax.cli.sweeps.pretraining import Pretrained
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.runs import Engine, Outcome, Progress, Run, initialization, resident, streamed
from deepsvdd_jax.runs.memory import device_memory
from deepsvdd_jax.scoring import metrics

# Runs of one program on a CPU, where each device loops over its share: enough for the devices to
# end at about the same time, few enough that finished runs are written now and then.
CPU_RUNS_PER_PROGRAM = 10

# Aimed at between two looks at a program: a bar that moves, little time lost by a kill.
SECONDS_PER_CALL = 3.0

# Quantiles of the test distances of normal and anomalous images that a full pass notes.
PASS_QUANTILES = (0.1, 0.5, 0.9)

# Training images, the first of a run, whose distances a full pass notes one by one.
PASS_IMAGES = 256
_SAMPLE = "sample"


class Job(NamedTuple):
    """A run that is still to be trained, and the autoencoder that it starts from, if any."""

    name: RunName
    split: OneClassSplit
    start: Pretrained | None = None


class Schedule(NamedTuple):
    """How runs are put into programs, and how often they are looked at.

    Attributes:
      runs_per_program: None chooses.
      evaluate_every: epochs between two full passes over both sets; None makes none.
      wanted: how many runs the sweep has, finished ones too, and
      longest: most images of one of them, see `image_count`: both fix the shapes of a program, so
        that a sweep that is taken up again runs the program that it left.
      data_devices: over how many devices the batches of a run are split.
      memory_budget: bytes of images on a device, above which they are streamed; None chooses.
      ahead: compiles what trains after these runs; None compiles nothing ahead.
    """

    runs_per_program: int | None
    evaluate_every: int | None
    wanted: int
    longest: int
    data_devices: int = 1
    memory_budget: int | None = None
    ahead: Ahead | None = None


class Watch(NamedTuple):
    """What a sweep is told of.

    Attributes:
      finished: called once a run, when its program has ended.
      epochs: called with a number of run-epochs that are done or skipped.
      chunk: called with a program under way between two chunks of epochs.
      over: called with the names of a program's runs when all of them are finished.
      compiled: called about once a second while programs are compiled, with how many are done and
        of how many.
    """

    finished: Callable[["Finished"], None]
    epochs: Callable[[int], None]
    chunk: Callable[[Flight], None]
    over: Callable[[tuple[RunName, ...]], None]
    compiled: Callable[[int, int], None] = lambda done, total: None


class Finished(NamedTuple):
    """A run that has ended: its row, the scores file, the history, and what a model or a run that
    starts from it needs."""

    job: Job
    row: dict[str, Any]
    scores: dict[str, npt.NDArray[Any]] | None
    history: dict[str, npt.NDArray[Any]]
    state: training.TrainState
    fitted: preprocessing.Preprocessing
    image_shape: tuple[int, ...]


class _Group(NamedTuple):
    """Jobs that share pools of images, the preprocessing of each of their classes, and what of it
    is left to do to the pools."""

    jobs: list[Job]
    fitted: dict[int, preprocessing.Preprocessing]
    scalings: dict[int, preprocessing.Scaling]
    images: npt.NDArray[np.floating]
    test_images: npt.NDArray[np.floating]


def image_count(split: OneClassSplit) -> int:
    """Returns how many images a run holds: those that it trains on, the known anomalies last, then
    those held out of it."""
    return trained_count(split) + len(split.validation_indices)


def trained_count(split: OneClassSplit) -> int:
    """Returns how many images a run trains on, known anomalies among them."""
    return len(split.train_indices) + len(split.known_anomalies)


def run_key(seed: int, normal_class: int) -> jax.Array:
    """Returns the key of a run: it depends on nothing but the run itself."""
    return jax.random.fold_in(jax.random.key(seed), normal_class)


class _Program(NamedTuple):
    """Runs that train together, and all that does not change while they do."""

    config: RunConfig
    network: Network
    engine: Engine
    mesh: jax.sharding.Mesh
    shared: Any
    stacked: Run
    jobs: list[Job]
    group: _Group

    @property
    def parts(self) -> tuple[Any, ...]:
        """What the moves of an engine are about."""
        return self.config, self.network, self.mesh, self.shared, self.stacked


def train_jobs(
    config: RunConfig,
    dataset: Dataset,
    jobs: list[Job],
    schedule: Schedule,
    watch: Watch,
    lefts: Sequence[Left] = (),
) -> None:
    """Trains all jobs.

    Args:
      config: of all runs; without a pretraining, which is a job of its own.
      dataset: raw images.
      jobs: what to train; nothing is done for an empty list.
      schedule: how.
      watch: what is called meanwhile.
      lefts: programs that were left under way, all of whose runs are among the jobs.

    Raises:
      Failure: a program of one run a device does not fit its memory.
    """
    if not jobs:
        return
    network = build_network(config.network, tuple(dataset.x_train.shape[1:]))
    for group in _groups(config, dataset, jobs):
        _train_group(config, network, group, schedule, watch, lefts)


def _train_group(
    config: RunConfig,
    network: Network,
    group: _Group,
    schedule: Schedule,
    watch: Watch,
    lefts: Sequence[Left],
) -> None:
    width, mesh = choose_width(schedule)
    engine = _engine(group, schedule)
    shared = engine.share(mesh, group.images, group.test_images)
    at_once = runs.places_for_runs(mesh)
    by_name = {job.name: job for job in group.jobs}
    to_take_up = [left for left in lefts if by_name.keys() >= set(left.names)]
    taken = {name for left in to_take_up for name in left.names}
    rest = [job for job in group.jobs if job.name not in taken]
    while rest or to_take_up:
        left = to_take_up.pop(0) if to_take_up else None
        part = rest[:width] if left is None else [by_name[name] for name in left.names]
        full = math.ceil(max(width, len(part)) / at_once) * at_once
        try:
            stacked = _stack(config, group, part, full, schedule.longest)
            placed = runs.place(mesh, stacked)
            program = _Program(config, network, engine, mesh, shared, placed, part, group)
            flight = None if left is None else _take_up(program, left)
            _train_program(program, schedule, watch, flight)
        except (jax.errors.JaxRuntimeError, _TooWide) as error:
            width = _narrower(error, full, at_once)
            if left is not None and len(part) <= width:
                to_take_up.insert(0, left)
            else:
                # What was taken up starts anew in narrower programs.
                rest = part + rest if left is not None else rest
            continue
        if left is None:
            rest = rest[len(part) :]


class _TooWide(RuntimeError):
    """A program of more runs than a device has the memory for; so many a device would do."""

    def __init__(self, runs_per_device: int) -> None:
        super().__init__(f"{runs_per_device} runs a device fit its memory")
        self.runs_per_device = runs_per_device


def _is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)


def _narrower(error: jax.errors.JaxRuntimeError | _TooWide, width: int, at_once: int) -> int:
    """Returns the width of the programs after one that did not fit, a multiple of the runs that
    train at once; says so on stderr."""
    if isinstance(error, _TooWide):
        programs = math.ceil(width / (error.runs_per_device * at_once))
        narrower = math.ceil(width / programs / at_once) * at_once
    elif _is_out_of_memory(error):
        narrower = width // 2 // at_once * at_once
    else:
        raise error
    if narrower < 1:
        raise environment.Failure(
            "out of device memory with one run a device; lower --batch_size or take a smaller "
            "--network"
        )
    print(
        f"out of device memory with {width} runs in a program; {narrower} from here on",
        file=sys.stderr,
    )
    return narrower


def _groups(config: RunConfig, dataset: Dataset, jobs: list[Job]) -> Iterator[_Group]:
    """Classes share one pool unless their preprocessing changes the images: whitening, or a scaling
    that float32 values are too coarse for."""
    by_class: dict[int, list[Job]] = {}
    for job in jobs:
        by_class.setdefault(job.name.normal_class, []).append(job)
    shared = None if config.preprocessing.zca else _shared_pool(config, dataset, jobs, by_class)
    if shared is not None:
        yield shared
        return
    for label, members in by_class.items():
        normals = dataset.x_train[members[0].split.train_indices]
        fitted = preprocessing.fit(config.preprocessing, normals)
        images, scaling = preprocessing.apply_on_host(fitted, dataset.x_train)
        test, _ = preprocessing.apply_on_host(fitted, dataset.x_test)
        yield _Group(members, {label: fitted}, {label: scaling}, images, test)


def _shared_pool(
    config: RunConfig, dataset: Dataset, jobs: list[Job], by_class: dict[int, list[Job]]
) -> _Group | None:
    """Returns all jobs with pools that every class scales on the device, in float32; None where
    that would lose digits."""
    contrast = config.preprocessing.contrast
    images = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_train), contrast)
    test = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_test), contrast)
    scalings: dict[int, preprocessing.Scaling] = {}
    for label, members in by_class.items():
        normals = images[members[0].split.train_indices]
        scaling = preprocessing.fit_scaling(config.preprocessing, normals)
        if not preprocessing.fits_float32(scaling):
            return None
        shift, scale = (part.astype(np.float32) for part in scaling)
        scalings[label] = preprocessing.Scaling(shift, scale)
    fitted = {
        label: preprocessing.Preprocessing(contrast, None, scaling)
        for label, scaling in scalings.items()
    }
    pools = (part.astype(np.float32, copy=False) for part in (images, test))
    return _Group(jobs, fitted, scalings, *pools)


def _stack(
    config: RunConfig,
    group: _Group,
    jobs: list[Job],
    width: int,
    longest: int,
) -> Run:
    """Stacks the jobs of a program; what is missing is filled with runs that have no images."""
    settings = runs.phase_settings(config)
    stacked = []
    for job in jobs:
        scaling = group.scalings[job.name.normal_class]
        indices, split = job.split.train_indices, job.split
        # What stands behind the training images is scored by a full pass and otherwise padding.
        held = np.concatenate([indices, split.known_anomalies, split.validation_indices])
        labels = np.zeros(len(held), np.int32)
        labels[len(indices) : trained_count(split)] = -1
        # Without images a run is over before it begins: one whose autoencoder failed.
        count = trained_count(split) if _start_failure(job) == training.NOT_FAILED else 0
        data = training.run_data(held, longest, scaling.shift, scaling.scale, count, labels)
        if job.start is not None:
            weights = pretraining.starting_weights(config, job.start)
        else:
            images = (group.images[indices] - scaling.shift) * scaling.scale
            weights = initialization.initial_weights(config, images, job.name.seed)
        stacked.append(Run(run_key(*job.name[:0:-1]), data, *settings, weights))
    nothing = training.run_data(np.zeros(0, np.int32), longest, scaling.shift, scaling.scale)
    empty = stacked[0]._replace(data=nothing)
    return runs.stack_runs(stacked + [empty] * (width - len(stacked)))


def choose_width(schedule: Schedule) -> tuple[int, jax.sharding.Mesh]:
    """Returns how many runs a program has, a multiple of those that train at once, and the mesh of
    its devices. On an accelerator that tells its memory that is all of them, see `_compile`."""
    split = schedule.data_devices
    devices = jax.local_devices()
    places = len(devices) // split
    if schedule.runs_per_program is not None:
        wanted = schedule.runs_per_program
    elif device_memory() is None:
        wanted = min(CPU_RUNS_PER_PROGRAM, schedule.wanted)
    else:
        wanted = schedule.wanted
    at_once = min(places, wanted)
    mesh = runs.make_mesh(devices[: at_once * split], split)
    return math.ceil(wanted / at_once) * at_once, mesh


def _engine(group: _Group, schedule: Schedule) -> Engine:
    return streamed.choose_engine(schedule.memory_budget, group.images, group.test_images)


def _compile(program: _Program, schedule: Schedule, watch: Watch) -> None:
    """Compiles a program.

    Raises:
      _TooWide: it needs more memory than its device has, and was not asked for in this width.
    """
    needed = program.engine.compile(*program.parts, watch.compiled)
    memory = device_memory()
    if memory is not None and needed and schedule.runs_per_program is None:
        width = len(program.stacked.data.count) // runs.places_for_runs(program.mesh)
        pools = sum(leaf.nbytes for leaf in jax.tree.leaves(program.shared))
        fits = runs.widest_program(needed, pools, width, memory)
        if fits < width:
            raise _TooWide(fits)
    if schedule.ahead is not None and program.engine is resident.IN_MEMORY:
        schedule.ahead.start(
            *choose_width(schedule), program.network, program.shared, program.stacked
        )


def _take_up(program: _Program, left: Left) -> Flight | None:
    """Returns a flight that was left, on the devices; None, with a line, where it does not fit."""
    template = runs.state_template(
        program.config, program.network, program.shared, program.stacked, left.phase
    )
    flight = flights.restore(left, template)
    if flight is None:
        return None
    progress = flight.progress
    return flight._replace(
        progress=progress._replace(
            state=runs.place(program.mesh, progress.state),
            untrained_distances=runs.place(program.mesh, progress.untrained_distances),
        )
    )


def _train_program(
    program: _Program, schedule: Schedule, watch: Watch, flight: Flight | None
) -> None:
    config, jobs = program.config, program.jobs
    parts = program.parts
    started = time.perf_counter()
    _compile(program, schedule, watch)
    if flight is None:
        names = tuple(job.name for job in jobs)
        flight = Flight(names, _begun(program), {}, 0.0)
    told = flight.progress.epoch
    watch.epochs(told * len(jobs))
    epochs, warm, before_seconds = 1, False, flight.seconds
    while not runs.is_over(config, flight.progress):
        before = time.perf_counter()
        asked = _up_to_a_pass(epochs, flight.progress.epoch, schedule.evaluate_every)
        progress = program.engine.advance(*parts, flight.progress, asked)
        done = progress.epoch
        if warm:
            # The first call compiled; from the second on the time tells how many epochs to ask for.
            seconds = max(time.perf_counter() - before, 1e-3)
            epochs = max(1, min(4 * epochs, round((done - told) * SECONDS_PER_CALL / seconds)))
        warm = True
        watch.epochs((done - told) * len(jobs))
        told = done
        flight = flight._replace(
            progress=progress,
            evaluations=_with_pass(program, schedule, progress, flight.evaluations),
            seconds=before_seconds + time.perf_counter() - started,
        )
        watch.chunk(flight)
    outcome = program.engine.end(*parts, flight.progress)
    outcome, untrained = jax.device_get((outcome, flight.progress.untrained_distances))
    watch.epochs((config.training.epochs - told) * len(jobs))
    seconds = (before_seconds + time.perf_counter() - started) / len(jobs)
    for number, job in enumerate(jobs):
        watch.finished(
            _finish(config, job, program.group, number, outcome, flight, untrained[number], seconds)
        )
    watch.over(flight.names)


def _begun(program: _Program) -> runs.Progress:
    """Starts a program. Of runs that go on from an autoencoder the untrained network is the one
    that this began with."""
    progress = program.engine.begin(*program.parts)
    if all(job.start is None for job in program.jobs):
        return progress
    drawn = program._replace(stacked=_as_drawn(program))
    untrained = program.engine.begin(*drawn.parts).untrained_distances
    return progress._replace(untrained_distances=untrained)


def _as_drawn(program: _Program) -> Run:
    """Returns the runs of a program with the weights that their autoencoders began with."""
    config, mesh = program.config, program.mesh
    width, longest = program.stacked.data.indices.shape
    jobs = [job._replace(start=None) for job in program.jobs]
    fresh = runs.place(mesh, _stack(config, program.group, jobs, width, longest))
    draw = runs.compiled(runs.init_params, mesh, config, program.network)
    params, statistics = draw((), (fresh,))
    return fresh._replace(weights={**params, "statistics": statistics})


def _up_to_a_pass(epochs: int, done: int, every: int | None) -> int:
    """Returns how many of the next epochs may run before a full pass is due."""
    return epochs if every is None else min(epochs, every - done % every)


def _with_pass(
    program: _Program,
    schedule: Schedule,
    progress: Progress,
    found: dict[str, npt.NDArray[Any]],
) -> dict[str, npt.NDArray[Any]]:
    """Adds the figures of a full pass over both sets where one is due."""
    every = schedule.evaluate_every
    if every is None or progress.epoch % every:
        return found
    parts = (program.config, program.network, program.mesh, program.shared, program.stacked)
    train, test = jax.device_get(program.engine.evaluate(*parts, progress))
    radius = np.asarray(progress.state.squared_radius)
    rows = [
        _pass_figures(
            *_trained_and_held_out(train[number], job.split),
            test[number][job.split.test_indices],
            job.split.test_labels,
            float(radius[number]),
        )
        for number, job in enumerate(program.jobs)
    ]
    new: dict[str, npt.NDArray[Any]] = {
        name: np.array([[row[name] for row in rows]]) for name in rows[0]
    }
    new |= {
        "epoch": np.array([progress.epoch]),
        _SAMPLE: train[None, : len(program.jobs), :PASS_IMAGES],
    }
    return {
        name: np.concatenate([found[name], values]) if name in found else values
        for name, values in new.items()
    }


def _trained_and_held_out(
    distances: npt.NDArray[np.floating], split: OneClassSplit
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    unlabelled, trained = len(split.train_indices), trained_count(split)
    return distances[:unlabelled], distances[trained : image_count(split)]


def _pass_figures(
    train: npt.NDArray[np.floating],
    held_out: npt.NDArray[np.floating],
    test: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    squared_radius: float,
) -> dict[str, float]:
    """Returns what a full pass tells of one run; NaN for a run whose distances are not finite."""
    finite = bool(np.isfinite(train).all() and np.isfinite(test).all())
    figures = {
        "test_auroc": metrics.auroc(test, labels) if finite else np.nan,
        "full_mean_distance": float(train.mean()),
        "full_outside": float((train > squared_radius).mean()),
    }
    if len(held_out):
        figures["held_out_mean_distance"] = float(held_out.mean())
    for name, values in (("normal", test[labels == 0]), ("anomalous", test[labels == 1])):
        for quantile in PASS_QUANTILES:
            place = f"test_{name}_q{round(100 * quantile):02d}"
            figures[place] = float(np.quantile(values, quantile)) if finite else np.nan
    return figures


# --- from a program's end to rows and files -----------------------------------------------------


def _finish(
    config: RunConfig,
    job: Job,
    group: _Group,
    number: int,
    outcome: Outcome,
    flight: Flight,
    untrained: npt.NDArray[np.floating],
    seconds: float,
) -> Finished:
    state = jax.tree.map(lambda leaf: leaf[number], outcome.state)
    history = _history_columns(flight.progress, number)
    history |= _pass_columns(flight.evaluations, history, number)
    objective = objectives.objective(config.training.objective)
    row: dict[str, Any] = {
        "objective": config.training.objective.kind,
        "epochs": len(history["epoch"]),
        "train_seconds": round(seconds, 3),
    }
    if job.start is not None:
        history = _after_pretraining(job.start.history, history)
    fitted = group.fitted[job.name.normal_class]
    shape = group.images.shape[1:]
    finished = Finished(job, row, None, history, state, fitted, shape)
    failure = _start_failure(job) or int(state.failure)
    if failure != training.NOT_FAILED:
        row["failed_epoch"] = len(history["epoch"])
        row["failure"] = training.FAILURES[failure]
        return finished
    train = np.asarray(outcome.train_distances)[number][: len(job.split.train_indices)]
    test = np.asarray(outcome.test_distances)[number][job.split.test_indices]
    offset = float(scoring.score_offset(config.training.objective, state.squared_radius))
    row |= evaluate_scores(
        test - offset, job.split.test_labels, train - offset, config.threshold_quantile
    )
    untrained = untrained[job.split.test_indices]
    row["outside"] = float(outcome.outside[number])
    row["auroc_untrained"] = metrics.auroc(untrained, job.split.test_labels)
    row["collapsed"] = metrics.is_collapsed(test) or (
        objective.has_center
        and (
            bool(outcome.spread[number] < metrics.COLLAPSED_SPREAD)
            or (
                config.network.has_bias_terms
                and metrics.is_collapsed_on_training(train, state.center)
            )
        )
    )
    scores = score_arrays(test - offset, test, job.split.test_labels, train)
    return finished._replace(scores=scores | _pass_arrays(flight.evaluations, number, job.split))


def _start_failure(job: Job) -> int:
    return training.NOT_FAILED if job.start is None else job.start.failure


def evaluate_scores(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    train_scores: npt.NDArray[np.floating],
    quantile: float,
    tested: npt.NDArray[np.integer] | None = None,
) -> dict[str, float]:
    """Returns the figures of a row: ranking, classification at the threshold, score summaries."""
    chosen = slice(None) if tested is None else tested
    threshold = metrics.training_threshold(train_scores, quantile)
    row = dict(metrics.evaluate(scores[chosen], labels[chosen], threshold)._asdict())
    for part, values in (("test", scores[chosen]), ("train", train_scores)):
        summary = metrics.summarize_scores(values)._asdict()
        row |= {f"{part}_{name}": value for name, value in summary.items()}
    return row


def score_arrays(
    scores: npt.NDArray[np.floating],
    distances: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    train_distances: npt.NDArray[np.floating],
    tested: npt.NDArray[np.integer] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a scores file.

    `distances` are positive and averaged over seeds in an ensemble, each divided by `train_mean`,
    the mean of `train_distances`; `tested` marks the images that the row's figures are about.
    """
    mask = np.ones(len(labels), bool)
    if tested is not None:
        mask = np.isin(np.arange(len(labels)), tested)
    return {
        "scores": np.asarray(scores, np.float32),
        "labels": np.asarray(labels, np.uint8),
        "distances": np.asarray(distances, np.float32),
        "train_mean": np.asarray(float(train_distances.mean()), np.float64),
        "train_distances": np.asarray(train_distances, np.float32),
        "tested": mask,
    }


def _after_pretraining(
    before: dict[str, npt.NDArray[Any]], history: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Puts the epochs of the autoencoder in front; a column that only one of them has is empty in
    the other's rows."""
    before = before | {"phase": np.full(len(before["epoch"]), "pretraining")}

    def rows(columns: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
        return columns.get(name, np.full(len(columns["epoch"]), np.nan))

    names = dict.fromkeys([*history, *before])
    return {name: np.concatenate([rows(before, name), rows(history, name)]) for name in names}


def _history_columns(progress: Progress, number: int) -> dict[str, npt.NDArray[Any]]:
    """Returns one row an epoch that was run."""
    # A program whose autoencoders have all failed has no epoch.
    every = progress.history.get("training", _no_epochs(len(progress.state.epoch)))
    info = jax.tree.map(lambda values: np.asarray(values)[number], every)
    table: dict[str, npt.NDArray[Any]] = {
        "epoch": np.arange(1, len(info.ran) + 1),
        "loss": info.loss,
        "radius": info.radius,
        "phase": np.full(len(info.ran), "training"),
        "data_loss": info.data_loss,
        "mean_distance": info.mean_distance,
        "outside": info.outside,
        "parameter_norm": info.parameter_norm,
        "parameter_change": info.parameter_change,
        "center_drift": info.center_drift,
        "learning_rate": info.learning_rate,
    }
    for place, quantile in enumerate(training.DISTANCE_QUANTILES):
        table[f"distance_q{round(100 * quantile):02d}"] = info.distance_quantiles[:, place]
    return {name: values[info.ran] for name, values in table.items()}


def _no_epochs(width: int) -> training.EpochInfo:
    columns: dict[str, Any] = {name: np.zeros((width, 0)) for name in training.EpochInfo._fields}
    columns["ran"] = np.zeros((width, 0), bool)
    columns["distance_quantiles"] = np.zeros((width, 0, len(training.DISTANCE_QUANTILES)))
    return training.EpochInfo(**columns)


def _pass_columns(
    evaluations: dict[str, npt.NDArray[Any]], history: dict[str, npt.NDArray[Any]], number: int
) -> dict[str, npt.NDArray[Any]]:
    """Returns the figures of the full passes, NaN for the epochs in between."""
    columns = {}
    for name in sorted(evaluations.keys() - {"epoch", _SAMPLE}):
        columns[name] = np.full(len(history["epoch"]), np.nan)
        for epoch, values in zip(evaluations["epoch"], evaluations[name], strict=True):
            columns[name][history["epoch"] == epoch] = values[number]
    return columns


def _pass_arrays(
    evaluations: dict[str, npt.NDArray[Any]], number: int, split: OneClassSplit
) -> dict[str, npt.NDArray[Any]]:
    """Returns what the full passes noted of single training images: epochs `[passes]`, places in
    the pool of training images `[n]`, distances `[passes, n]`."""
    if not evaluations:
        return {}
    images = split.train_indices[:PASS_IMAGES]
    return {
        "pass_epochs": evaluations["epoch"],
        "pass_images": images,
        "pass_distances": evaluations[_SAMPLE][:, number, : len(images)],
    }
