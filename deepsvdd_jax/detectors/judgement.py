"""Scores of new samples, their p-values, and which of them are anomalous."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.detectors.scores import member_distances, member_scores, score_images
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration, cross_calibration

# Rounding of a product such as 81 * 0.02, as in `calibration`.
_ROUNDING = 1e-9


class Judgement(NamedTuple):
    """A model's scores of samples and the alarms.

    Attributes:
      scores: float32 `[n]`, as `score_images`.
      p_values: `[n]`, None where nothing was held out.
      anomalous: bool `[n]`.
    """

    scores: npt.NDArray[np.float32]
    p_values: npt.NDArray[np.float64] | None
    anomalous: npt.NDArray[np.bool_]


def judge(model: Model, images: npt.ArrayLike) -> Judgement:
    """Scores images and says which are anomalous: those above the threshold; of a cross-calibrated
    model that has a false-alarm rate, those with a p-value of at most that rate.

    Arguments, errors and warnings are those of `score_images`. An image of a cross-calibrated model
    is compared, member by member, with the scores of the samples that the member has not seen.
    """
    scores = score_images(model, images)
    count = len(model.calibration_scores)
    if not len(model.calibration_folds):
        known = model.calibration_scores
        p_values = calibration.conformal_p_values(known, scores) if count else None
        return Judgement(scores, p_values, scores > model.threshold)
    distances = member_distances(model, images)
    cross = cross_calibration.cross_p_values(
        model.calibration_scores,
        model.calibration_folds,
        member_scores(model, distances),
    )
    rate = model.summary.get("alarm_rate")
    if rate is None:
        return Judgement(scores, cross, scores > model.threshold)
    return Judgement(scores, cross, (count + 1) * cross <= (count + 1) * rate + _ROUNDING)
