"""Finds the threshold by which the rows of a scores file were called, and the outcome of others."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.reporting.kinds import Kinds
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration

Floats = npt.NDArray[np.float64]

# The slider stops at all thresholds between so many of the highest scores, and at as many others.
_STOPS = 100


class NamedModel(NamedTuple):
    """A saved model and the name of its folder."""

    name: str
    model: Model


class Threshold(NamedTuple):
    """The threshold that rows were called by.

    Attributes:
      value: a score above it was called anomalous; NaN where no threshold calls the rows so.
      shown: the same for a reader.
      origin: a sentence on its source.
    """

    value: float
    shown: str
    origin: str


class Groups(NamedTuple):
    """Scores that a threshold is evaluated on, each `[n]`.

    Attributes:
      all: of all rows.
      normal: of the normal rows; None where their kinds are not known.
      defective: of the defects; None where their kinds are not known.
      held_out: of the held-out normals in the model.
    """

    all: Floats
    normal: Floats | None
    defective: Floats | None
    held_out: Floats


def check_model(
    scores: Floats, p_values: Sequence[float | None], named: NamedModel, source: str
) -> None:
    """Refuses a model whose p-values are not those of the file.

    Args:
      scores: `[n]`.
      p_values: of each; None where the file has none.
      named: the model that the user names.
      source: the file, for the message.

    Raises:
      DataError: another model made the scores.
    """
    held_out = named.model.calibration_scores
    expected = calibration.conformal_p_values(held_out, scores.astype(np.float32))
    for value, own in zip(p_values, expected, strict=True):
        alike = value is not None and math.isclose(value, own, rel_tol=1e-4)
        if not (alike if len(held_out) else value is None):
            raise DataError(
                f"{source}: these are no scores of {named.name}, whose p-values differ; score with "
                "it first, or give the model that has scored"
            )


def threshold_of(
    scores: Floats, called: npt.NDArray[np.bool_], named: NamedModel | None
) -> Threshold:
    """Returns the threshold that rows were called by.

    Args:
      scores: `[n]`.
      called: `[n]`, which of them were called anomalous.
      named: the model that scored; None where it is not known.
    """
    highest = float(scores[~called].max(initial=-math.inf))
    lowest = float(scores[called].min(initial=math.inf))
    if highest >= lowest:
        return Threshold(
            math.nan,
            "none",
            f"No single threshold calls these rows: a score of {highest:.4g} is called normal, and "
            f"one of {lowest:.4g} anomalous.",
        )
    between = f"between {highest:.4g} and {lowest:.4g}"
    if not called.any():
        between = f"{highest:.4g} or higher"
    if called.all():
        between = f"below {lowest:.4g}"
    value = _middle(highest, lowest)
    if named is None:
        return Threshold(
            value, between, "Give --model=DIR to name the model and its own threshold."
        )
    # Scores are compared in their own precision.
    own = float(np.float32(named.model.threshold))
    if highest <= own and (own < lowest or not called.any()):
        rule = named.model.summary.get("threshold_rule", "")
        origin = f"The model's own{': ' if rule else ''}{rule}."
        # An infinite threshold has no position in a picture.
        return Threshold(own if math.isfinite(own) else value, f"{own:.4g}", origin)
    return Threshold(
        value, between, f"Not the model's own, which is {own:.4g}: it was moved for these scores."
    )


def _middle(highest: float, lowest: float) -> float:
    """Returns a number that is at least `highest` and less than `lowest`."""
    if not math.isfinite(lowest):
        return highest
    if not math.isfinite(highest):
        return float(np.nextafter(lowest, -math.inf))
    middle = highest + (lowest - highest) / 2.0
    return middle if middle < lowest else highest


def thresholds_to_try(scores: Floats, own: float) -> Floats:
    """Returns thresholds with different outcomes, ascending: all among the highest scores, an even
    choice among many others, and `own`; the first is below all scores, the last equals the
    highest."""
    distinct = np.unique(scores)
    lower = np.concatenate([[-math.inf], distinct[:-1]])
    middles = np.array([_middle(*pair) for pair in zip(lower, distinct, strict=True)])
    candidates = np.append(middles, distinct[-1])
    # Among the thresholds between the same two scores only the own one is kept.
    alike = np.searchsorted(distinct, candidates, "right") == np.searchsorted(
        distinct, own, "right"
    )
    candidates = candidates[~alike]
    if len(candidates) > 2 * _STOPS:
        rest = len(candidates) - _STOPS
        chosen = np.linspace(0, rest - 1, _STOPS).round().astype(int)
        candidates = np.concatenate([candidates[chosen], candidates[rest:]])
    return np.sort(np.append(candidates, own))


def groups_of(scores: Floats, kinds: Kinds, held_out: npt.ArrayLike) -> Groups:
    """Returns the scores that a threshold is evaluated on.

    Args:
      scores: `[n]`.
      kinds: of the rows.
      held_out: scores of the held-out normals in the model; empty where it is not known.
    """
    kept = np.asarray(held_out, np.float64)
    if not kinds.names:
        return Groups(scores, None, None, kept)
    return Groups(scores, scores[kinds.normal], scores[kinds.defective], kept)


def outcome(threshold: float, groups: Groups) -> str:
    """Returns a sentence on the alarms of a threshold: a score above it raises one."""
    above = int((groups.all > threshold).sum())
    parts = [f"Above {threshold:.4g}: {above} of {len(groups.all)} raise an alarm."]
    if groups.normal is not None and groups.defective is not None:
        false_alarms = int((groups.normal > threshold).sum())
        found = int((groups.defective > threshold).sum())
        parts.append(
            f"Of {len(groups.normal)} normal ones {false_alarms} do (false alarms); of "
            f"{len(groups.defective)} defects {found} do, and {len(groups.defective) - found} are "
            "missed."
        )
    if len(groups.held_out):
        parts.append(
            f"Of the model's {len(groups.held_out)} held-out normal scores "
            f"{(groups.held_out > threshold).sum()} lie above."
        )
    return " ".join(parts)
