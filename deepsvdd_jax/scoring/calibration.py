"""Thresholds above which a score is called anomalous, and conformal p-values.

Scores are higher for more anomalous points, and a point raises an alarm when its score is *greater*
than the threshold. Calibration scores are those of normals that were held out of training: as long
as these and the normals to come are exchangeable, the guarantees here hold for any scorer and any
sample size (Vovk et al. 2005; Bates et al. 2023 for outlier detection).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.scoring import metrics

# Rounding of a product such as 100 * 0.07, which must count as 7.
_ROUNDING = 1e-9


class AlarmInterval(NamedTuple):
    """The fewest and the most false alarms to expect, both included."""

    low: int
    high: int


# --- from training scores -----------------------------------------------------------------------


def contamination_threshold(train_scores: npt.ArrayLike, contamination: float) -> float:
    """Returns the threshold that a share of the training scores lies above.

    Args:
      train_scores: `[n]`.
      contamination: the share, in (0, 0.5].

    Raises:
      ConfigError: the share is out of range.
      ValueError: no scores, or one that is not finite.
    """
    if not 0.0 < contamination <= 0.5:
        raise ConfigError(f"contamination is {contamination}; it must lie in (0, 0.5]")
    return metrics.training_threshold(train_scores, 1.0 - contamination)


def radius_threshold(train_scores: npt.ArrayLike, nu: float) -> float:
    """Returns the (n - floor(nu n))-th smallest training score: of distances this is R^2, the
    radius that solves the soft-boundary problem (equation 3 of Ruff et al. 2018) for fixed weights.

    Args:
      train_scores: `[n]`.
      nu: largest share of them that may lie above, in (0, 1].
    """
    ordered = np.sort(np.asarray(train_scores))
    outside = math.floor(nu * len(ordered) + _ROUNDING)
    return float(ordered[max(len(ordered) - outside - 1, 0)])


# --- from held-out normals ----------------------------------------------------------------------


def conformal_p_values(
    calibration_scores: npt.ArrayLike, scores: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Returns split-conformal p-values (1 + #{calibration scores >= s}) / (n + 1), `[m]`.

    For a normal s, P(p <= a) <= a for every a. Equal scores count against s, which keeps the bound.

    Args:
      calibration_scores: `[n]`, in any order; none gives p = 1.
      scores: `[m]`.
    """
    ordered = np.sort(np.asarray(calibration_scores))
    at_least = len(ordered) - np.searchsorted(ordered, np.asarray(scores), side="left")
    return np.asarray((1.0 + at_least) / (len(ordered) + 1.0), np.float64)


def conformal_threshold(calibration_scores: npt.ArrayLike, false_alarm_rate: float) -> float:
    """Returns the threshold above which a normal comes with probability a = `false_alarm_rate` at
    most: the ceil((n + 1)(1 - a))-th smallest calibration score.

    A score is above it exactly where its conformal p-value is at most `false_alarm_rate`.

    Args:
      calibration_scores: `[n]`, in any order.
      false_alarm_rate: in (0, 1).

    Raises:
      ConfigError: the rate is out of range, or there are too few calibration scores for it.
    """
    ordered = np.sort(np.asarray(calibration_scores))
    return float(ordered[_rank(len(ordered), false_alarm_rate) - 1])


def alarm_interval(
    n_calibration: int, n_test: int, false_alarm_rate: float, level: float = 0.999
) -> AlarmInterval:
    """Returns how many of `n_test` normals may raise an alarm above a `conformal_threshold`.

    With the k-th smallest of n calibration scores as threshold, the number is beta-binomial with
    n + 1 - k and k: exact for continuous scores, where calibration scores and test scores are
    exchangeable. Equal scores make fewer alarms.

    Args:
      n_calibration: how many calibration scores the threshold was taken from.
      n_test: how many normals are scored.
      false_alarm_rate: as given to `conformal_threshold`.
      level: probability of the interval, its tails being equal.

    Raises:
      ConfigError: as `conformal_threshold`.
    """
    # Half a second, for the callers of this function only.
    from scipy.stats import betabinom

    rank = _rank(n_calibration, false_alarm_rate)
    low, high = betabinom.interval(level, n_test, n_calibration + 1 - rank, rank)
    return AlarmInterval(int(low), int(high))


def _rank(count: int, false_alarm_rate: float) -> int:
    """Returns ceil((count + 1)(1 - false_alarm_rate)), which must not be beyond the last score."""
    if not 0.0 < false_alarm_rate < 1.0:
        raise ConfigError(f"false_alarm_rate is {false_alarm_rate}; it must lie in (0, 1)")
    above = math.floor((count + 1) * false_alarm_rate + _ROUNDING)
    if above < 1:
        needed = math.ceil(1.0 / false_alarm_rate - 1.0 - _ROUNDING)
        raise ConfigError(
            f"false-alarm rate {false_alarm_rate:g} needs at least {needed} calibration scores; "
            f"there are {count}: hold out more (calibration_fraction), or ask for a higher rate"
        )
    return count + 1 - above
