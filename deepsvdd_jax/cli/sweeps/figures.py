"""The figures of a row and the arrays of a scores file, from the scores of a run."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.scoring import metrics


def evaluate_scores(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    train_scores: npt.NDArray[np.floating],
    quantile: float,
    tested: npt.NDArray[np.integer] | None = None,
) -> dict[str, float]:
    """Returns the figures of a row: ranking, classification at the threshold, score summaries."""
    chosen = slice(None) if tested is None else tested
    threshold = metrics.training_threshold(train_scores, quantile)
    row = dict(metrics.evaluate(scores[chosen], labels[chosen], threshold)._asdict())
    for part, values in (("test", scores[chosen]), ("train", train_scores)):
        summary = metrics.summarize_scores(values)._asdict()
        row |= {f"{part}_{name}": value for name, value in summary.items()}
    return row


def score_arrays(
    scores: npt.NDArray[np.floating],
    distances: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    train_distances: npt.NDArray[np.floating],
    tested: npt.NDArray[np.integer] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a scores file.

    An ensemble averages `distances`, which are positive, over seeds, each divided by `train_mean`,
    the mean of `train_distances`; `tested` marks the images that the row's figures are taken over.
    """
    mask = np.ones(len(labels), bool)
    if tested is not None:
        mask = np.isin(np.arange(len(labels)), tested)
    return {
        "scores": np.asarray(scores, np.float32),
        "labels": np.asarray(labels, np.uint8),
        "distances": np.asarray(distances, np.float32),
        "train_mean": np.asarray(float(train_distances.mean()), np.float64),
        "train_distances": np.asarray(train_distances, np.float32),
        "tested": mask,
    }
