"""Trains a scorer on one's own normal data and saves it as a model.

    python -m experiments.fit --data_dir=good_parts --image_size=64,64 --model=parts.model
    python -m experiments.fit --dataset=csv --data_dir=normal.csv --model=sensor.model

`--data_dir` is a folder of images (all of them normal, or with `train/` and `test/`), an npz or csv
file, or what `--dataset` says; of labelled data `--normal_class` is trained on. The seeds are
members of one ensemble. A part of the data is held out, so that the threshold keeps the false-alarm
rate that was asked for.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import calibration, checkpoints, datasets, detectors, metrics
from deepsvdd_jax.checkpoints import Model
from deepsvdd_jax.configs import ConfigError, DataConfig, DetectorConfig
from deepsvdd_jax.datasets import DataError, Dataset
from experiments import environment, settings, sweep


class NormalData(NamedTuple):
    """What a scorer is trained on, and what there is to try it on.

    Attributes:
      images: `[n, ...]`, all normal.
      test_images: `[m, ...]`, empty without a test part.
      test_labels: `[m]`, 1 = anomalous.
      feature_names: columns of a table.
    """

    images: npt.NDArray[Any]
    test_images: npt.NDArray[Any]
    test_labels: npt.NDArray[np.integer]
    feature_names: tuple[str, ...] = ()


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags("folder")
    settings.define_run_flags()
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder to write the model to")
    flags.DEFINE_integer("normal_class", 0, "class that is normal, of labelled data")
    flags.DEFINE_string("seeds", "5", "members of the ensemble: a count, or a list as 0,1,7")
    flags.DEFINE_float(
        "calibration_fraction", 0.2, "share that is held out for threshold and p-values"
    )
    flags.DEFINE_enum(
        "threshold",
        "conformal",
        ["conformal", "quantile", "contamination", "radius"],
        "conformal: --false_alarm_rate, from held-out data; quantile: --threshold_quantile of the "
        "training scores; contamination: that share of them; radius: d > R^2",
    )
    flags.DEFINE_float("false_alarm_rate", 0.01, "share of normals that may raise an alarm")
    flags.DEFINE_float("contamination", 0.01, "share of the data that is called anomalous")


def main() -> None:
    """Reads the flags, trains, saves the model, says what it does on held-out and test data."""
    values = flags.FLAGS
    environment.use_platform(values.platform, values.compilation_cache)
    if not values.model:
        raise ConfigError("--model is not given; it names the folder to write the model to")
    data_config = settings.data_config(values)
    data = load_normal(data_config, values.normal_class)
    config = detector_config(values, data)
    with sweep.progress_bar("fit", _epochs(config), "epoch") as bar:
        model, _ = fit(config, data, lambda done, _: bar.update(done - bar.n))
    model = model._replace(summary={**model.summary, **_summary(config, data_config)})
    checkpoints.save_model(Path(values.model), model)
    print(describe(model))
    if len(data.test_images):
        print(describe_test(model, data))


def load_normal(config: DataConfig, normal_class: int) -> NormalData:
    """Loads what a scorer is trained on (touches files).

    Raises:
      DataError: no such data, or no such class.
    """
    if config.name == "folder" and config.data_dir is not None:
        root = Path(config.data_dir).expanduser()
        if root.is_dir() and not (root / "train").is_dir():
            return _plain_folder(root, config)
    dataset = datasets.load(config)
    split = datasets.one_class_split(dataset, normal_class, require_test=False)
    return NormalData(
        dataset.x_train[split.train_indices],
        dataset.x_test[split.test_indices],
        split.test_labels,
        _feature_names(config, dataset),
    )


def _plain_folder(root: Path, config: DataConfig) -> NormalData:
    paths = datasets.image_files(root)
    if not paths:
        raise DataError(f"{root}: no images in it; put the normal images there, or into train/")
    parts = datasets.iter_images(paths, config.image_size, config.channels)
    images = np.concatenate([batch for _, batch in parts])
    return NormalData(images, images[:0], np.zeros(0, np.uint8))


def _feature_names(config: DataConfig, dataset: Dataset) -> tuple[str, ...]:
    if config.name != "csv" or config.data_dir is None:
        return ()
    path = Path(config.data_dir).expanduser()
    return datasets.read_csv(path / "train.csv" if path.is_dir() else path)[1]


def detector_config(values: flags.FlagValues, data: NormalData) -> DetectorConfig:
    """Builds the configuration from parsed flags."""
    shape = tuple(data.images.shape[1:])
    conformal = values.threshold == "conformal"
    config = DetectorConfig(
        run=settings.run_config(values, values.dataset, shape),
        seeds=settings.seed_list(values.seeds),
        calibration_fraction=values.calibration_fraction,
        threshold_rule=values.threshold,
        contamination=values.contamination,
    )
    sweep.check_network(config.run, shape)
    # Another rule does not look at the rate.
    return dataclasses.replace(config, alarm_rate=values.false_alarm_rate) if conformal else config


def fit(config: DetectorConfig, data: NormalData, on_progress: Any) -> tuple[Model, Any]:
    """Trains a model; see `detectors.fit_detector`.

    Raises:
      Failure: a member failed.
    """
    try:
        return detectors.fit_detector(
            config, data.images, feature_names=data.feature_names, on_progress=on_progress
        )
    except detectors.TrainingError as error:
        raise environment.Failure(str(error)) from None


def _epochs(config: DetectorConfig) -> int:
    before = config.run.pretraining.epochs if config.run.pretraining else 0
    return before + config.run.training.epochs


def _summary(config: DetectorConfig, data: DataConfig) -> dict[str, Any]:
    """Returns the alarm rate that was asked for, and how images are made alike before scoring."""
    conformal = config.threshold_rule == "conformal"
    return {
        "alarm_rate": config.alarm_rate if conformal else None,
        "data": {
            "image_size": list(data.image_size) if data.image_size else None,
            "channels": data.channels,
        },
    }


def describe(model: Model) -> str:
    """Returns lines on a fitted model."""
    summary = model.summary
    return (
        f"{len(model.center)} members trained on {summary['train_samples']} samples, "
        f"{summary['calibration_samples']} held out\n"
        f"threshold {model.threshold:.6g}: {summary['threshold_rule']}"
    )


def describe_test(model: Model, data: NormalData) -> str:
    """Returns lines on the test part: alarms among its normals, and how well anomalies are told."""
    scores = detectors.score_images(model, data.test_images)
    normal = data.test_labels == 0
    alarms = int((scores[normal] > model.threshold).sum())
    lines = [f"test part: {alarms} of {normal.sum()} normals raise an alarm"]
    if normal.any() and not normal.all():
        found = int((scores[~normal] > model.threshold).sum())
        auroc = metrics.evaluate(scores, data.test_labels, model.threshold).auroc
        lines[0] += f", {found} of {(~normal).sum()} anomalies do; AUROC {100 * auroc:.2f}"
    rate = model.summary["alarm_rate"]
    if rate is not None:
        low, high = calibration.alarm_interval(
            model.summary["calibration_samples"], int(normal.sum()), rate
        )
        lines.append(
            f"with {rate:g} asked for, {low} to {high} alarms are to be expected (99.9 %) of "
            "normals like those that were trained on"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
