"""Trains the pending runs of a sweep, program by program, and hands each on when it has ended."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import initialization, metrics, preprocessing, runs, training
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.runs import Outcome, Progress, Run, Shared
from experiments.results import RunName

# Runs of one program on a CPU, where each device loops over its share: enough for the devices to
# end at about the same time, few enough that finished runs are written now and then.
CPU_RUNS_PER_PROGRAM = 10

# Aimed at between two looks at a program: a bar that moves, little time lost by a kill.
SECONDS_PER_CALL = 3.0


class Job(NamedTuple):
    """A run that is still to be trained."""

    name: RunName
    split: OneClassSplit


class Finished(NamedTuple):
    """A run that has ended: its row, the scores file, the history and what a model needs."""

    job: Job
    row: dict[str, Any]
    scores: dict[str, npt.NDArray[Any]] | None
    history: dict[str, npt.NDArray[Any]]
    state: training.TrainState
    fitted: preprocessing.Preprocessing
    image_shape: tuple[int, ...]


class _Group(NamedTuple):
    """Jobs that share pools of images, and the preprocessing of each of their classes."""

    jobs: list[Job]
    fitted: dict[int, preprocessing.Preprocessing]
    images: npt.NDArray[np.floating]
    test_images: npt.NDArray[np.floating]


def run_key(seed: int, normal_class: int) -> jax.Array:
    """Returns the key of a run: it depends on nothing but the run itself."""
    return jax.random.fold_in(jax.random.key(seed), normal_class)


def train_jobs(
    config: RunConfig,
    dataset: Dataset,
    jobs: list[Job],
    runs_per_program: int | None,
    on_finished: Callable[[Finished], None],
    on_epochs: Callable[[int], None],
) -> None:
    """Trains all jobs; `on_epochs` is told of every epoch of a run that is done or skipped.

    Args:
      config: of all runs.
      dataset: raw images.
      jobs: what to train; nothing is done for an empty list.
      runs_per_program: None chooses.
      on_finished: called once a run, as soon as its program has ended.
      on_epochs: called with a number of run-epochs.
    """
    if not jobs:
        return
    network = build_network(config.network, tuple(dataset.x_train.shape[1:]))
    longest = max(len(job.split.train_indices) for job in jobs)
    for group in _groups(config, dataset, jobs):
        width, mesh = choose_width(config, network, group, longest, runs_per_program, len(jobs))
        shared = runs.share(mesh, group.images, group.test_images)
        for start in range(0, len(group.jobs), width):
            part = group.jobs[start : start + width]
            stacked = runs.place_runs(mesh, _stack(config, dataset, group, part, width, longest))
            _train_program(
                config, network, mesh, shared, stacked, part, group, on_finished, on_epochs
            )


def total_epochs(config: RunConfig) -> int:
    """Returns the epochs of one run, pretraining included."""
    return config.training.epochs + (config.pretraining.epochs if config.pretraining else 0)


def _groups(config: RunConfig, dataset: Dataset, jobs: list[Job]) -> Iterator[_Group]:
    """Classes share one pool unless whitening, fitted to each class, changes the images."""
    by_class: dict[int, list[Job]] = {}
    for job in jobs:
        by_class.setdefault(job.name.normal_class, []).append(job)
    if config.preprocessing.zca:
        for label, members in by_class.items():
            normals = dataset.x_train[members[0].split.train_indices]
            whitened = preprocessing.fit(config.preprocessing, normals)
            yield _Group(
                members,
                {label: whitened},
                preprocessing.apply_unscaled(whitened, dataset.x_train),
                preprocessing.apply_unscaled(whitened, dataset.x_test),
            )
        return
    contrast = config.preprocessing.contrast
    images = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_train), contrast)
    test = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_test), contrast)
    fitted: dict[int, preprocessing.Preprocessing] = {}
    for label, members in by_class.items():
        normals = images[members[0].split.train_indices]
        scaling = preprocessing.fit_scaling(config.preprocessing, normals)
        fitted[label] = preprocessing.Preprocessing(contrast, None, scaling)
    yield _Group(jobs, fitted, images, test)


def _stack(
    config: RunConfig,
    dataset: Dataset,
    group: _Group,
    jobs: list[Job],
    width: int,
    longest: int,
) -> Run:
    """Stacks the jobs of a program; what is missing is filled with runs that have no images."""
    settings = runs.phase_settings(config)
    stacked = []
    for job in jobs:
        scaling = group.fitted[job.name.normal_class].scaling
        indices = job.split.train_indices
        data = training.RunData(
            jnp.asarray(np.pad(indices, (0, longest - len(indices))), jnp.int32),
            jnp.int32(len(indices)),
            jnp.asarray(scaling.shift),
            jnp.asarray(scaling.scale),
        )
        weights = initialization.initial_weights(
            config,
            (group.images[indices] - scaling.shift) * scaling.scale,
            job.name.seed,
        )
        stacked.append(Run(run_key(*job.name[:0:-1]), data, *settings, weights))
    empty = stacked[0]._replace(data=stacked[0].data._replace(count=jnp.int32(0)))
    return runs.stack_runs(stacked + [empty] * (width - len(stacked)))


def choose_width(
    config: RunConfig,
    network: Network,
    group: _Group,
    longest: int,
    asked: int | None,
    jobs: int,
) -> tuple[int, jax.sharding.Mesh]:
    """Returns how many runs a program has, a multiple of the devices, and the mesh of these."""
    devices = jax.local_devices()
    if asked is not None:
        wanted = asked
    elif jax.default_backend() == "cpu":
        wanted = min(CPU_RUNS_PER_PROGRAM, jobs)
    else:
        wanted = min(jobs, _width_by_memory(config, network, group, longest, devices))
    mesh = runs.make_mesh(devices[: min(len(devices), wanted)])
    return math.ceil(wanted / mesh.size) * mesh.size, mesh


def _width_by_memory(
    config: RunConfig, network: Network, group: _Group, longest: int, devices: list[jax.Device]
) -> int:
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None:
        return CPU_RUNS_PER_PROGRAM
    shapes: list[Any] = [
        jax.ShapeDtypeStruct(pool.shape, jnp.float32) for pool in (group.images, group.test_images)
    ]
    fits = runs.widest_program(config, network, Shared(*shapes), longest, limit)
    return max(1, fits) * len(devices)


def _train_program(
    config: RunConfig,
    network: Network,
    mesh: jax.sharding.Mesh,
    shared: Shared,
    stacked: Run,
    jobs: list[Job],
    group: _Group,
    on_finished: Callable[[Finished], None],
    on_epochs: Callable[[int], None],
) -> None:
    started = time.perf_counter()
    progress = runs.begin_runs(config, network, mesh, shared, stacked)
    told, epochs = 0, 1
    while not runs.is_over(config, progress):
        before = time.perf_counter()
        progress = runs.continue_runs(config, network, mesh, shared, stacked, progress, epochs)
        done = _epochs_done(config, progress)
        if told:
            # The first call compiled; from the second on the time tells how many epochs to ask for.
            seconds = max(time.perf_counter() - before, 1e-3)
            epochs = max(1, min(4 * epochs, round(epochs * SECONDS_PER_CALL / seconds)))
        on_epochs((done - told) * len(jobs))
        told = done
    outcome = runs.end_runs(config, network, mesh, shared, stacked, progress)
    outcome, untrained = jax.device_get((outcome, progress.untrained_distances))
    on_epochs((total_epochs(config) - told) * len(jobs))
    seconds = (time.perf_counter() - started) / len(jobs)
    for number, job in enumerate(jobs):
        on_finished(
            _finish(config, job, group, number, outcome, progress, untrained[number], seconds)
        )


def _epochs_done(config: RunConfig, progress: Progress) -> int:
    before = 0
    if progress.phase == "training" and config.pretraining is not None:
        before = config.pretraining.epochs
    return before + progress.epoch


# --- from a program's end to rows and files -----------------------------------------------------


def _finish(
    config: RunConfig,
    job: Job,
    group: _Group,
    number: int,
    outcome: Outcome,
    progress: Progress,
    untrained: npt.NDArray[np.floating],
    seconds: float,
) -> Finished:
    state = jax.tree.map(lambda leaf: leaf[number], outcome.state)
    history = _history_columns(progress, number)
    objective = config.training.objective.kind
    row: dict[str, Any] = {
        "objective": objective,
        "epochs": int(np.sum(np.array(history["phase"]) == "training")),
        "train_seconds": round(seconds, 3),
    }
    finished = Finished(
        job, row, None, history, state, group.fitted[job.name.normal_class], group.images.shape[1:]
    )
    if int(state.failure) != training.NOT_FAILED:
        row["failed_epoch"] = len(history["epoch"])
        return finished
    train = np.asarray(outcome.train_distances)[number][: len(job.split.train_indices)]
    test = np.asarray(outcome.test_distances)[number][job.split.test_indices]
    offset = float(state.squared_radius) if objective == "soft-boundary" else 0.0
    row |= evaluate_scores(
        test - offset, job.split.test_labels, train - offset, config.threshold_quantile
    )
    untrained = untrained[job.split.test_indices]
    row["auroc_untrained"] = metrics.evaluate(untrained, job.split.test_labels, np.inf).auroc
    row["collapsed"] = metrics.is_collapsed(test) or bool(
        objective != "reconstruction" and outcome.spread[number] < metrics.COLLAPSED_SPREAD
    )
    scores = score_arrays(test - offset, test, job.split.test_labels, float(train.mean()))
    return finished._replace(scores=scores)


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
    train_mean: float,
    tested: npt.NDArray[np.integer] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a scores file.

    `distances` are positive and averaged over seeds in an ensemble, each divided by `train_mean`;
    `tested` marks the images that the row's figures are about.
    """
    mask = np.ones(len(labels), bool)
    if tested is not None:
        mask = np.isin(np.arange(len(labels)), tested)
    return {
        "scores": np.asarray(scores, np.float32),
        "labels": np.asarray(labels, np.uint8),
        "distances": np.asarray(distances, np.float32),
        "train_mean": np.asarray(train_mean, np.float64),
        "tested": mask,
    }


def _history_columns(progress: Progress, number: int) -> dict[str, npt.NDArray[Any]]:
    """Returns one row an epoch that was run, pretraining first."""
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for phase in runs.PHASES:
        if phase not in progress.history:
            continue
        info = jax.tree.map(lambda values: np.asarray(values)[number], progress.history[phase])
        ran = info.ran
        table: dict[str, npt.NDArray[Any]] = {
            "epoch": np.arange(1, len(ran) + 1),
            "loss": info.loss,
            "radius": info.radius,
            "phase": np.full(len(ran), phase),
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
        for name, values in table.items():
            columns.setdefault(name, []).append(values[ran])
    return {name: np.concatenate(parts) for name, parts in columns.items()}
