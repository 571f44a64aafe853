"""Compares a trained detector with simpler ones, on samples that none of them was trained on."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import detectors, preprocessing
from deepsvdd_jax.cli.fitting.samples import Images, Samples
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.configs import DetectorConfig
from deepsvdd_jax.detectors import embeddings
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import metrics

NEIGHBORS = 5


class Trial(NamedTuple):
    """The samples that detectors are compared on, and those that a detector without training uses.

    Attributes:
      train: `[n, ...]`, normal training samples.
      normals: `[m, ...]`, normal samples that no detector is trained on.
      defects: `[k, ...]`, defects that no detector is trained on.
      are_held_out: whether the normals also calibrate the threshold: their false alarms then mean
        nothing.
    """

    train: Images
    normals: Images
    defects: Images
    are_held_out: bool


class Row(NamedTuple):
    """A detector's figures: AUROC in [0, 1], false alarms among the normals and defects found at
    its threshold; None without one."""

    name: str
    auroc: float
    false_alarms: int | None = None
    found: int | None = None


def trial(samples: Samples, aside: npt.NDArray[np.bool_]) -> Trial | None:
    """Returns the samples to compare on: the normals of the test part if there are any, else those
    held out of training; None without normals or without defects.

    Args:
      samples: with the defects to test on.
      aside: `[n]`, which of the normal samples are held out.
    """
    anomalous = samples.test_labels == 1
    normals, defects = samples.test_images[~anomalous], samples.test_images[anomalous]
    are_held_out = not len(normals)
    if are_held_out:
        normals = samples.images[aside]
    if not (len(normals) and len(defects)):
        return None
    return Trial(samples.images[~aside], normals, defects, are_held_out)


def row_of_model(name: str, model: Model, tried: Trial) -> Row:
    """Returns the figures of a model; without a threshold (it is infinite) its AUROC alone."""
    normals, defects = (detectors.judge(model, images) for images in (tried.normals, tried.defects))
    auroc = _auroc(normals.scores, defects.scores)
    if not np.isfinite(model.threshold):
        return Row(name, auroc)
    return Row(name, auroc, int(normals.anomalous.sum()), int(defects.anomalous.sum()))


def nothing_trained(config: DetectorConfig, tried: Trial) -> list[Row]:
    """Returns the figures of the untrained network and of the nearest neighbors after the
    network's preprocessing."""
    untrained = detectors.untrained_model(config, tried.train)
    rows = [row_of_model("untrained network", untrained, tried)]
    if len(tried.train) < NEIGHBORS:
        return rows
    fitted = preprocessing.fit(config.run.preprocessing, detectors.network_values(tried.train))
    train, normals, defects = (
        preprocessing.apply(fitted, detectors.network_values(images)).reshape(len(images), -1)
        for images in (tried.train, tried.normals, tried.defects)
    )
    scores = [embeddings.nearest_scores(points, train, NEIGHBORS) for points in (normals, defects)]
    return [*rows, Row(f"{NEIGHBORS} nearest neighbors", _auroc(*scores))]


def _auroc(normals: npt.NDArray[Any], defects: npt.NDArray[Any]) -> float:
    labels = np.repeat([0, 1], [len(normals), len(defects)])
    return metrics.auroc(np.concatenate([normals, defects]), labels)


def describe(rows: list[Row], tried: Trial) -> str:
    """Returns the rows side by side, AUROC in percent."""
    header = ("trained on", "AUROC", "false alarms", "defects found")
    lines: list[tuple[str, ...]] = [header]
    for row in rows:
        alarms = row.false_alarms is not None and not tried.are_held_out
        lines.append(
            (
                row.name,
                f"{100 * row.auroc:.2f}",
                f"{row.false_alarms} of {len(tried.normals)}" if alarms else "",
                f"{row.found} of {len(tried.defects)}" if row.found is not None else "",
            )
        )
    which = "normals held out of training" if tried.are_held_out else "normals of the test part"
    return (
        f"on {len(tried.defects)} defects that were not trained on and {len(tried.normals)} "
        f"{which}:\n{tables.aligned(lines)}"
    )


def as_json(rows: list[Row], tried: Trial) -> dict[str, Any]:
    """Returns the figures as JSON values, for a model's summary."""
    return {
        "defects": len(tried.defects),
        "normals": len(tried.normals),
        "normals_calibrate": tried.are_held_out,
        "rows": [row._asdict() for row in rows],
    }
