"""Trains a detector on your normal data and saves it as a model.

    python -m experiments.fit --data_dir=good_parts --image_size=64,64 --model=parts.model
    python -m experiments.fit --dataset=csv --data_dir=normal.csv --model=sensor.model

`--data_dir` is a folder of images, an npz or csv file, or the data of `--dataset`. Of a folder with
`good/` (`normal/`, `ok/`) beside other folders it trains on those images only and tests on the
others, as with `train/` and `test/<class>/`; masks in `masks/` or `ground_truth/` are not taken as
images. Of other labelled data it trains on `--normal_class`. With `--objective=deep-sad`, `hsc`,
`fcdd` or `bce` it also trains on a part of the labelled defects and prints their gain. The seeds
are members of one ensemble. A part of the data is held out, so that the threshold keeps the
requested false-alarm rate. Where images come in near-duplicates (frames of one video, photos of one
traffic sign), `--groups` holds out all of a kind together: `--groups='.*_'` for names as
`00014/00003_00029.ppm`. `--recalibrate` gives the saved model a threshold from new normal data.
"""

import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli import bars, environment, paths, settings, signals, thresholds, unread
from deepsvdd_jax.cli.fitting import costs, known, samples, tasks
from deepsvdd_jax.cli.fitting.samples import Samples
from deepsvdd_jax.cli.fitting.tasks import Plan, Task
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import methods, plans
from deepsvdd_jax.configs import ConfigError, DataConfig, DetectorConfig
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration, cross_calibration, metrics

with lazily():
    from deepsvdd_jax import detectors
    from deepsvdd_jax.cli.fitting import comparison, recalibration, under_way
    from deepsvdd_jax.detectors import model_card


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
    known.define_flags()
    settings.define_outlier_flags()
    flags.DEFINE_bool(
        "compare", True, "with labelled defects: train once more without them, to see what they do"
    )
    costs.define_flags()
    flags.DEFINE_bool(
        "recalibrate",
        False,
        "train nothing: take threshold and p-values of the saved --model from new normal samples",
    )
    flags.DEFINE_string(
        "seeds",
        None,
        "members of the ensemble: a count, or a list as 0,1,7 (default: 5, of images with more "
        "than 64 x 64 pixels 2)",
    )
    flags.DEFINE_float(
        "calibration_fraction", 0.2, "share that is held out for threshold and p-values"
    )
    flags.DEFINE_enum(
        "calibration",
        "held-out",
        ["held-out", "cross"],
        "held-out: threshold and p-values from a share that no member is trained on; cross, for "
        "small sets: from all but a fifth, each held out of one member",
    )
    flags.DEFINE_enum(
        "embedding_score",
        "center",
        ["center", "neighbors", "mahalanobis"],
        "what a new embedding is compared with: the center, the five nearest training embeddings, "
        "or their mean and covariance",
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
    """Reads the flags, trains, saves the model, prints its figures on held-out and test data."""
    values = flags.FLAGS
    if values.model is None:
        raise ConfigError("--model is not given; it names the folder to write the model to")
    if values.recalibrate:
        recalibrate(values)
        return
    # Checked before any work: a model that cannot be written would be lost.
    started = time.perf_counter()
    budget = costs.budget_of(values)
    target = paths.folder_to_write("model", values.model)
    models.check_target(target)
    data_config = settings.data_config(values)
    environment.use_platform(values.platform, values.compilation_cache)
    with_masks = bool(values.map_masks)
    data = samples.load(data_config, values.normal_class, values.skip_unreadable, with_masks)
    config = detector_config(values, data)
    groups = None if values.groups is None else group_labels(data.names, values.groups)
    planned = tasks.plan(values, config, data)
    if planned.shares:
        print(known.describe(planned.shares), file=sys.stderr)
    elif not data.has_test_part and data.test_labels.any():
        print(
            f"{data.test_labels.sum()} labelled defects are tested on alone; --objective=deep-sad "
            "also learns from some of them",
            file=sys.stderr,
        )
    out = sys.stdout if values.estimate_only else sys.stderr
    print(announce(planned), file=out)
    if values.estimate_only:
        bound(values, planned, groups, budget=budget, started=started, out=out)
        return
    kept = under_way.UnderWay(target, under_way.fingerprint(planned, groups, values.time_budget))
    planned, prepared = resume_or_bound(
        values, planned, groups, budget=budget, started=started, kept=kept
    )
    config = planned.main.config
    model, *others = train_all(planned, groups, kept, prepared)
    model = model._replace(
        summary={**model.summary, **_summary(config, data_config, model, data.pixel_range)}
    )
    lines = [describe(model)]
    if config.run.training.objective.uses_labels:
        rows, model = compare(planned, model, others, groups)
        lines += rows
    if len(planned.samples.test_images):
        lines.append(describe_test(model, planned.samples))
    models.save_model(target, model)
    model_card.write_card(target, model)
    kept.clear()
    print("\n".join(lines))


def bound(
    values: flags.FlagValues,
    planned: Plan,
    groups: npt.NDArray[np.str_] | None,
    budget: float | None,
    started: float,
    out: TextIO,
) -> "tuple[Plan, detectors.Prepared | None]":
    """Measures and prints the time of the training. Returns the plan that fits into a budget, and
    the samples of its main task if they are prepared for it.

    Args:
      values: parsed flags.
      planned: the trainings.
      groups: see `group_labels`.
      budget: seconds from `started` on; None bounds nothing.
      started: by `time.perf_counter`.
      out: the stream to print to.
    """
    prepared = costs.prepare(planned, groups)
    speed = costs.measure(planned, prepared)
    print(costs.describe(planned, speed), file=out)
    if budget is None:
        return planned, prepared
    left = budget - (time.perf_counter() - started)
    members = None if values.seeds is None else len(planned.main.config.seeds)
    choice = costs.choose(planned, speed, left, members, values.epochs)
    seeds = planned.main.config.seeds if members else tuple(range(choice.members))
    chosen = tasks.with_configs(planned, lambda one: costs.with_choice(one, choice, seeds))
    print(
        f"time_budget {values.time_budget}: {choice.members} members, {choice.epochs} epochs each, "
        f"about {tables.duration(choice.seconds)} to train",
        file=out,
    )
    # The held-out samples depend on the members.
    return chosen, prepared if seeds == planned.main.config.seeds else None


def recalibrate(values: flags.FlagValues) -> None:
    """Gives a saved model a calibration and a threshold from new normal samples.

    Raises:
      ConfigError, DataError, ModelError: no model, samples that do not suit it, or too few.
    """
    recalibration.check_flags(values)
    saved = paths.to_read("model", values.model)
    model = models.load_model(saved)
    models.check_target(saved)
    data_config = settings.data_config(values)
    environment.use_platform(values.platform, values.compilation_cache)
    known_settings = recalibration.as_the_model_reads(data_config, model)
    data_config = dataclasses.replace(data_config, **known_settings)
    data = samples.load(data_config, values.normal_class, values.skip_unreadable)
    images, tests = recalibration.suited(data, model)
    rate = recalibration.false_alarm_rate(model, values.false_alarm_rate, len(images))
    new = recalibration.recalibrated(model, images, rate, data.places)
    lines = [recalibration.describe(model, new)]
    if len(tests):
        lines.append(describe_test(new, data._replace(images=images, test_images=tests)))
    models.save_model(saved, new)
    model_card.write_card(saved, new)
    print("\n".join(lines))


def resume_or_bound(
    values: flags.FlagValues,
    planned: Plan,
    groups: npt.NDArray[np.str_] | None,
    budget: float | None,
    started: float,
    kept: "under_way.UnderWay",
) -> "tuple[Plan, detectors.Prepared | None]":
    """Returns the choice of a fit that is resumed, else that of `bound`, and keeps it."""
    if not kept.is_there():
        bounded, prepared = bound(
            values, planned, groups, budget=budget, started=started, out=sys.stderr
        )
        if budget is not None:
            run = bounded.main.config.run
            kept.keep_choice({"seeds": bounded.main.config.seeds, "epochs": run.training.epochs})
        return bounded, prepared
    chosen = kept.choice()
    if chosen is None:
        return planned, None
    seeds = tuple(chosen["seeds"])
    choice = costs.Choice(len(seeds), chosen["epochs"], 0.0)
    return tasks.with_configs(planned, lambda one: costs.with_choice(one, choice, seeds)), None


def train_all(
    planned: Plan,
    groups: npt.NDArray[np.str_] | None,
    kept: "under_way.UnderWay",
    prepared: "detectors.Prepared | None" = None,
) -> list[Model]:
    """Trains all tasks, the main one on samples that may be prepared; a signal saves the training
    under way and stops.

    Raises:
      TrainingError: a member failed, as it would again after a resume.
      Interrupted: by a signal.
    """
    try:
        with signals.stop_signals() as stop:
            return [
                train(
                    task,
                    planned,
                    groups,
                    kept.checkpoint(number, _last_epochs(task), stop.check),
                    prepared if task is planned.main else None,
                )
                for number, task in enumerate(planned.tasks)
            ]
    except detectors.TrainingError:
        kept.clear()
        raise


def _last_epochs(task: Task) -> int:
    return task.config.run.training.epochs


def train(
    task: Task,
    planned: Plan,
    groups: npt.NDArray[np.str_] | None,
    checkpoint: "detectors.Checkpoint",
    prepared: "detectors.Prepared | None" = None,
) -> Model:
    """Trains a task, with a bar."""
    name = "fit" if task is planned.main else "fit without labels"
    with bars.progress_bar(name, _epochs(task.config), "epoch") as bar:
        model, _ = detectors.fit_detector(
            task.config,
            **tasks.training_set(task, planned.samples, groups),
            feature_names=planned.samples.feature_names,
            on_progress=lambda done, _: bar.update(done - bar.n),
            on_compiled=bars.show_compilation(bar),
            checkpoint=checkpoint,
            prepared=prepared,
        )
    return model


def compare(
    planned: Plan, model: Model, others: Sequence[Model], groups: npt.NDArray[np.str_] | None
) -> tuple[list[str], Model]:
    """Returns lines that compare the model with simpler detectors, and the model with these figures
    in its summary; no lines without normals and defects to compare on."""
    data = planned.samples
    evidence: dict[str, Any] = {
        "trained_on": planned.main.title,
        "outliers": planned.outliers,
        "shares": {kind: share._asdict() for kind, share in planned.shares.items()},
    }
    each = np.arange(len(data.images)) if groups is None else groups
    tried = comparison.trial(data, detectors.held_out_mask(planned.main.config, each))
    lines = []
    if tried is not None:
        rows = [
            comparison.row_of_model(task.title, fitted, tried)
            for task, fitted in zip(planned.tasks, (model, *others), strict=True)
        ]
        rows += comparison.nothing_trained(planned.tasks[-1].config, tried)
        evidence["comparison"] = comparison.as_json(rows, tried)
        lines.append(comparison.describe(rows, tried))
    elif planned.shares:
        lines.append("no comparison: there are no normals, or no defects, that were not trained on")
    return lines, model._replace(summary={**model.summary, "labels": evidence})


def announce(planned: Plan) -> str:
    """Returns a line on the training: samples, members, epochs, devices."""
    data, config = planned.samples, planned.main.config
    shape = " x ".join(map(str, data.images.shape[1:]))
    known_anomalies = len(planned.main.anomalies)
    more = f" and {known_anomalies} known anomalies" if known_anomalies else ""
    twice = "" if planned.reference is None else ", once with and once without labels"
    return (
        f"{len(data.images)} normal samples{more} of {shape}; {len(config.seeds)} members, "
        f"{_epochs(config)} epochs each{twice}, on {environment.devices_in_words()}; from "
        f"{data.places}"
    )


def group_labels(names: Sequence[str], pattern: str) -> npt.NDArray[np.str_]:
    """Returns the match of a regular expression at the start of each name, `[n]`.

    Raises:
      ConfigError: an invalid expression, one that a name does not match, or data without names.
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


def member_seeds(values: flags.FlagValues, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the seeds of the flag, or the default number of seeds for images of that shape."""
    if values.seeds is not None:
        return settings.seed_list(values.seeds)
    return tuple(range(costs.default_members(image_shape)))


def detector_config(values: flags.FlagValues, data: Samples) -> DetectorConfig:
    """Builds the configuration from parsed flags."""
    shape = tuple(data.images.shape[1:])
    conformal = values.threshold == "conformal"
    run = settings.run_config(values, values.dataset, shape)
    unread.check_settings(
        settings.given(values), run, [(methods.DEEP_SVDD, run)], keeps_radius=True
    )
    unread.check_threshold(values)
    config = DetectorConfig(
        run=run,
        seeds=member_seeds(values, shape),
        calibration_fraction=values.calibration_fraction,
        threshold_rule=values.threshold,
        contamination=values.contamination,
        calibration=values.calibration,
        embedding_score=values.embedding_score,
    )
    # The masks of labelled defects are checked when the defects are divided.
    plans.check_network(config.run, shape, has_masks=True)
    if not conformal:
        # Another rule does not use the rate.
        return config
    rate = values.false_alarm_rate
    if rate is None:
        rate = _default_rate(values, len(data.images))
    return dataclasses.replace(config, alarm_rate=rate)


def _default_rate(values: flags.FlagValues, count: int) -> float:
    """Returns the default rate of the threshold, and prints a line where the data allow none as low
    as usual."""
    if values.calibration == "cross":
        held_out = count - detectors.held_out_count(detectors.held_out.SCALING_SHARE, count)
        advice = "give more samples"
    else:
        held_out = detectors.held_out_count(values.calibration_fraction, count)
        advice = "give more samples, a higher --calibration_fraction, --calibration=cross"
    usual = detectors.held_out.DEFAULT_ALARM_RATE
    rate = max(usual, 1.0 / (held_out + 1))
    if rate > usual:
        needed = round(1 / usual) - 1
        print(
            f"{held_out} held-out samples carry a false-alarm rate of {rate:.3g} at the lowest, so "
            f"that it is {rate:.3g} and not {usual:g}, which takes {needed}: {advice}, or a "
            "--false_alarm_rate of your own",
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
    """Returns the false-alarm rate and the settings with which new data are read as these were."""
    conformal = config.threshold_rule == "conformal"
    return {
        "alarm_rate": config.alarm_rate if conformal else None,
        "data": {
            # The loader of traffic signs resizes them by default.
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
    if len(model.calibration_folds):
        return (
            f"{len(model.center)} members trained on {summary['train_samples']} samples, "
            f"{summary['calibration_samples']} of which are held out of one member each\n"
            f"anomalous: {thresholds.rule(model)}; {_bound(model)}"
        )
    return (
        f"{len(model.center)} members trained on {summary['train_samples']} samples, "
        f"{summary['calibration_samples']} held out\n"
        f"threshold {model.threshold:.6g}: {summary['threshold_rule']}"
    )


def _bound(model: Model) -> str:
    """Returns the guarantee on false alarms of a cross-calibrated model."""
    rate, count = model.summary["alarm_rate"], len(model.calibration_scores)
    most = 2 * rate + cross_calibration.bound_excess(count, len(model.center))
    return (
        f"a normal raises an alarm with probability {min(most, 1):.2g} at most, which is proved; "
        f"what is seen is {rate:g} or less"
    )


def describe_test(model: Model, data: Samples) -> str:
    """Returns lines on the test part: alarms among its normals, and the anomalies found."""
    judged = detectors.judge(model, data.test_images)
    normal = data.test_labels == 0
    if not normal.any():
        found = int(judged.anomalous.sum())
        return f"test part: {found} of {len(normal)} anomalies raise an alarm"
    alarms = int(judged.anomalous[normal].sum())
    lines = [f"test part: {alarms} of {normal.sum()} normals raise an alarm"]
    if not normal.all():
        found = int(judged.anomalous[~normal].sum())
        auroc = metrics.evaluate(judged.scores, data.test_labels, model.threshold).auroc
        lines[0] += f", {found} of {(~normal).sum()} anomalies do; AUROC {100 * auroc:.2f}"
    rate = model.summary["alarm_rate"]
    if rate is not None and not len(model.calibration_folds):
        low, high = calibration.alarm_interval(
            model.summary["calibration_samples"], int(normal.sum()), rate
        )
        lines.append(
            f"with {rate:g} asked for, {low} to {high} alarms are to be expected (99.9 %) of "
            "normals like those that were trained on"
        )
    return "\n".join(lines)
