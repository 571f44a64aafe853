"""The anomalies that every threshold finds and the cost of its mistakes, from labelled samples;
numpy, no jax.

Scores are higher for more anomalous samples; a sample raises an alarm when its score is *greater*
than the threshold.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import ConfigError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class TradeOff(NamedTuple):
    """Thresholds with different counts, ascending, and these counts, `[k]`.

    Attributes:
      thresholds: each halfway between two neighbouring scores; the first is below all of them, the
        last above. They are float32 numbers, as scores are, which are compared in that precision.
      false_alarms: normals with a higher score.
      found: defects with a higher score.
      normals: how many there are.
      defects: how many there are.
    """

    thresholds: Floats
    false_alarms: Counts
    found: Counts
    normals: int
    defects: int


class Costs(NamedTuple):
    """Costs of mistakes, in any unit.

    Attributes:
      missed: a defect that raises no alarm.
      false_alarm: a normal that raises one.
      defect_rate: share of defects among the samples to come; None takes the labelled ones'.
    """

    missed: float = 1.0
    false_alarm: float = 1.0
    defect_rate: float | None = None


def trade_off(normal_scores: npt.ArrayLike, defect_scores: npt.ArrayLike) -> TradeOff:
    """Returns the thresholds that differ in their counts.

    Args:
      normal_scores: `[n]`, of normals that were neither trained on nor used to calibrate.
      defect_scores: `[m]`.

    Raises:
      ConfigError: one of them is empty, or a score is not finite.
    """
    normal, defect = (np.asarray(s, np.float32).ravel() for s in (normal_scores, defect_scores))
    for name, scores in (("normal", normal), ("defective", defect)):
        if not len(scores):
            raise ConfigError(f"there are no {name} samples; a trade-off needs both kinds")
        if not np.isfinite(scores).all():
            raise ConfigError(f"a score of a {name} sample is not finite")
    scores = np.unique(np.concatenate([normal, defect]))
    # Of two neighbouring numbers the half is rounded to one of them; it has to be the lower.
    between = (0.5 * scores[:-1].astype(np.float64) + 0.5 * scores[1:]).astype(np.float32)
    between = np.where(between < scores[1:], between, scores[:-1])
    below = np.nextafter(scores[:1], np.float32(-np.inf))
    thresholds = np.concatenate([below, between, scores[-1:]])
    return TradeOff(
        thresholds.astype(np.float64),
        _higher(normal, thresholds),
        _higher(defect, thresholds),
        len(normal),
        len(defect),
    )


def _higher(scores: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> Counts:
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right")


def expected_cost(table: TradeOff, costs: Costs) -> Floats:
    """Returns the expected cost of a sample to come, for every threshold, `[k]`.

    Raises:
      ConfigError: a cost is negative or both are 0, or the rate lies outside [0, 1].
    """
    if not (costs.missed >= 0 and costs.false_alarm >= 0 and costs.missed + costs.false_alarm > 0):
        raise ConfigError(
            f"costs are {costs.missed:g} for a missed defect and {costs.false_alarm:g} for a false "
            "alarm; they must not be negative, and one must be above 0"
        )
    rate = costs.defect_rate
    if rate is None:
        rate = table.defects / (table.defects + table.normals)
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"defect_rate is {rate}; it must lie in [0, 1]")
    missed = 1.0 - table.found / table.defects
    alarms = table.false_alarms / table.normals
    return rate * costs.missed * missed + (1.0 - rate) * costs.false_alarm * alarms


def cheapest(table: TradeOff, costs: Costs) -> int:
    """Returns the number of the threshold with the lowest expected cost; of equal ones the one with
    the fewest false alarms."""
    cost = expected_cost(table, costs)
    return int(np.flatnonzero(cost <= cost.min() * (1 + 1e-12))[-1])


def within_false_alarms(table: TradeOff, rate: float) -> int:
    """Returns the number of the threshold that finds most with at most a share `rate` of the
    labelled normals as false alarms; of those that find as many the highest.

    Raises:
      ConfigError: the rate lies outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"false_alarm_rate is {rate}; it must lie in [0, 1]")
    allowed = table.false_alarms <= math.floor(rate * table.normals + 1e-9)
    most = table.found[allowed].max()
    return int(np.flatnonzero(allowed & (table.found == most))[-1])


def share_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the Clopper-Pearson interval of a share of which `count` of `total` were seen."""
    # scipy's distributions are slow to load, and only this needs one.
    from scipy.stats import beta

    tail = (1.0 - level) / 2.0
    low = beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = beta.ppf(1.0 - tail, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


def corners(table: TradeOff) -> list[int]:
    """Returns the numbers of the thresholds worth choosing from, descending: for every number of
    defects found the one with the fewest false alarms, unless another finds more with as many
    alarms."""
    kept: list[int] = []
    for number in reversed(range(len(table.thresholds))):
        if kept and table.found[number] == table.found[kept[-1]]:
            continue
        if kept and table.false_alarms[number] == table.false_alarms[kept[-1]]:
            kept.pop()
        kept.append(number)
    return kept
