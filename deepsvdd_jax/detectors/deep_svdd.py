"""Trains a model with a threshold on normal images; `scores` scores new ones by it."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import objectives, preprocessing, runs, training
from deepsvdd_jax.configs import ConfigError, DetectorConfig, RunConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import embeddings
from deepsvdd_jax.detectors.errors import CollapseWarning, ConstantFeatureWarning, TrainingError
from deepsvdd_jax.detectors.held_out import cross_folds, held_out_mask
from deepsvdd_jax.detectors.inputs import Images, check_finite, check_trainable, network_values
from deepsvdd_jax.detectors.members import train_members
from deepsvdd_jax.detectors.scores import (
    Scores,
    combine_distances,
    member_distances,
    member_scores,
)
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks.process import check_process
from deepsvdd_jax.preprocessing import Preprocessing, Whitening
from deepsvdd_jax.runs import memory
from deepsvdd_jax.scoring import calibration, metrics
from deepsvdd_jax.training import TrainState

History = dict[str, dict[str, npt.NDArray[Any]]]
"""By phase and name of `training.EpochInfo`: `[members, epochs, ...]`; where `ran` is False, a
member had stopped and the other values mean nothing."""

_EMPTY_WHITENING = Whitening(np.zeros(0), np.zeros((0, 0)))


class Checkpoint(NamedTuple):
    """Saves and resumes a training under way.

    Attributes:
      save: called with the progress after every chunk of epochs.
      resume: called once, with the program; returns the progress to go on from, or None to start
        anew.
    """

    save: Callable[[runs.Progress], None]
    resume: Callable[[runs.Program], runs.Progress | None]


class Prepared(NamedTuple):
    """Samples that are ready for training.

    Attributes:
      train: `[n, ...]`, normal training samples, as `network_values` returns them.
      held_out: `[m, ...]`, normal samples that are held out of training.
      fitted: the preprocessing, fitted to `train`.
      inputs: `[n + known, ...]`, network input, the known anomalies last.
      labels: int32 `[n + known]`.
      known: how many known anomalies there are.
      folds: int `[n]`, with cross-calibration the member that is not trained on each normal sample,
        -1 where all are; None otherwise.
      regions: bool `[known, height, width]`, anomalous pixels of the known anomalies, no pixel
        where they are not known; None where they are known of no image.
    """

    train: Images
    held_out: Images
    fitted: Preprocessing
    inputs: Images
    labels: npt.NDArray[np.int32]
    known: int
    folds: npt.NDArray[np.int64] | None = None
    regions: npt.NDArray[np.bool_] | None = None


# --- fitting ------------------------------------------------------------------------------------


def fit_detector(
    config: DetectorConfig,
    images: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    regions: npt.ArrayLike | None = None,
    feature_names: tuple[str, ...] = (),
    groups: npt.ArrayLike | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_compiled: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    prepared: Prepared | None = None,
) -> tuple[Model, History]:
    """Trains all members on normal images and sets the threshold.

    The first seed draws the calibration part; preprocessing is fitted to the rest. On the same
    machine equal arguments give equal models, to the last bit.

    Args:
      config: what to train.
      images: `[n, height, width, channels]` or `[n, features]`, see `network_values`. Columns of a
        table that are constant are named in a `ConstantFeatureWarning`.
      labels: `[n]`: 0 unlabelled, 1 known normal, -1 known anomalous; None is 0 for all.
        Preprocessing, radius, calibration and threshold come from all but the known anomalies.
      regions: bool `[known, height, width]`, of the known anomalies in their order, True on the
        pixels that make them so, nowhere where these are not known; for an objective that learns
        where anomalies are.
      feature_names: columns of a table, kept in the model.
      groups: `[n]`, equal for images that are held out together or not at all, as near-duplicates
        should be; None holds out one by one.
      on_progress: called after every chunk of epochs with how many are done and how many there are.
      on_compiled: called about once a second while programs are compiled, with how many are done
        and of how many.
      checkpoint: saves and resumes the training under way.
      prepared: what `prepare` returned for the same arguments; None prepares them.

    Returns:
      The model, and the history of its training.

    Raises:
      ConfigError: a setting that does not suit the images, or too few of these for the alarm rate.
      DataError: images that cannot be trained on.
      TrainingError: a member failed.
    """
    parts = prepare(config, images, labels, groups, regions) if prepared is None else prepared
    if config.run.preprocessing.standardize:
        _warn_of_constant_columns(parts.train, feature_names)
    outcome, progress = train_members(
        config,
        parts.inputs,
        parts.labels,
        on_progress=_reporting(config.run, on_progress, checkpoint),
        on_compiled=on_compiled,
        start=checkpoint and checkpoint.resume,
        folds=parts.folds,
        regions=parts.regions,
    )
    _check_outcome(config, outcome)
    shape = parts.train.shape[1:]
    model = make_model(config.run, parts.fitted, outcome.state, shape, feature_names)
    history = {phase: info._asdict() for phase, info in progress.history.items()}
    distances = member_distances(model, parts.train)
    model = _with_radius(config, model, distances, parts.folds)
    _warn_of_collapse(config, model, outcome.collapse_ratio)
    if config.embedding_score != "center":
        model, distances = embeddings.with_reference(model, config.embedding_score, parts.train)
        model = model._replace(train_means=distances.mean(axis=1, dtype=np.float64))
    model = _with_threshold(config, model, parts, distances, progress)
    if parts.known:
        model = model._replace(summary={**model.summary, "known_anomalies": parts.known})
    return model, history


def prepare(
    config: DetectorConfig,
    images: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    regions: npt.ArrayLike | None = None,
) -> Prepared:
    """Checks samples, holds some out, and preprocesses the others; arguments and errors are those
    of `fit_detector`."""
    check_process()
    values = network_values(images)
    check_trainable(values)
    checked = _checked_labels(config.run, labels, len(values))
    known, normal = checked < 0, checked >= 0
    aside = np.zeros(len(values), bool)
    of_normals = np.arange(normal.sum()) if groups is None else np.asarray(groups)[normal]
    folds = cross_folds(config, of_normals) if config.calibration == "cross" else None
    aside[normal] = held_out_mask(config, of_normals)
    train = values[normal & ~aside]
    runs.check_radius(config.run)
    embeddings.check(config, len(train))
    marked = _checked_regions(config.run, regions, (int(known.sum()), *values.shape[1:3]))
    training.check_images(config.run.training, values.shape[1:], marked is not None)
    least = len(train) if folds is None else len(train) - int(np.bincount(folds + 1)[1:].max())
    runs.check_image_count(config.run, least)
    memory.check_memory(config.run, values.shape[1:], len(config.seeds))
    # A scaling fitted to a fold would have seen the samples that calibrate it.
    fitted = preprocessing.fit(
        config.run.preprocessing, train if folds is None else train[folds < 0]
    )
    inputs = preprocessing.apply(fitted, np.concatenate([train, values[known]]))
    check_finite(inputs, "once they are scaled")
    trained_labels = np.concatenate([checked[normal & ~aside], checked[known]])
    return Prepared(
        train=train,
        held_out=values[aside],
        fitted=fitted,
        inputs=inputs,
        labels=trained_labels,
        known=int(known.sum()),
        folds=folds,
        regions=marked,
    )


def _checked_regions(
    config: RunConfig, regions: npt.ArrayLike | None, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """Returns the marked pixels of known anomalies, None where none is.

    Raises:
      DataError: regions of another shape.
      ConfigError: an objective that does not use regions.
    """
    if regions is None:
        return None
    marked = np.asarray(regions)
    if marked.dtype != bool or marked.shape != shape:
        raise DataError(
            f"regions have shape {marked.shape} and type {marked.dtype}; expected bool and "
            f"{shape}: one for each known anomaly, of the images' height and width"
        )
    if not config.training.objective.needs_masks:
        raise ConfigError(
            f"objective {config.training.objective.kind} does not learn from regions; take fcdd "
            "with map_masks"
        )
    return marked if marked.any() else None


def _checked_labels(
    config: RunConfig, labels: npt.ArrayLike | None, count: int
) -> npt.NDArray[np.int32]:
    """Returns the labels of samples, `[n]`.

    Raises:
      DataError: labels of another kind or number, or none that the objective can learn from.
      ConfigError: labels for an objective that does not use them.
    """
    objective = config.training.objective
    needs_anomalies = objective.needs_anomalies and not config.training.synthetic_anomalies
    if labels is None:
        if needs_anomalies:
            raise DataError(f"objective {objective.kind} needs known anomalies: give labels, -1")
        return np.zeros(count, np.int32)
    values = np.asarray(labels)
    if values.shape != (count,):
        raise DataError(f"labels have shape {values.shape}, expected ({count},): one a sample")
    allowed = np.isin(values, (0, 1, -1)) if values.dtype.kind in "iuf" else np.zeros(count, bool)
    if not allowed.all():
        wrong = int(np.argmin(allowed))
        raise DataError(
            f"label {values[wrong]!r} at index {wrong}; allowed: 0 (unlabelled), 1 (known normal), "
            "-1 (known anomalous)"
        )
    if not objective.uses_labels:
        raise ConfigError(f"objective {objective.kind} does not learn from labels; try deep-sad")
    if needs_anomalies and not np.any(values == -1):
        raise DataError(f"objective {objective.kind} needs known anomalies: no label is -1")
    return values.astype(np.int32)


def _reporting(
    config: RunConfig,
    on_progress: Callable[[int, int], None] | None,
    checkpoint: Checkpoint | None,
) -> Callable[[runs.Progress], None] | None:
    """Returns the function to call after every chunk; None without a listener."""
    if on_progress is None and checkpoint is None:
        return None

    def report(progress: runs.Progress) -> None:
        if on_progress is not None:
            on_progress(_epochs_done(config, progress), _epochs(config))
        if checkpoint is not None:
            checkpoint.save(progress)

    return report


def _epochs(config: RunConfig) -> int:
    return config.training.epochs + (config.pretraining.epochs if config.pretraining else 0)


def _epochs_done(config: RunConfig, progress: runs.Progress) -> int:
    if runs.is_over(config, progress):
        return _epochs(config)
    before = _epochs(config) - config.training.epochs if progress.phase == "training" else 0
    return before + progress.epoch


def _check_outcome(config: DetectorConfig, outcome: runs.Outcome) -> None:
    seeds = np.array(config.seeds)
    failure = np.asarray(outcome.state.failure)
    for code, reason in training.FAILURES.items():
        if np.any(failure == code):
            raise TrainingError(f"training failed for {_named(seeds[failure == code])}: {reason}")


def _warn_of_collapse(config: DetectorConfig, model: Model, ratio: Array) -> None:
    """Warns of members that map nearly every input to one point, or with bias terms every training
    sample: embeddings of noise may still differ, and then do not show that."""
    if not objectives.objective(config.run.training.objective).has_center:
        return
    seeds, everything = np.array(config.seeds), np.asarray(ratio) < metrics.COLLAPSED_SPREAD
    # A user's module may have biases.
    has_bias_terms = getattr(config.run.network, "has_bias_terms", True)
    training_set = ~everything & np.array(
        [
            has_bias_terms and metrics.is_collapsed_on_training(mean, center)
            for mean, center in zip(model.train_means, model.center, strict=True)
        ]
    )
    for collapsed, what in ((everything, "input"), (training_set, "training sample")):
        if np.any(collapsed):
            warnings.warn(
                f"{_named(seeds[collapsed])}: the hypersphere collapsed, nearly every {what} is "
                "mapped to one point; use a network without bias, a lower learning rate or fewer "
                "epochs",
                CollapseWarning,
                stacklevel=3,
            )


def _named(seeds: npt.NDArray[np.integer]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


# --- the model ----------------------------------------------------------------------------------


def make_model(
    config: RunConfig,
    fitted: Preprocessing,
    states: TrainState,
    image_shape: tuple[int, ...],
    feature_names: tuple[str, ...] = (),
) -> Model:
    """Returns the model of trained states, whose threshold still calls everything normal.

    Args:
      config: of the runs.
      fitted: the preprocessing from images to network input.
      states: stacked along a leading axis of members.
      image_shape: of one image.
      feature_names: columns of a table.
    """
    whitening = fitted.whitening or _EMPTY_WHITENING
    params, statistics, center, squared_radius = jax.device_get(
        (states.params, states.statistics, states.center, states.squared_radius)
    )
    return Model(
        config=config,
        image_shape=tuple(image_shape),
        feature_names=feature_names,
        params=params,
        statistics=statistics,
        center=center,
        squared_radius=squared_radius,
        train_means=np.ones(len(center)),
        shift=fitted.scaling.shift,
        scale=fitted.scaling.scale,
        whitening_mean=whitening.mean,
        whitening_matrix=whitening.matrix,
        calibration_scores=np.zeros(0, np.float32),
        threshold=float("inf"),
        summary={},
    )


def _with_radius(
    config: DetectorConfig,
    model: Model,
    distances: Scores,
    folds: npt.NDArray[np.int64] | None,
) -> Model:
    """Returns the model with each member's radius and mean, of the distances `[members, n]` of the
    training samples to its center."""
    nu = config.run.training.objective.nu
    own = [one if folds is None else one[folds != member] for member, one in enumerate(distances)]
    # The same program measures distances here and later, so that d - R^2 is exactly 0 at the
    # radius.
    squared_radius = [calibration.radius_threshold(one, nu) for one in own]
    return model._replace(
        squared_radius=np.array(squared_radius, np.float32),
        train_means=distances.mean(axis=1, dtype=np.float64)
        if folds is None
        else np.array([one.mean(dtype=np.float64) for one in own]),
    )


def _with_threshold(
    config: DetectorConfig,
    model: Model,
    parts: Prepared,
    distances: Scores,
    progress: runs.Progress,
) -> Model:
    """Returns the model with calibration and threshold, from the distances `[members, n]` of the
    training samples, and those of the samples that were held out."""
    train, folds = parts.train, parts.folds
    train_scores = combine_distances(model, distances)
    if folds is None:
        held_out_scores = combine_distances(model, member_distances(model, parts.held_out))
        model = model._replace(calibration_scores=np.sort(held_out_scores))
    else:
        model = _cross_calibrated(model, distances, folds)
    if not (np.isfinite(train_scores).all() and np.isfinite(model.calibration_scores).all()):
        raise TrainingError("scores are not finite; lower the learning rate")
    if metrics.are_all_equal(distances):
        warnings.warn(
            f"the scores of all {len(train)} training samples are equal: the model tells nothing "
            "apart; look at the scaling of the data, or train with a lower learning rate",
            CollapseWarning,
            stacklevel=3,
        )
    threshold, rule = _threshold(config, train_scores, model.calibration_scores)
    ran = np.asarray(progress.history["training"].ran).sum(axis=1)
    return model._replace(
        threshold=threshold,
        summary={
            "objective": config.run.training.objective.kind,
            "seeds": list(config.seeds),
            "train_samples": len(train),
            "calibration_samples": len(model.calibration_scores),
            "epochs": [int(epochs) for epochs in ran],
            "threshold_rule": rule,
            "train_alarms": int(np.sum(train_scores > threshold)),
            # `judge` compares p-values with it.
            **({} if folds is None else {"alarm_rate": config.alarm_rate}),
        },
    )


def _cross_calibrated(model: Model, distances: Scores, folds: npt.NDArray[np.int64]) -> Model:
    """Returns the model with its calibration: the score of every sample of a fold by the member
    that has not seen it, ascending, and the number of that member."""
    places = np.flatnonzero(folds >= 0)
    scores = member_scores(model, distances)[folds[places], places]
    order = np.argsort(scores, kind="stable")
    return model._replace(
        calibration_scores=scores[order], calibration_folds=folds[places][order].astype(np.int32)
    )


def _threshold(
    config: DetectorConfig, train_scores: Scores, calibration_scores: Scores
) -> tuple[float, str]:
    """Returns the threshold and a few words on where it comes from."""
    nu, quantile = config.run.training.objective.nu, config.run.threshold_quantile
    if config.threshold_rule == "contamination":
        every = np.concatenate([train_scores, calibration_scores])
        threshold = calibration.contamination_threshold(every, config.contamination)
        return threshold, f"a share of {config.contamination:g} of all given samples is above"
    if config.threshold_rule == "radius":
        threshold = calibration.radius_threshold(train_scores, nu)
        return threshold, f"outside the sphere, where a share of {nu:g} of the training may be"
    if config.threshold_rule == "conformal":
        threshold = calibration.conformal_threshold(calibration_scores, config.alarm_rate)
        if config.calibration == "cross":
            return threshold, f"a cross-conformal p-value of {config.alarm_rate:g} at most"
        return threshold, f"a normal is above with probability {config.alarm_rate:g} at most"
    threshold = metrics.training_threshold(train_scores, quantile)
    return threshold, f"quantile {quantile:g} of the training scores"


def _warn_of_constant_columns(train: Images, names: tuple[str, ...]) -> None:
    line = preprocessing.describe_constant(train, names)
    if line is not None:
        warnings.warn(line, ConstantFeatureWarning, stacklevel=3)
