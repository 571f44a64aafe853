"""Full passes over both sets of images during training, and their figures."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.sweeps.pools import Job, image_count, trained_count
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.scoring import metrics

# Quantiles of the test distances of normal and anomalous images that a full pass records.
PASS_QUANTILES = (0.1, 0.5, 0.9)

# A full pass records the distances of so many training images of a run, the first ones.
PASS_IMAGES = 256
_SAMPLE = "sample"

# Figures of the full passes so far by column of the history, `[passes, runs]`, and `epoch`,
# `[passes]`.
Evaluations = dict[str, npt.NDArray[Any]]


def measure(
    jobs: list[Job],
    train: npt.NDArray[np.floating],
    test: npt.NDArray[np.floating],
    squared_radius: npt.ArrayLike,
) -> Evaluations:
    """Returns the figures of one full pass by column, `[1, runs]`.

    Args:
      jobs: the runs.
      train: squared distances of their images, `[at least runs, images]`, padding behind.
      test: of the test images, all of the data set's.
      squared_radius: `[at least runs]`.
    """
    radius = np.asarray(squared_radius)
    rows = [
        _pass_figures(
            *_trained_and_held_out(train[number], job.split),
            test[number][job.split.test_indices],
            job.split.test_labels,
            float(radius[number]),
        )
        for number, job in enumerate(jobs)
    ]
    columns = {name: np.array([[row[name] for row in rows]]) for name in rows[0]}
    return {**columns, _SAMPLE: train[None, : len(jobs), :PASS_IMAGES]}


def add(found: Evaluations, epoch: int, measured: Evaluations) -> Evaluations:
    """Returns the passes so far and one more, after an epoch."""
    new = {**measured, "epoch": np.array([epoch])}
    return {
        name: np.concatenate([found[name], values]) if name in found else values
        for name, values in new.items()
    }


def _trained_and_held_out(
    distances: npt.NDArray[np.floating], split: OneClassSplit
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    unlabelled, trained = len(split.train_indices), trained_count(split)
    return distances[:unlabelled], distances[trained : image_count(split)]


def _pass_figures(
    train: npt.NDArray[np.floating],
    held_out: npt.NDArray[np.floating],
    test: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    squared_radius: float,
) -> dict[str, float]:
    """Returns the figures of a full pass for one run; NaN if its distances are not finite."""
    finite = bool(np.isfinite(train).all() and np.isfinite(test).all())
    figures = {
        "test_auroc": metrics.auroc(test, labels) if finite else np.nan,
        "full_mean_distance": float(train.mean()),
        "full_outside": float((train > squared_radius).mean()),
    }
    if len(held_out):
        figures["held_out_mean_distance"] = float(held_out.mean())
    for name, values in (("normal", test[labels == 0]), ("anomalous", test[labels == 1])):
        for quantile in PASS_QUANTILES:
            place = f"test_{name}_q{round(100 * quantile):02d}"
            figures[place] = float(np.quantile(values, quantile)) if finite else np.nan
    return figures


def pass_columns(
    evaluations: Evaluations, history: dict[str, npt.NDArray[Any]], number: int
) -> dict[str, npt.NDArray[Any]]:
    """Returns the figures of the full passes, NaN for the epochs in between."""
    columns = {}
    for name in sorted(evaluations.keys() - {"epoch", _SAMPLE}):
        columns[name] = np.full(len(history["epoch"]), np.nan)
        for epoch, values in zip(evaluations["epoch"], evaluations[name], strict=True):
            columns[name][history["epoch"] == epoch] = values[number]
    return columns


def pass_arrays(
    evaluations: Evaluations, number: int, split: OneClassSplit
) -> dict[str, npt.NDArray[Any]]:
    """Returns the records of single training images by the full passes: epochs `[passes]`,
    positions in the pool of training images `[n]`, distances `[passes, n]`."""
    if not evaluations:
        return {}
    images = split.train_indices[:PASS_IMAGES]
    return {
        "pass_epochs": evaluations["epoch"],
        "pass_images": images,
        "pass_distances": evaluations[_SAMPLE][:, number, : len(images)],
    }
