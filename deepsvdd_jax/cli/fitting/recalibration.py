"""Sets a saved model's threshold and p-values by new normal samples, without training."""

from typing import Any

import numpy as np
from absl import flags

from deepsvdd_jax import detectors
from deepsvdd_jax.cli import model_images, settings
from deepsvdd_jax.cli.fitting.samples import Images, Samples
from deepsvdd_jax.configs import ConfigError, DataConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration

# Flags of a training, beside those of its settings, that a recalibration does not read.
_OF_TRAINING = (
    *("preset", "config", "seeds", "calibration_fraction", "groups", "threshold", "contamination"),
    *("known_kinds", "known_fraction", "known_per_kind", "outliers", "outlier_count", "compare"),
    *(
        "calibration",
        "embedding_score",
        "estimate_only",
        "time_budget",
        "image_size",
        "channels",
        "pixel_range",
    ),
)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses flags that a recalibration does not read.

    Raises:
      ConfigError: names the flag.
    """
    given = [name for name, _ in settings.given(values)]
    given += [name for name in _OF_TRAINING if values[name].value != values[name].default]
    if given:
        raise ConfigError(
            f"--{given[0]} has no effect here: --recalibrate trains nothing, and reads samples as "
            "the model's were"
        )


def as_the_model_reads(config: DataConfig, model: Model) -> dict[str, Any]:
    """Returns the settings of new data that follow from the model; columns that flags name stay.

    Raises:
      DataError: a folder of images for a model of a table.
    """
    trained = model.summary.get("data", {})
    found: dict[str, Any] = {}
    if config.name == "folder":
        if len(model.image_shape) != 3:
            raise DataError(f"{config.data_dir}: a folder, but the model was trained on a table")
        wanted = model_images.wanted(model)
        size, pixel_range = wanted.size, wanted.pixel_range
        found = {
            "image_size": size,
            "channels": wanted.channels,
            "pixel_range": None if pixel_range is None else tuple(pixel_range),
        }
    if config.name == "csv":
        ignored = tuple(trained.get("ignore_columns") or ()) or None
        found = {
            "label_column": config.label_column or trained.get("label_column"),
            "id_column": config.id_column or trained.get("id_column"),
            "ignore_columns": config.ignore_columns or ignored,
        }
    return found


def suited(data: Samples, model: Model) -> tuple[Images, Images]:
    """Returns normal samples and test samples as the model takes them, columns in its order.

    Raises:
      DataError: samples of another shape, other columns, or another depth of pixels.
    """
    images, tests = data.images, data.test_images
    names = model.feature_names
    if names and data.feature_names:
        missing = [name for name in names if name not in data.feature_names]
        if missing:
            raise DataError(
                f"the column {missing[0]!r} is missing; the model was trained on "
                f"{', '.join(names[:20])}"
            )
        order = [data.feature_names.index(name) for name in names]
        images, tests = images[:, order], tests[:, order]
    if images.shape[1:] != model.image_shape:
        raise DataError(
            f"samples of shape {images.shape[1:]}; this model was trained on {model.image_shape}"
        )
    deep = len(model.image_shape) == 3 and data.pixel_range is not None
    if deep and model_images.wanted(model).pixel_range is None:
        raise DataError("images of more than 8 bits a pixel; this model was trained on 8 bits")
    return images, tests


def false_alarm_rate(model: Model, given: float | None, count: int) -> float:
    """Returns the rate of the new threshold: the given one, else the model's own, but not below the
    lowest that so many samples allow."""
    if given is not None:
        return given
    own = model.summary.get("alarm_rate") or detectors.held_out.DEFAULT_ALARM_RATE
    return max(float(own), 1.0 / (count + 1))


def recalibrated(model: Model, images: Images, rate: float, places: str) -> Model:
    """Returns the model with calibration scores and threshold from new normal samples.

    Args:
      model: fitted or loaded.
      images: `[n, ...]`, normal, none of which it was trained on.
      rate: bound of the share of normals above the threshold.
      places: in words, where the samples come from.

    Raises:
      ConfigError: a rate that needs more samples than there are.
      DataError: scores that are not finite.
    """
    scores = np.sort(detectors.score_images(model, images))
    threshold = calibration.conformal_threshold(scores, rate)
    stale = ("train_alarms", "threshold_choice")
    kept = {name: value for name, value in model.summary.items() if name not in stale}
    evidence = {
        "samples": len(scores),
        "from": places,
        "false_alarm_rate": rate,
        "above_the_threshold_before": int((scores > model.threshold).sum()),
        "threshold_before": model.threshold,
        "rule_before": model.summary.get("threshold_rule"),
        "calibration_samples_before": len(model.calibration_scores),
    }
    return model._replace(
        calibration_scores=scores,
        calibration_folds=np.zeros(0, np.int32),
        threshold=threshold,
        summary={
            **kept,
            "calibration_samples": len(scores),
            "threshold_rule": f"a normal is above with probability {rate:g} at most, recalibrated",
            "alarm_rate": rate,
            "recalibration": evidence,
        },
    )


def describe(before: Model, model: Model) -> str:
    """Returns lines on the changes of a recalibration."""
    evidence = model.summary["recalibration"]
    return (
        f"threshold {model.threshold:.6g}, was {before.threshold:.6g}, from {evidence['samples']} "
        f"new normals, {evidence['above_the_threshold_before']} of which were above the old one: "
        f"{model.summary['threshold_rule']}"
    )
