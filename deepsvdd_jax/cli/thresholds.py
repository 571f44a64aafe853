"""The threshold of a command that scores: the model's own, or one that flags set."""

import math
import sys

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration


def define_flags() -> None:
    """Defines the flags that move a saved model's threshold."""
    flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "share of normals that may raise an alarm, by the model's held-out scores; nothing is "
        "trained again (default: the model's own threshold)",
    )
    flags.DEFINE_float(
        "threshold", None, "score above which a sample is anomalous (default: the model's own)"
    )


def chosen_threshold(
    model: Model, false_alarm_rate: float | None = None, threshold: float | None = None
) -> float:
    """Returns the score above which a sample is anomalous.

    Args:
      model: fitted or loaded.
      false_alarm_rate: bound of the share of normals above it; None takes `threshold`.
      threshold: as it is; None takes the model's own.

    Raises:
      ConfigError: both are given, or the rate is none that the calibration scores carry.
    """
    if false_alarm_rate is None:
        if threshold is not None and not math.isfinite(threshold):
            raise ConfigError(f"threshold is {threshold}; give a finite score")
        return model.threshold if threshold is None else threshold
    if not 0.0 < false_alarm_rate < 1.0:
        raise ConfigError(f"--false_alarm_rate is {false_alarm_rate}; it must lie in (0, 1)")
    if threshold is not None:
        raise ConfigError("false_alarm_rate and threshold both set the threshold; give one")
    if not len(model.calibration_scores):
        raise ConfigError(
            "false_alarm_rate needs held-out scores, which this model has none of: give "
            "--threshold, or fit with --calibration_fraction above 0"
        )
    return calibration.conformal_threshold(model.calibration_scores, false_alarm_rate)


def with_threshold(
    model: Model, false_alarm_rate: float | None = None, threshold: float | None = None
) -> Model:
    """Returns the model with the threshold of `chosen_threshold`, whose arguments and errors these
    are; a cross-calibrated one alarms by p-values again where a rate is given."""
    chosen = chosen_threshold(model, false_alarm_rate, threshold)
    if false_alarm_rate is None and threshold is None:
        return model
    summary = {**model.summary, "alarm_rate": false_alarm_rate}
    return model._replace(threshold=chosen, summary=summary)


def tell_of_cross_calibration(model: Model) -> None:
    """Prints a line where a command uses a threshold although the model was calibrated by p-values
    of its members, as for small sets."""
    if len(model.calibration_folds):
        print(
            "this model is cross-calibrated: what is said here of alarms and p-values goes by its "
            "mean score, for which nothing is proved; score goes by its members",
            file=sys.stderr,
        )


def rule(model: Model) -> str:
    """Returns the rule for anomalous samples in words."""
    rate = model.summary.get("alarm_rate")
    if len(model.calibration_folds) and rate is not None:
        return f"cross-conformal p-value at most {rate:g}"
    return f"score above {model.threshold:.6g}"


def p_value_cells(calibration_scores: npt.ArrayLike, scores: npt.ArrayLike) -> list[str]:
    """Returns conformal p-values as cells of a table, empty ones without calibration scores."""
    held_out, values = np.asarray(calibration_scores), np.asarray(scores)
    p_values = calibration.conformal_p_values(held_out, values) if len(held_out) else None
    return cells_of(p_values, len(values))


def cells_of(p_values: npt.NDArray[np.float64] | None, count: int) -> list[str]:
    """Returns p-values as cells of a table; `count` empty ones where there are none."""
    return [""] * count if p_values is None else [f"{value:.6g}" for value in p_values]
