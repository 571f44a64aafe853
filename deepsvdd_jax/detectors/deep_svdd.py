"""From normal images to a model with a threshold, and from a model to scores of new images.

A model's members, one for each seed, train in one program. Scores are higher for more anomalous
images: of a single member d, or d - R^2 for a soft boundary; of several the mean over members of d,
each divided by its mean over the training images.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax import objectives, preprocessing, runs, scoring, training
from deepsvdd_jax.configs import BaseObjectiveConfig, ConfigError, DetectorConfig, RunConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import columns
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.networks.process import check_process
from deepsvdd_jax.preprocessing import Preprocessing, Scaling, Whitening
from deepsvdd_jax.runs import initialization, memory, streamed
from deepsvdd_jax.scoring import calibration, cross_calibration, metrics
from deepsvdd_jax.training import TrainState

Images = npt.NDArray[Any]
Scores = npt.NDArray[np.float32]
History = dict[str, dict[str, npt.NDArray[Any]]]
"""By phase and name of `training.EpochInfo`: `[members, epochs, ...]`; where `ran` is False, a
member had stopped and the other values mean nothing."""

DEFAULT_ALARM_RATE = 0.01

# Of cross-calibration: the share of the samples that scales all others.
SCALING_SHARE = 0.2

# Of one call that scores: steps of a device, and bytes of its images.
_MOST_BATCHES_PER_CALL = 32
_BYTES_PER_CALL = 1 << 25

# Epochs between two calls of `on_progress`.
_EPOCHS_PER_REPORT = 5

# The number of training images is rounded up to a multiple of this at least: what is compiled for
# one number serves the numbers near it.
_SMALLEST_POOL_STEP = 64
_FEWEST_ROWS, _MOST_ROUNDED_ROWS = 1024, 8192

_EMPTY_WHITENING = Whitening(np.zeros(0), np.zeros((0, 0)))


class TrainingError(RuntimeError):
    """Training gave no usable network; one line that names the seeds and says what may help."""


class CollapseWarning(UserWarning):
    """A network maps nearly every input to one point, so that its scores tell little."""


class ConstantFeatureWarning(UserWarning):
    """Columns of a training table are constant; one line names them."""


class Checkpoint(NamedTuple):
    """How a training is kept while it is under way.

    Attributes:
      save: called with the progress after every chunk of epochs.
      resume: called once, with the program; returns the progress to go on from, or None to start
        anew.
    """

    save: Callable[[runs.Progress], None]
    resume: Callable[[runs.Program], runs.Progress | None]


class Prepared(NamedTuple):
    """Samples that are ready to be trained on.

    Attributes:
      train: `[n, ...]`, normal ones that are trained on, as `network_values` gives them.
      held_out: `[m, ...]`, normal ones that are not.
      fitted: the preprocessing, of `train`.
      inputs: `[n + known, ...]`, network input, the known anomalies last.
      labels: int32 `[n + known]`.
      known: how many known anomalies there are.
      folds: int `[n]`, of cross-calibration the member that is not trained on each normal sample,
        -1 where all members are; None otherwise.
    """

    train: Images
    held_out: Images
    fitted: Preprocessing
    inputs: Images
    labels: npt.NDArray[np.int32]
    known: int
    folds: npt.NDArray[np.int64] | None = None


# --- fitting ------------------------------------------------------------------------------------


def fit_detector(
    config: DetectorConfig,
    images: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    feature_names: tuple[str, ...] = (),
    groups: npt.ArrayLike | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_compiled: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Model, History]:
    """Trains all members on normal images and sets the threshold.

    The calibration part is a permutation's, drawn from the first seed; preprocessing is fitted to
    the rest. On the same machine equal arguments give equal models, to the last bit.

    Args:
      config: what to train.
      images: `[n, height, width, channels]` or `[n, features]`, see `network_values`. Columns of a
        table that are constant are named in a `ConstantFeatureWarning`.
      labels: `[n]`: 0 unlabelled, 1 known normal, -1 known anomalous; None is 0 for all.
        Preprocessing, radius, calibration and threshold come from all but the known anomalies.
      feature_names: columns of a table, kept in the model.
      groups: `[n]`, equal for images that are held out together or not at all, as near-duplicates
        should be; None holds out one by one.
      on_progress: called now and then with the epochs that are done, and all there are.
      on_compiled: called about once a second while programs are compiled, with how many are done
        and of how many.
      checkpoint: keeps the training under way, and takes it up again.

    Returns:
      The model, and the history of its training.

    Raises:
      ConfigError: a setting that does not suit the images, or too few of these for the alarm rate.
      DataError: images that cannot be trained on.
      TrainingError: a member failed.
    """
    parts = prepare(config, images, labels, groups)
    if config.run.preprocessing.standardize:
        _warn_of_constant_columns(parts.train, feature_names)
    outcome, progress = train_members(
        config,
        parts.inputs,
        parts.labels,
        _reporting(config.run, on_progress, checkpoint),
        on_compiled,
        start=checkpoint and checkpoint.resume,
        folds=parts.folds,
    )
    _check_outcome(config, outcome)
    shape = parts.train.shape[1:]
    model = make_model(config.run, parts.fitted, outcome.state, shape, feature_names)
    history = {phase: info._asdict() for phase, info in progress.history.items()}
    model = _with_threshold(config, model, parts, progress)
    if parts.known:
        model = model._replace(summary={**model.summary, "known_anomalies": parts.known})
    _warn_of_collapse(config, model, outcome.collapse_ratio)
    return model, history


def prepare(
    config: DetectorConfig,
    images: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> Prepared:
    """Checks samples, holds some out, and preprocesses the others; arguments and errors are those
    of `fit_detector`."""
    check_process()
    values = network_values(images)
    _check_trainable(values)
    checked = _checked_labels(config.run, labels, len(values))
    known, normal = checked < 0, checked >= 0
    aside = np.zeros(len(values), bool)
    of_normals = np.arange(normal.sum()) if groups is None else np.asarray(groups)[normal]
    folds = cross_folds(config, of_normals) if config.calibration == "cross" else None
    aside[normal] = held_out_mask(config, of_normals)
    train = values[normal & ~aside]
    runs.check_radius(config.run)
    training.check_images(config.run.training, values.shape[1:])
    least = len(train) if folds is None else len(train) - int(np.bincount(folds + 1)[1:].max())
    runs.check_image_count(config.run, least)
    memory.check_memory(config.run, values.shape[1:], len(config.seeds))
    # A scaling that had seen a fold would have seen what it calibrates.
    fitted = preprocessing.fit(
        config.run.preprocessing, train if folds is None else train[folds < 0]
    )
    inputs = preprocessing.apply(fitted, np.concatenate([train, values[known]]))
    _check_finite(inputs, "once they are scaled")
    trained_labels = np.concatenate([checked[normal & ~aside], checked[known]])
    return Prepared(train, values[aside], fitted, inputs, trained_labels, int(known.sum()), folds)


def held_out_count(calibration_fraction: float, count: int) -> int:
    """Returns how many of `count` samples are held out of training: at least one of a share that
    is not 0."""
    return max(1, round(calibration_fraction * count)) if calibration_fraction else 0


def default_alarm_rate(calibration_fraction: float, count: int) -> float:
    """Returns the false-alarm rate of a threshold that nobody set a rate for: 1 %, or the lowest
    that the samples held out of `count` carry, 1 / (held out + 1)."""
    return max(DEFAULT_ALARM_RATE, 1.0 / (held_out_count(calibration_fraction, count) + 1))


def _checked_labels(
    config: RunConfig, labels: npt.ArrayLike | None, count: int
) -> npt.NDArray[np.int32]:
    """Returns the labels of samples, `[n]`.

    Raises:
      DataError: labels of another kind or number, or none that the objective can learn from.
      ConfigError: labels for an objective that does not look at them.
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


def held_out_mask(config: DetectorConfig, groups: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Returns which samples `fit_detector` holds out of training to calibrate with, `[n]`.

    Args:
      config: of the detector.
      groups: `[n]`, of all samples that are no known anomalies, equal for those that are held out
        together; 0 .. n - 1 holds out one by one.

    Raises:
      ConfigError: too few samples are left to train on, or held out for the false-alarm rate.
    """
    count = len(np.asarray(groups))
    if config.calibration == "cross":
        return np.zeros(count, bool)
    wanted = held_out_count(config.calibration_fraction, count)
    random = np.random.RandomState(config.seeds[0] % 2**32)
    held_out = _held_out(random, wanted, groups)
    if config.calibration_fraction and count - held_out.sum() < 2:
        raise ConfigError(
            f"calibration_fraction {config.calibration_fraction:g} of {count} samples leaves "
            f"{held_out.sum()} for calibration and {count - held_out.sum()} for training; at least "
            "2 are needed for training"
        )
    if config.threshold_rule == "conformal":
        # Before the training, not after it.
        calibration.conformal_threshold(np.zeros(held_out.sum()), config.alarm_rate)
    return held_out


def cross_folds(config: DetectorConfig, groups: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Returns the fold of every sample that is no known anomaly, which is the member that is not
    trained on it, `[n]`; -1 of the share, about a fifth, that the preprocessing is fitted to: all
    members are trained on it, and it calibrates none.

    Raises:
      ConfigError: fewer samples, or groups of them, than folds, or too few for the false-alarm
        rate.
    """
    count = len(np.asarray(groups))
    random = np.random.RandomState(config.seeds[0] % 2**32)
    base = _held_out(random, held_out_count(SCALING_SHARE, count), groups)
    folds = np.full(count, -1, np.int64)
    folds[~base] = cross_calibration.deal_folds(
        random, np.asarray(groups)[~base], len(config.seeds)
    )
    # Before the training, not after it.
    calibration.conformal_threshold(np.zeros((~base).sum()), config.alarm_rate)
    return folds


def _held_out(
    random: np.random.RandomState, wanted: int, groups: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Returns which samples are held out, `[n]`: whole groups, drawn until there are enough."""
    if not wanted:
        return np.zeros(len(np.asarray(groups)), bool)
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = random.permutation(len(sizes))
    drawn = np.searchsorted(np.cumsum(sizes[order]), wanted) + 1
    return np.isin(members, order[:drawn])


def train_members(
    config: DetectorConfig,
    images: Images,
    labels: npt.NDArray[np.int32],
    on_progress: Callable[[runs.Progress], None] | None = None,
    on_compiled: Callable[[int, int], None] | None = None,
    count: int | None = None,
    epochs_per_call: int | None = None,
    start: Callable[[runs.Program], runs.Progress | None] | None = None,
    folds: npt.NDArray[np.int64] | None = None,
) -> tuple[runs.Outcome, runs.Progress]:
    """Trains all members in one program.

    Args:
      config: of the detector.
      images: `[n, ...]`, network input.
      labels: int32 `[n]`.
      on_progress: called after every chunk of epochs.
      on_compiled: see `fit_detector`.
      count: how many of the images, the first, are trained on; None trains on all. The compiled
        program is the same.
      epochs_per_call: of a chunk; None chooses.
      start: see `Checkpoint.resume`.
      folds: see `Prepared`; member k is trained on all images but those of fold k.
    """
    padding = _padded_count(len(images), is_table=images.ndim == 2) - len(images)
    pool = np.pad(images, ((0, padding), *((0, 0),) * (images.ndim - 1)))
    ones = (1,) * (images.ndim - 1)
    scaling = np.zeros(ones), np.ones(ones)
    seeds = _filled(config.seeds, is_table=images.ndim == 2)
    keys = jax.vmap(jax.random.key)(np.array([seed % 2**32 for seed in seeds], np.uint32))
    members = [_trained_on(len(images), folds, config.seeds.index(seed)) for seed in seeds]
    data = [training.run_data(own, len(pool), *scaling, count, labels[own]) for own in members]
    weights = [
        initialization.initial_weights(
            config.run, images[own] if folds is not None else images, seed
        )
        for own, seed in zip(members, seeds, strict=True)
    ]
    width = columns.program_width(config.run, images.shape[1:])
    if width is not None:
        pool = columns.pad(pool, width)
        factors = columns.start_factors(config.run.network, images.shape[1], width)
        weights = [{"factors": factors} | drawn for drawn in weights]
    if epochs_per_call is None:
        epochs_per_call = _EPOCHS_PER_REPORT if on_progress else runs.MOST_EPOCHS_PER_CALL
    outcome, progress = runs.train_runs(
        keys,
        config.run,
        pool,
        data=data,
        weights=weights,
        engine=streamed.choose_engine(None, pool),
        start=start,
        epochs_per_call=epochs_per_call,
        on_progress=on_progress,
        on_compiled=on_compiled,
    )
    if len(seeds) > len(config.seeds):
        outcome, history = jax.tree.map(
            lambda leaf: leaf[: len(config.seeds)], (outcome, progress.history)
        )
        progress = progress._replace(history=history)
    if width is not None:
        params = columns.cut(config.run.network, outcome.state.params, images.shape[1])
        outcome = outcome._replace(state=outcome.state._replace(params=params))
    return outcome, progress


def _trained_on(
    count: int, folds: npt.NDArray[np.int64] | None, member: int
) -> npt.NDArray[np.integer]:
    """Returns which of the inputs, the normal ones first, a member is trained on."""
    everything = np.arange(count)
    if folds is None:
        return everything
    return np.concatenate([np.flatnonzero(folds != member), everything[len(folds) :]])


def _filled(seeds: tuple[int, ...], *, is_table: bool) -> tuple[int, ...]:
    """Returns seeds for all devices: where there are more members than devices, the last one is
    repeated, and thrown away in the end, until every device has as many. A program of five members
    would have one device otherwise. A table's program is over before that is gained."""
    devices = jax.local_device_count()
    if is_table or len(seeds) <= devices:
        return seeds
    return seeds + seeds[-1:] * (-len(seeds) % devices)


def _reporting(
    config: RunConfig,
    on_progress: Callable[[int, int], None] | None,
    checkpoint: Checkpoint | None,
) -> Callable[[runs.Progress], None] | None:
    """Returns what is called after every chunk; None where nobody wants to know."""
    if on_progress is None and checkpoint is None:
        return None

    def report(progress: runs.Progress) -> None:
        if on_progress is not None:
            on_progress(_epochs_done(config, progress), _epochs(config))
        if checkpoint is not None:
            checkpoint.save(progress)

    return report


def _padded_count(count: int, *, is_table: bool) -> int:
    """Returns a number of samples to compile for: few numbers, an eighth larger at most but for
    small ones. Rows of a table take so little that up to 8,192 they are a power of two."""
    if is_table and count <= _MOST_ROUNDED_ROWS:
        return max(_FEWEST_ROWS, 1 << (count - 1).bit_length())
    step = max(_SMALLEST_POOL_STEP, 2 ** (count.bit_length() - 4))
    return -(-count // step) * step


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
    sample: noise may still be told from these, so that its spread does not show it."""
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
    """Returns the model of trained states, still without a threshold: everything is normal.

    Args:
      config: of the runs.
      fitted: what maps images to network input.
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


def _with_threshold(
    config: DetectorConfig, model: Model, parts: Prepared, progress: runs.Progress
) -> Model:
    """Returns the model with what is learned from scores: radius, means, calibration, threshold."""
    nu = config.run.training.objective.nu
    train, folds = parts.train, parts.folds
    distances = member_distances(model, train)
    own = [one if folds is None else one[folds != member] for member, one in enumerate(distances)]
    # Here and later one and the same program measures distances: at the radius d - R^2 is 0.
    squared_radius = [calibration.radius_threshold(one, nu) for one in own]
    model = model._replace(
        squared_radius=np.array(squared_radius, np.float32),
        train_means=distances.mean(axis=1, dtype=np.float64)
        if folds is None
        else np.array([one.mean(dtype=np.float64) for one in own]),
    )
    train_scores = combine_distances(model, distances)
    if folds is None:
        held_out_scores = combine_distances(model, member_distances(model, parts.held_out))
        model = model._replace(calibration_scores=np.sort(held_out_scores))
    else:
        model = _cross_calibrated(model, distances, folds)
    if not (np.isfinite(train_scores).all() and np.isfinite(model.calibration_scores).all()):
        raise TrainingError("scores are not finite; lower the learning rate")
    if metrics.have_no_spread(distances):
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
            # What `judge` compares p-values with.
            **({} if folds is None else {"alarm_rate": config.alarm_rate}),
        },
    )


def _cross_calibrated(model: Model, distances: Scores, folds: npt.NDArray[np.int64]) -> Model:
    """Returns the model with the score of every sample of a fold by the member that has not seen
    it, ascending, and that member."""
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


# --- scoring ------------------------------------------------------------------------------------


def score_images(model: Model, images: npt.ArrayLike) -> Scores:
    """Returns the anomaly scores of images, float32 `[n]`, higher = more anomalous.

    One member: d (a squared distance; of an autoencoder the summed squared error), or d - R^2 for
    a soft boundary. Several: the mean over members of d / its mean over the training images. A
    distance beyond float32 counts as its largest number.

    Args:
      model: fitted or loaded.
      images: `[n, *model.image_shape]`, see `network_values`.

    Raises:
      DataError: images of another shape, or values that are not finite.

    Warns:
      CollapseWarning: the samples differ and their scores do not.
    """
    values = network_values(images)
    distances = member_distances(model, values)
    if len(values) > 1 and metrics.have_no_spread(distances) and np.any(values[1:] != values[:1]):
        warnings.warn(
            "all scores are equal though the samples differ: the model tells nothing apart",
            CollapseWarning,
            stacklevel=2,
        )
    scores = combine_distances(model, distances)
    return np.where(np.isfinite(scores), scores, np.finfo(np.float32).max)


def combine_distances(model: Model, distances: Scores) -> Scores:
    """Returns scores, float32 `[n]`, from the members' distances `[members, n]`."""
    if len(distances) > 1:
        units = member_units(model)
        with np.errstate(over="ignore"):
            return np.asarray((distances / units[:, None]).mean(axis=0), np.float32)
    offset = scoring.score_offset(model.config.training.objective, model.squared_radius[0])
    return np.asarray(distances[0] - np.asarray(offset))


def member_units(model: Model) -> npt.NDArray[np.float64]:
    """Returns what the distances of each member are divided by in an ensemble, `[members]`."""
    # A member whose distances are all 0 has no unit; it adds nothing.
    return np.where(model.train_means > 0, model.train_means, 1.0)


def member_scores(model: Model, distances: Scores) -> Scores:
    """Returns the distances `[members, n]` in units of each member's mean over its training
    images, float32."""
    with np.errstate(over="ignore"):
        return _in_units(model, distances).astype(np.float32)


def _in_units(model: Model, distances: Scores) -> npt.NDArray[np.float64]:
    # A member whose distances are all 0 has no unit; it adds nothing.
    units = np.where(model.train_means > 0, model.train_means, 1.0)
    return np.asarray(distances / units[:, None], np.float64)


def member_distances(model: Model, images: npt.ArrayLike) -> Scores:
    """Returns d of every image to every member's center, float32 `[members, n]`.

    Arguments and errors are those of `score_images`.
    """
    check_process()
    values = network_values(images)
    if values.shape[1:] != model.image_shape:
        raise DataError(
            f"samples of shape {values.shape[1:]}; this model was trained on {model.image_shape}"
        )
    fitted, width = preprocessing_of(model), columns.program_width(model.config, model.image_shape)
    states = _of_width(model, width)
    shape = model.image_shape if width is None else (width,)
    network = build_network(model.config.network, shape)
    objective = model.config.training.objective
    # Every device works on batches of one size: how many devices there are changes no score.
    devices = min(jax.local_device_count(), max(1, -(-len(values) // _batch_size())))
    size = devices * _batch_size() * _batches_per_call(shape)
    mesh = runs.make_mesh(jax.local_devices()[:devices])
    states = jax.device_put(states, NamedSharding(mesh, Spec()))
    parts = []
    for start in range(0, len(values), size):
        batch, scaling = preprocessing.apply_on_host(fitted, values[start : start + size])
        _check_finite(batch, "once they are scaled", start)
        if width is not None:
            batch = columns.pad(batch, width)
            scaling = Scaling(*(columns.pad(part, width) for part in scaling))
        filled, counts = _shared_out(batch, devices, size // devices)
        # Not waited for: the host prepares the next call meanwhile.
        found = _distances(states, scaling, filled, counts, network, objective, mesh)
        parts.append((found, counts))
    distances = [np.zeros((len(model.center), 0), np.float32)]
    for found, counts in parts:
        of_devices = np.split(np.asarray(found), devices, axis=1)
        distances += [some[:, :count] for some, count in zip(of_devices, counts, strict=True)]
    return np.concatenate(distances, axis=1)


def _of_width(model: Model, width: int | None) -> TrainState:
    """Returns a model's states for so many columns of a table; None leaves them."""
    states = states_of(model)
    if width is None:
        return states
    return states._replace(params=columns.widen(model.config.network, model.params, width))


def _shared_out(images: Images, devices: int, most: int) -> tuple[Images, npt.NDArray[np.int32]]:
    """Shares images out evenly, in whole batches: `[devices most, ...]`, every device's filled up
    with zeros, and how many each has, int32 `[devices]`."""
    if len(images) == devices * most:
        return images, np.full(devices, most, np.int32)
    batches = -(-len(images) // _batch_size())
    ends = np.arange(1, devices + 1) * batches // devices * _batch_size()
    shares = np.split(images, ends[:-1])
    filled = np.zeros((devices, most, *images.shape[1:]), np.float32)
    for place, share in zip(filled, shares, strict=True):
        place[: len(share)] = share
    return filled.reshape(-1, *images.shape[1:]), np.array([*map(len, shares)], np.int32)


def _batch_size() -> int:
    """Returns how many images a step takes: a CPU's caches like few."""
    return 64 if jax.default_backend() == "cpu" else 512


def _batches_per_call(image_shape: tuple[int, ...]) -> int:
    """Returns how many steps a device takes in one call; bounds the memory of large images."""
    batch_bytes = 4 * _batch_size() * int(np.prod(image_shape))
    return max(1, min(_MOST_BATCHES_PER_CALL, _BYTES_PER_CALL // batch_bytes))


@functools.partial(jax.jit, static_argnames=("network", "objective", "mesh"))
def _distances(
    states: TrainState,
    scaling: Scaling,
    images: Array,
    counts: Array,
    network: Network,
    objective: BaseObjectiveConfig,
    mesh: Mesh,
) -> Array:
    """Returns the distances `[members, n]` of unscaled images `[n, ...]`, of every device's share
    those of the first `counts[device]` at least."""
    size = _batch_size()

    def of_member(images: Array, state: TrainState) -> Array:
        return scoring.batch_distances(state, images, network, objective)

    of_members = runs.map_runs(of_member, runs.make_mesh(jax.local_devices()[:1]))

    def of_device(images: Array, counts: Array, states: TrainState, scaling: Scaling) -> Array:
        def step(index: Array, found: Array) -> Array:
            batch = jax.lax.dynamic_slice_in_dim(images, index * size, size)
            scaled = (batch - scaling.shift[None]) * scaling.scale[None]
            distances = of_members(scaled, states)
            return jax.lax.dynamic_update_slice_in_dim(found, distances, index * size, 1)

        nothing = jnp.zeros((states.center.shape[0], len(images)), jnp.float32)
        return jax.lax.fori_loop(0, (counts[0] + size - 1) // size, step, nothing)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(Spec("run"), Spec("run"), Spec(), Spec()),
        out_specs=Spec(None, "run"),
        check_vma=False,
    )(images, counts, states, scaling)


def states_of(model: Model) -> TrainState:
    """Returns the members as stacked states, as far as scoring looks at them."""
    nothing: Any = np.zeros(len(model.center), np.float32)
    center: Any = model.center
    squared_radius: Any = model.squared_radius
    return TrainState(
        params=model.params,
        statistics=model.statistics,
        optimizer_state=None,
        center=center,
        squared_radius=squared_radius,
        step=nothing,
        epoch=nothing,
        active=nothing,
        failure=nothing,
    )


def preprocessing_of(model: Model) -> Preprocessing:
    """Returns what maps raw images to network input."""
    whitening = Whitening(model.whitening_mean, model.whitening_matrix)
    return Preprocessing(
        model.config.preprocessing.contrast,
        whitening if len(model.whitening_mean) else None,
        Scaling(model.shift, model.scale),
    )


# --- input --------------------------------------------------------------------------------------


def network_values(images: npt.ArrayLike) -> Images:
    """Returns images or a table as the numbers that preprocessing starts from.

    Integers in an image are grey levels of 0 .. 255 and are divided by 255 (uint8 later, to save
    memory); floats are taken as they are, in [0, 1] by custom. A table is taken as it is. What
    float32 would round stays in float64, so that it is scaled by its own digits.

    Args:
      images: `[n, height, width, channels]` or `[n, features]`, numpy or JAX array.

    Returns:
      uint8 images, float32, or float64 for float64 and for integers of more than 16 bits.

    Raises:
      DataError: no numbers, another number of axes, or values that are not finite.
    """
    values = np.asarray(images)
    if values.ndim not in (2, 4) or 0 in values.shape[1:]:
        raise DataError(
            f"samples of shape {values.shape[1:]}; an image is (height, width, channels), the row "
            "of a table (features,)"
        )
    if values.dtype.kind not in "buif":
        raise DataError(f"samples of type {values.dtype}; they must be numbers")
    if values.ndim == 4 and values.dtype == np.uint8:
        return values
    short = values.dtype.itemsize <= (4 if values.dtype.kind == "f" else 2)
    dtype = np.dtype(np.float32 if short else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: Images = values.astype(dtype, copy=False)
    if values.ndim == 4 and values.dtype.kind in "ui":
        numbers = numbers / dtype.type(255)
    _check_finite(numbers)
    return numbers


def _check_finite(numbers: Images, when: str = "", first: int = 0) -> None:
    """Refuses samples, counted from `first`, that hold NaN, infinity, or overflowed."""
    if numbers.dtype == np.uint8:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all values are, and less work than asking each of them; in float32
        # it may overflow all the same.
        if np.isfinite(numbers.sum()) or np.isfinite(numbers.sum(dtype=np.float64)):
            return
    bad = np.array([not np.isfinite(number).all() for number in numbers])
    if np.any(bad):
        raise DataError(
            f"{np.sum(bad)} of {len(bad)} samples hold NaN, infinity or a value too large for "
            f"float32{when and f', {when}'}, the first is sample {first + np.argmax(bad)}"
        )


def _warn_of_constant_columns(train: Images, names: tuple[str, ...]) -> None:
    line = preprocessing.describe_constant(train, names)
    if line is not None:
        warnings.warn(line, ConstantFeatureWarning, stacklevel=3)


def _check_trainable(values: Images) -> None:
    if len(values) < 2:
        raise DataError(f"n_samples={len(values)}; at least 2 are needed for training")
    if np.all(values[1:] == values[:1]):
        raise DataError(f"all {len(values)} samples are equal; there is nothing to learn from them")
