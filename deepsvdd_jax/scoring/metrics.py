"""Figures of merit of anomaly scores, and their mean and standard deviation over runs.

A higher score means more anomalous; label 1 is anomalous, 0 normal. Everything is computed in
float64 by numpy and scikit-learn. Unusable input raises a `ValueError` of one line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Evaluation(NamedTuple):
    """How well scores tell anomalous from normal test points; every rate lies in [0, 1].

    Attributes:
      auroc: area under the receiver operating characteristic.
      average_precision: area under the precision-recall curve, as a step function.
      fpr95: false-positive rate at 95 % recall of the anomalies, see `fpr_at_tpr`.
      threshold: the score above which a point was called anomalous.
      accuracy: fraction of right calls at `threshold`.
      precision: fraction of the points called anomalous that are; 0 if none was called so.
      recall: fraction of the anomalous points that were called so.
      f1: harmonic mean of precision and recall.
    """

    auroc: float
    average_precision: float
    fpr95: float
    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float


class ScoreSummary(NamedTuple):
    """Range, mean and median of scores, in the units of the scores."""

    minimum: float
    maximum: float
    mean: float
    median: float


class MeanStd(NamedTuple):
    """Mean and sample standard deviation over `count` runs."""

    mean: float
    std: float
    count: int  # type: ignore[assignment]  # hides tuple.count, of no use here


def evaluate(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> Evaluation:
    """Every metric of one scored test set.

    Args:
      scores: `[n_test]`, higher = more anomalous.
      labels: `[n_test]`, 1 = anomalous, 0 = normal.
      threshold: a point is called anomalous when its score is greater than this.

    Raises:
      ValueError: a score is not finite, the threshold is NaN, the lengths differ, or the labels
        do not hold both 0 and 1.
    """
    from sklearn import metrics as sk_metrics

    scores, labels = _scores_and_labels(scores, labels)
    if np.isnan(threshold):
        raise ValueError("threshold is NaN")
    called = (scores > threshold).astype(np.int64)
    precision, recall, f1, _ = sk_metrics.precision_recall_fscore_support(
        labels, called, average="binary", zero_division=0
    )
    return Evaluation(
        auroc=auroc(scores, labels),
        average_precision=float(sk_metrics.average_precision_score(labels, scores)),
        fpr95=fpr_at_tpr(scores, labels, 0.95),
        threshold=float(threshold),
        accuracy=float(np.mean(labels == called)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
    )


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the receiver operating characteristic, in [0, 1].

    Args:
      scores: `[n_test]`, higher = more anomalous.
      labels: `[n_test]`, 1 = anomalous, 0 = normal.

    Raises:
      ValueError: as `evaluate`.
    """
    from sklearn import metrics as sk_metrics

    values, marks = _scores_and_labels(scores, labels)
    return float(sk_metrics.roc_auc_score(marks, values))


def fpr_at_tpr(scores: npt.ArrayLike, labels: npt.ArrayLike, tpr: float = 0.95) -> float:
    """Smallest false-positive rate of any threshold that recalls at least `tpr` of the anomalies.

    Args:
      scores: `[n_test]`, higher = more anomalous.
      labels: `[n_test]`, 1 = anomalous, 0 = normal.
      tpr: recall to be reached, in (0, 1].

    Raises:
      ValueError: as `evaluate`, or `tpr` outside (0, 1].
    """
    from sklearn import metrics as sk_metrics

    scores, labels = _scores_and_labels(scores, labels)
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    # Intermediate points must stay: the first threshold that reaches `tpr` may be one of them.
    fprs, tprs, _ = sk_metrics.roc_curve(labels, scores, drop_intermediate=False)
    return float(fprs[tprs >= tpr].min())


def roc_points(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Corners of the receiver operating characteristic, from (0, 0) to (1, 1).

    Args:
      scores: `[n_test]`, higher = more anomalous.
      labels: `[n_test]`, 1 = anomalous, 0 = normal.

    Returns:
      False- and true-positive rates, `[points]` each; what lies on a straight line is left out.

    Raises:
      ValueError: as `evaluate`.
    """
    from sklearn import metrics as sk_metrics

    fprs, tprs, _ = sk_metrics.roc_curve(*_scores_and_labels(scores, labels)[::-1])
    return fprs, tprs


def training_threshold(train_scores: npt.ArrayLike, quantile: float = 0.99) -> float:
    """The quantile of the training scores above which a test point is called anomalous.

    Linear interpolation between order statistics; the default is the 99th percentile.

    Raises:
      ValueError: no scores, a score that is not finite, or `quantile` outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1], got {quantile}")
    return float(np.quantile(_finite(train_scores, "train_scores"), quantile))


def summarize_scores(scores: npt.ArrayLike) -> ScoreSummary:
    """Minimum, maximum, mean and median of scores `[n]`.

    Raises:
      ValueError: no scores, or a score that is not finite.
    """
    values = _finite(scores, "scores")
    return ScoreSummary(
        float(values.min()), float(values.max()), float(values.mean()), float(np.median(values))
    )


def mean_and_std(values: npt.ArrayLike) -> MeanStd:
    """Mean and sample standard deviation (divisor count − 1) over runs.

    NaN stands for a failed run and is left out. One run has the standard deviation 0; none at all
    gives NaN, NaN and the count 0.

    Raises:
      ValueError: `values` is not one-dimensional.
    """
    array = _vector(values, "values")
    array = array[~np.isnan(array)]
    if array.size == 0:
        return MeanStd(float("nan"), float("nan"), 0)
    std = float(array.std(ddof=1)) if array.size > 1 else 0.0
    return MeanStd(float(array.mean()), std, int(array.size))


def _vector(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got the shape {array.shape}")
    return array


def _finite(values: npt.ArrayLike, name: str) -> FloatArray:
    array = _vector(values, name)
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(f"{name} holds {bad} values of {array.size} that are NaN or infinite")
    return array


def _scores_and_labels(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    values, marks = _finite(scores, "scores"), _vector(labels, "labels")
    if len(values) != len(marks):
        raise ValueError(f"{len(values)} scores but {len(marks)} labels")
    present = set(np.unique(marks).tolist())
    if not present <= {0.0, 1.0}:
        raise ValueError("labels must be 0 (normal) or 1 (anomalous)")
    if len(present) < 2:
        raise ValueError(f"both labels are needed, but every label is {int(present.pop())}")
    return values, marks.astype(np.int64)


# --- collapse -----------------------------------------------------------------------------------

# Deviation of the embeddings of noise, relative to ||c||, below which a network has collapsed.
COLLAPSED_SPREAD = 1e-3

# Mean training distance d, relative to ||c||^2, below which a network with bias terms has brought
# all training samples to within 1 % of ||c|| of the center.
COLLAPSED_DISTANCE = 1e-4

# Roundings of float32 by which the scores of equal samples differ, at most.
_ROUNDINGS_OF_EQUAL = 16

# Share of distinct scores below which a scorer tells nothing apart.
_FEWEST_DISTINCT = 0.01


def is_collapsed(scores: npt.ArrayLike) -> bool:
    """Whether fewer than 1 % of the scores `[n]` are distinct: the network maps everything to a
    point."""
    values = np.asarray(scores)
    return len(np.unique(values)) < _FEWEST_DISTINCT * len(values)


def is_collapsed_on_training(distances: npt.ArrayLike, center: npt.ArrayLike) -> bool:
    """Whether training has brought all samples to the center, by their squared distances `[n]` and
    the center `[D]`.

    For networks with bias terms: their loss can vanish whatever the samples are.
    """
    scale = float(np.sum(np.square(np.asarray(center, np.float64))))
    return float(np.mean(np.asarray(distances, np.float64))) < COLLAPSED_DISTANCE * scale


def are_all_equal(scores: npt.ArrayLike) -> bool:
    """Whether all scores of every row `[..., n]`, n > 1, are equal up to the rounding of
    float32."""
    values = np.asarray(scores, np.float64)
    if values.size == 0 or values.shape[-1] < 2 or not np.isfinite(values).all():
        return False
    rounding = _ROUNDINGS_OF_EQUAL * np.finfo(np.float32).eps * np.abs(values).max(axis=-1)
    return bool(np.all(np.ptp(values, axis=-1) <= rounding))
