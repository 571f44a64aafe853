"""Trains a scorer on one's own normal data and saves it as a model.

    python -m experiments.fit --data_dir=good_parts --image_size=64,64 --model=parts.model
    python -m experiments.fit --dataset=csv --data_dir=normal.csv --model=sensor.model

`--data_dir` is a folder of images, an npz or csv file, or what `--dataset` says. Of a folder with
`good/` (`normal/`, `ok/`) beside other folders only those images are trained on, the others are to
test on, as with `train/` and `test/<class>/`; masks in `masks/` or `ground_truth/` are no images.
Of other labelled data `--normal_class` is trained on. The seeds are
members of one ensemble. A part of the data is held out, so that the threshold keeps the false-alarm
rate that was asked for. Where images come in near-duplicates (frames of one video, photos of one
traffic sign), `--groups` holds out all of a kind together: `--groups='.*_'` for names as
`00014/00003_00029.ppm`.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import environment, paths, settings, unread
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import plans
from deepsvdd_jax.configs import ConfigError, DataConfig, DetectorConfig
from deepsvdd_jax.datasets import DataError, Dataset, Layout, folder
from deepsvdd_jax.datasets.dataset import printable
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration, metrics

with lazily():
    from deepsvdd_jax import detectors


class NormalData(NamedTuple):
    """What a scorer is trained on, and what there is to try it on.

    Attributes:
      images: `[n, ...]`, all normal.
      test_images: `[m, ...]`, empty without a test part.
      test_labels: `[m]`, 1 = anomalous.
      feature_names: columns of a table.
      names: of the images or rows, `[n]`, where they have some.
      pixel_range: see `Dataset.pixel_range`.
    """

    images: npt.NDArray[Any]
    test_images: npt.NDArray[Any]
    test_labels: npt.NDArray[np.integer]
    feature_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    pixel_range: tuple[float, float] | None = None


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags("folder")
    settings.define_run_flags()
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder to write the model to")
    flags.DEFINE_string(
        "normal_class",
        None,
        "class that is normal, of labelled data: its number or name (default: the one named good, "
        "normal or ok; else 0, and all images of a folder whose names tell nothing apart)",
    )
    settings.define_unreadable_flag()
    flags.DEFINE_string("seeds", "5", "members of the ensemble: a count, or a list as 0,1,7")
    flags.DEFINE_float(
        "calibration_fraction", 0.2, "share that is held out for threshold and p-values"
    )
    flags.DEFINE_string(
        "groups",
        None,
        "regular expression that matches the first part of an image's path; images with the same "
        "match are held out together",
    )
    flags.DEFINE_enum(
        "threshold",
        "conformal",
        ["conformal", "quantile", "contamination", "radius"],
        "conformal: --false_alarm_rate, from held-out data; quantile: --threshold_quantile of the "
        "training scores; contamination: that share of them; radius: d > R^2",
    )
    flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "share of normals that may raise an alarm (default: 0.01, or the lowest rate that the "
        "held-out data carry)",
    )
    flags.DEFINE_float("contamination", 0.01, "share of the data that is called anomalous")


def main() -> None:
    """Reads the flags, trains, saves the model, says what it does on held-out and test data."""
    values = flags.FLAGS
    if values.model is None:
        raise ConfigError("--model is not given; it names the folder to write the model to")
    # Before any work: a model that cannot be written would be lost.
    target = paths.folder_to_write("model", values.model)
    models.check_target(target)
    data_config = settings.data_config(values)
    environment.use_platform(values.platform, values.compilation_cache)
    data = load_normal(data_config, values.normal_class, values.skip_unreadable)
    config = detector_config(values, data)
    groups = None if values.groups is None else group_labels(data.names, values.groups)
    print(announce(config, data), file=sys.stderr)
    with environment.progress_bar("fit", _epochs(config), "epoch") as bar:
        model, _ = detectors.fit_detector(
            config,
            data.images,
            feature_names=data.feature_names,
            groups=groups,
            on_progress=lambda done, _: bar.update(done - bar.n),
            on_compiled=environment.show_compilation(bar),
        )
    model = model._replace(
        summary={**model.summary, **_summary(config, data_config, model, data.pixel_range)}
    )
    models.save_model(target, model)
    print(describe(model))
    if len(data.test_images):
        print(describe_test(model, data))


def announce(config: DetectorConfig, data: NormalData) -> str:
    """Returns a line that says what is to be trained, on what, and where."""
    shape = " x ".join(map(str, data.images.shape[1:]))
    return (
        f"{len(data.images)} normal samples of {shape}; {len(config.seeds)} members, "
        f"{_epochs(config)} epochs each, on {environment.devices_in_words()}"
    )


def load_normal(
    config: DataConfig, normal_class: str | None, skip_unreadable: bool = False
) -> NormalData:
    """Loads what a scorer is trained on (touches files).

    Args:
      config: where it is.
      normal_class: of labelled data, its number or name; None takes the class whose name says so,
        else 0, or all of a folder whose names tell nothing apart.
      skip_unreadable: of a folder: leave out files that cannot be read.

    Raises:
      DataError: no such data, or no such class.
    """
    if config.name == "folder" and config.data_dir is not None:
        return _load_folder(config, normal_class, skip_unreadable)
    if skip_unreadable:
        raise ConfigError("--skip_unreadable is for a folder of images")
    dataset = datasets.load(config)
    number = _class_number(dataset, normal_class)
    print(f"normal: class {number}, {dataset.class_names[number]}", file=sys.stderr)
    split = datasets.one_class_split(dataset, number, require_test=False)
    return NormalData(
        dataset.x_train[split.train_indices],
        dataset.x_test[split.test_indices],
        split.test_labels,
        dataset.feature_names,
        tuple(dataset.train_names[index] for index in split.train_indices)
        if dataset.train_names
        else (),
    )


def _class_number(dataset: Dataset, given: str | None) -> int:
    names = dataset.class_names
    if given is None:
        return next((names.index(name) for name in datasets.NORMAL_NAMES if name in names), 0)
    if given in names:
        return names.index(given)
    if not given.isdecimal() or int(given) >= len(names):
        raise DataError(
            f"{dataset.name}: normal_class is {given!r}; allowed are 0 to {len(names) - 1}, or a "
            "class's name"
        )
    return int(given)


def _load_folder(config: DataConfig, normal_class: str | None, skip_unreadable: bool) -> NormalData:
    root = Path(str(config.data_dir)).expanduser()
    layout = folder.read_layout(root)
    folder.check_parts(layout, root)
    layout = _with_normal(layout, normal_class, root)
    tested = dict(layout.test)
    tests = datasets.layout.sort_paths(path for paths in tested.values() for path in paths)
    _tell_layout(layout)
    folder.tell_left_out(layout)
    images, names = _read(root, (*layout.normals, *tests), config, skip_unreadable)
    normals = set(layout.normals)
    count = sum(name in normals for name in names)
    if not count:
        raise DataError(f"{root}: none of its {len(normals)} normal images can be read")
    pixel_range = folder.range_of_pixels(config, images[:count])
    images = folder.in_range(images, pixel_range)
    folder.tell_repeated(images[:count], images[count:], names[count:])
    good = set(layout.test_normals)
    return NormalData(
        images[:count],
        images[count:],
        np.array([name not in good for name in names[count:]], np.uint8),
        names=tuple(folder.name_in_part(layout, name) for name in names[:count]),
        pixel_range=pixel_range,
    )


def _with_normal(layout: Layout, normal_class: str | None, root: Path) -> Layout:
    if normal_class is not None:
        return datasets.layout.choose(layout, normal_class, str(root))
    if layout.normal is not None:
        return layout
    if layout.has_parts:
        return datasets.layout.choose(layout, next(iter(layout.train)), str(root))
    return datasets.layout.all_normal(layout, str(root))


def _tell_layout(layout: Layout) -> None:
    """Says how many images come from where."""
    number = layout.classes.index(str(layout.normal))
    normals = layout.normals
    lines = [
        f"normal: class {number}, {printable(str(layout.normal))}: {len(normals)} images: "
        f"{folder.describe_places(normals)}"
    ]
    if layout.test:
        tests = [path for paths in layout.test.values() for path in paths]
        lines.append(f"to test on: {len(tests)} images: {folder.describe_places(tests)}")
    if layout.known_defects:
        others = [path for paths in layout.known_defects.values() for path in paths]
        lines.append(f"not used: {len(others)} images: {folder.describe_places(others)}")
    if layout.masks:
        lines.append(f"masks: of {len(layout.masks)} images")
    marked = [path for path in normals if path in layout.masks]
    if marked:
        first = printable(marked[0])
        lines.append(f"{len(marked)} of the normal images have a mask, as defects do: {first}")
    print("\n".join(lines), file=sys.stderr)


def _read(
    root: Path, paths: Sequence[str], config: DataConfig, skip_unreadable: bool
) -> tuple[npt.NDArray[Any], list[str]]:
    """Returns images and their paths below the folder."""
    parts = list(
        datasets.iter_images(
            [root / path for path in paths],
            config.image_size,
            config.channels,
            skip_unreadable=skip_unreadable,
            megapixels=config.max_megapixels,
        )
    )
    if not parts:
        raise DataError(f"{root}: none of its {len(paths)} images can be read")
    names = [Path(name).relative_to(root).as_posix() for part, _ in parts for name in part]
    return np.concatenate([images for _, images in parts]), names


def group_labels(names: Sequence[str], pattern: str) -> npt.NDArray[np.str_]:
    """Returns what a regular expression matches at the start of each name, `[n]`.

    Raises:
      ConfigError: no expression, one that a name does not match, or data that have no names.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"groups is {pattern!r}, no regular expression: {error}") from None
    if not names:
        raise ConfigError(
            "groups is for image files and for rows with --id_column; these data have no names"
        )
    found = [expression.match(name) for name in names]
    if None in found:
        name = names[found.index(None)]
        raise ConfigError(f"groups is {pattern!r}, which does not match {name!r}")
    return np.array([match.group() for match in found if match is not None])


def detector_config(values: flags.FlagValues, data: NormalData) -> DetectorConfig:
    """Builds the configuration from parsed flags."""
    shape = tuple(data.images.shape[1:])
    conformal = values.threshold == "conformal"
    run = settings.run_config(values, values.dataset, shape)
    unread.check_settings(settings.given(values), run, {"deep_svdd": run}, keeps_radius=True)
    unread.check_threshold(values)
    config = DetectorConfig(
        run=run,
        seeds=settings.seed_list(values.seeds),
        calibration_fraction=values.calibration_fraction,
        threshold_rule=values.threshold,
        contamination=values.contamination,
    )
    plans.check_network(config.run, shape)
    if not conformal:
        # Another rule does not look at the rate.
        return config
    rate = values.false_alarm_rate
    if rate is None:
        rate = _default_rate(values.calibration_fraction, len(data.images))
    return dataclasses.replace(config, alarm_rate=rate)


def _default_rate(calibration_fraction: float, count: int) -> float:
    """Returns the rate of the threshold, and says so where the data carry none as low as usual."""
    rate = detectors.default_alarm_rate(calibration_fraction, count)
    usual = detectors.deep_svdd.DEFAULT_ALARM_RATE
    if rate > usual:
        held_out = detectors.held_out_count(calibration_fraction, count)
        needed = round(1 / usual) - 1
        print(
            f"{held_out} held-out samples carry a false-alarm rate of {rate:.3g} at the lowest, so "
            f"that it is {rate:.3g} and not {usual:g}, which takes {needed}: give more samples, a "
            "higher --calibration_fraction, or a --false_alarm_rate of your own",
            file=sys.stderr,
        )
    return rate


def _epochs(config: DetectorConfig) -> int:
    before = config.run.pretraining.epochs if config.run.pretraining else 0
    return before + config.run.training.epochs


def _summary(
    config: DetectorConfig,
    data: DataConfig,
    model: Model,
    pixel_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Returns the alarm rate that was asked for, and how new data are read as these were."""
    conformal = config.threshold_rule == "conformal"
    return {
        "alarm_rate": config.alarm_rate if conformal else None,
        "data": {
            # The loader of traffic signs resizes them without being told.
            "image_size": list(model.image_shape[:2])
            if data.image_size or data.name == "gtsrb"
            else None,
            "channels": data.channels,
            "pixel_range": pixel_range,
            "label_column": data.label_column,
            "ignore_columns": list(data.ignore_columns or ()),
            "id_column": data.id_column,
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
    if not normal.any():
        found = int((scores > model.threshold).sum())
        return f"test part: {found} of {len(scores)} anomalies raise an alarm"
    alarms = int((scores[normal] > model.threshold).sum())
    lines = [f"test part: {alarms} of {normal.sum()} normals raise an alarm"]
    if not normal.all():
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
