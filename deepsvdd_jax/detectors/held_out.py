"""Chooses the samples that are held out of training to set the threshold."""

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import ConfigError, DetectorConfig
from deepsvdd_jax.scoring import calibration, cross_calibration

DEFAULT_ALARM_RATE = 0.01
# Share of the samples that the preprocessing is fitted to in cross-calibration.
SCALING_SHARE = 0.2


def held_out_count(calibration_fraction: float, count: int) -> int:
    """Returns how many of `count` samples are held out of training: at least one of a share that
    is not 0."""
    return max(1, round(calibration_fraction * count)) if calibration_fraction else 0


def default_alarm_rate(calibration_fraction: float, count: int) -> float:
    """Returns the default false-alarm rate: 1 %, or the lowest rate that the samples held out of
    `count` allow, 1 / (held out + 1)."""
    return max(DEFAULT_ALARM_RATE, 1.0 / (held_out_count(calibration_fraction, count) + 1))


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
        # Refused before the training, not after it.
        calibration.conformal_threshold(np.zeros(held_out.sum()), config.alarm_rate)
    return held_out


def cross_folds(config: DetectorConfig, groups: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Returns the fold of every sample that is not a known anomaly, `[n]`: the member that is not
    trained on it. It is -1 for about a fifth of them, to which the preprocessing is fitted: all
    members are trained on these, and they calibrate none.

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
    # Refused before the training, not after it.
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
