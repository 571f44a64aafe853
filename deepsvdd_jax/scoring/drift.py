"""Whether a stream of anomaly scores still looks like the normals that a model was calibrated on.

Each new score gets its rank among all scores before it, those of the calibration set included. If
all of them are exchangeable, these ranks (as smoothed conformal p-values) are independent and
uniform (Vovk, Gammerman and Shafer 2005, chapter 8). A gambler bets against that; with a start
capital of 1 the capital is a martingale as long as the stream does not change, and by Ville's
inequality it ever reaches 1 / a with probability a at most, however long the stream is.

The capital is spread over the times at which a change may come and over the kinds of change: a part
w_k = 1 / (k (k + 1)) waits until the k-th score, and is then bet, in equal shares, by each of the
densities f_j of `BETS` on [0, 1]. Every share obeys

    S_j <- (S_j + w_k / J) f_j(p_k),    capital = sum_j S_j + sum_{i > k} w_i,

so that a step costs the same however many scores there were. A change late in a stream is found as
surely as an early one; it costs a factor of k (k + 1) in capital, which is some thirty scores.
"""

import bisect
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Exponents (a, b) of the densities p^(a - 1) (1 - p)^(b - 1) / B(a, b) that are bet on: scores that
# rise make p small, scores that fall make it large, a wider or narrower spread moves it to both
# ends or to the middle.
BETS: tuple[tuple[float, float], ...] = (
    *((0.1, 1.0), (0.3, 1.0), (0.6, 1.0), (1.0, 2.0)),
    *((1.0, 0.1), (1.0, 0.3), (1.0, 0.6), (2.0, 1.0)),
    *((0.5, 0.5), (2.0, 2.0)),
)

# Default share of unchanged streams that may ever raise the alarm.
DEFAULT_RATE = 0.01

# Far above any alarm, and far below what overflows in one more step.
_MOST_CAPITAL = 1e100


class DriftState(NamedTuple):
    """The state between two scores of a stream.

    Attributes:
      scores: ascending, of the calibration set and of the stream so far.
      count: scores of the stream so far.
      shares: `[len(BETS)]`, the capital that each bet holds.
      highest: largest capital so far.
    """

    scores: list[float]
    count: int  # type: ignore[assignment]  # hides tuple.count
    shares: Floats
    highest: float


def start(calibration_scores: npt.ArrayLike) -> DriftState:
    """Returns the state before a stream's first score.

    Args:
      calibration_scores: `[n]`, of normals that were held out of training, finite.

    Raises:
      ValueError: there are none, or one is not finite: without them the first scores of the stream
        would have nothing to be compared with.
    """
    scores = np.sort(np.asarray(calibration_scores, np.float64).ravel())
    if not len(scores):
        raise ValueError("a drift alarm needs calibration scores; there are none")
    if not np.isfinite(scores).all():
        raise ValueError("a calibration score is not finite")
    return DriftState(scores.tolist(), 0, np.zeros(len(BETS)), 1.0)


def update(state: DriftState, score: float, tie_breaker: float) -> DriftState:
    """Returns the state after one more score of the stream; `state.scores` is extended in place.

    Args:
      state: before the score.
      score: finite.
      tie_breaker: uniform in (0, 1), independent of everything else; it places the score among
        those that are equal to it.

    Raises:
      ValueError: the score is not finite.
    """
    if not np.isfinite(score):
        raise ValueError(f"score {score} is not finite")
    p_value = smoothed_p_value(state.scores, score, tie_breaker)
    bisect.insort(state.scores, float(score))
    count = state.count + 1
    waiting = 1.0 / (count * (count + 1)) / len(BETS)
    shares = np.minimum((state.shares + waiting) * bet_densities(p_value), _MOST_CAPITAL)
    new = DriftState(state.scores, count, shares, state.highest)
    return new._replace(highest=max(state.highest, capital(new)))


def capital(state: DriftState) -> float:
    """Returns the capital, 1 at the start: evidence against an unchanged stream."""
    return float(np.sum(state.shares)) + 1.0 / (state.count + 1)


def has_drifted(state: DriftState, false_alarm_rate: float = DEFAULT_RATE) -> bool:
    """Whether the capital has ever reached 1 / `false_alarm_rate`; of streams without a change at
    most this share ever does."""
    return state.highest >= 1.0 / false_alarm_rate


def watch(
    calibration_scores: npt.ArrayLike,
    scores: Iterable[float],
    seed: int = 0,
) -> Floats:
    """Returns the capital after each score of a stream, `[n]`.

    Args:
      calibration_scores: as for `start`.
      scores: of the stream, in the order in which they came.
      seed: of the tie breakers.
    """
    states = follow(start(calibration_scores), scores, seed)
    return np.asarray([capital(state) for state in states])


def follow(state: DriftState, scores: Iterable[float], seed: int = 0) -> Iterator[DriftState]:
    """Yields the state after each further score of a stream.

    Args:
      state: before them; `state.scores` is extended in place.
      scores: in the order in which they came, finite.
      seed: of the tie breakers.
    """
    for score in scores:
        state = update(state, float(score), tie_breaker(seed, state.count))
        yield state


def tie_breaker(seed: int, number: int) -> float:
    """Returns the tie breaker of a stream's `number`-th score: the same after a restart."""
    return float(np.random.default_rng((seed, number)).uniform(1e-12, 1.0))


def smoothed_p_value(ordered: list[float], score: float, tie_breaker: float) -> float:
    """Returns (#{s_i > s} + u (#{s_i = s} + 1)) / (n + 1), in (0, 1].

    Args:
      ordered: the n scores before, ascending.
      score: s.
      tie_breaker: u, uniform in (0, 1).
    """
    below = bisect.bisect_left(ordered, score)
    up_to = bisect.bisect_right(ordered, score)
    above, equal = len(ordered) - up_to, up_to - below
    return (above + tie_breaker * (equal + 1)) / (len(ordered) + 1)


def bet_densities(p_value: float) -> Floats:
    """Returns the factor on the share of each bet, `[len(BETS)]`; its mean over p is 1."""
    # At p = 1 a density with b < 1 would be infinite.
    p = min(max(p_value, 1e-12), 1.0 - 1e-12)
    return np.exp(_EXPONENTS @ np.log([p, 1.0 - p]) - _LOG_BETA)


_EXPONENTS = np.array(BETS) - 1.0
_LOG_BETA = np.array([math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) for a, b in BETS])
