"""The row, scores and history of a deep run that has finished."""

from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import objectives, preprocessing, scoring, training
from deepsvdd_jax.cli.sweeps import figures, passes
from deepsvdd_jax.cli.sweeps.checkpoints import ProgramCheckpoint
from deepsvdd_jax.cli.sweeps.pools import ImagePool, Job, start_failure, training_set
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.runs import Outcome, Progress
from deepsvdd_jax.scoring import metrics


class Finished(NamedTuple):
    """A finished run: its row, scores and history, and the state for a model or for a run that
    starts from it."""

    job: Job
    row: dict[str, Any]
    scores: dict[str, npt.NDArray[Any]] | None
    history: dict[str, npt.NDArray[Any]]
    state: training.TrainState
    fitted: preprocessing.Preprocessing
    image_shape: tuple[int, ...]


def finish(
    config: RunConfig,
    job: Job,
    pool: ImagePool,
    number: int,
    outcome: Outcome,
    checkpoint: ProgramCheckpoint,
    untrained: npt.NDArray[np.floating],
    seconds: float,
) -> Finished:
    state = jax.tree.map(lambda leaf: leaf[number], outcome.state)
    history = _history_columns(checkpoint.progress, number)
    history |= passes.pass_columns(checkpoint.evaluations, history, number)
    objective = objectives.objective(config.training.objective)
    row: dict[str, Any] = {
        "objective": config.training.objective.kind,
        "epochs": len(history["epoch"]),
        "train_seconds": round(seconds, 3),
    }
    if job.start is not None:
        history = _after_pretraining(job.start.history, history)
    fitted = pool.fitted[training_set(job.split)]
    shape = pool.images.shape[1:]
    finished = Finished(
        job=job,
        row=row,
        scores=None,
        history=history,
        state=state,
        fitted=fitted,
        image_shape=shape,
    )
    failure = start_failure(job) or int(state.failure)
    if failure != training.NOT_FAILED:
        row["failed_epoch"] = len(history["epoch"])
        row["failure"] = training.FAILURES[failure]
        return finished
    train = np.asarray(outcome.train_distances)[number][: len(job.split.train_indices)]
    test = np.asarray(outcome.test_distances)[number][job.split.test_indices]
    offset = float(scoring.score_offset(config.training.objective, state.squared_radius))
    row |= figures.evaluate_scores(
        test - offset, job.split.test_labels, train - offset, config.threshold_quantile
    )
    untrained = untrained[job.split.test_indices]
    row["outside"] = float(outcome.fraction_outside[number])
    row["auroc_untrained"] = metrics.auroc(untrained, job.split.test_labels)
    row["collapsed"] = metrics.is_collapsed(test) or (
        objective.has_center
        and (
            bool(outcome.collapse_ratio[number] < metrics.COLLAPSED_SPREAD)
            or (
                config.network.has_bias_terms
                and metrics.is_collapsed_on_training(train, state.center)
            )
        )
    )
    scores = figures.score_arrays(test - offset, test, job.split.test_labels, train)
    return finished._replace(
        scores=scores | passes.pass_arrays(checkpoint.evaluations, number, job.split)
    )


def _after_pretraining(
    before: dict[str, npt.NDArray[Any]], history: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Puts the epochs of the autoencoder before those of the run; a column that only one of them
    has is empty in the other's rows."""
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
