"""Which threshold a command that scores uses: the model's own, or one that was asked for."""

import math

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
      ConfigError: both are given, or the model's calibration scores cannot carry the rate.
    """
    if false_alarm_rate is None:
        if threshold is not None and not math.isfinite(threshold):
            raise ConfigError(f"threshold is {threshold}; give a finite score")
        return model.threshold if threshold is None else threshold
    if threshold is not None:
        raise ConfigError("false_alarm_rate and threshold both set the threshold; give one")
    if not len(model.calibration_scores):
        raise ConfigError(
            "false_alarm_rate needs held-out scores, which this model has none of: give "
            "--threshold, or fit with --calibration_fraction above 0"
        )
    return calibration.conformal_threshold(model.calibration_scores, false_alarm_rate)


def p_value_cells(calibration_scores: npt.ArrayLike, scores: npt.ArrayLike) -> list[str]:
    """Returns conformal p-values as cells of a table, empty ones without calibration scores."""
    held_out, values = np.asarray(calibration_scores), np.asarray(scores)
    if not len(held_out):
        return [""] * len(values)
    return [f"{value:.6g}" for value in calibration.conformal_p_values(held_out, values)]
