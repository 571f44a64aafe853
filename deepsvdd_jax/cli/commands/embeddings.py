"""Compares other scores of embeddings with the distance to the center.

    python -m experiments.sweep --save_models --out=results/digits-auto
    python -m experiments.embeddings --out=results/digits-auto

Reads the saved models of a finished sweep and the data that they were trained on. Prints, and
writes as `embeddings.csv` into `--to`, the AUROC of every class, mean over seeds, by the score of
the sweep, by the five nearest training embeddings, and by the Mahalanobis distance to the training
embeddings; with several seeds also that of all together, each score in units of its mean over the
training images; beside them the five nearest neighbors of the network's input, where nothing is
trained. Labels serve only to compute the AUROC.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli import bars, environment, files, paths
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import finished, tables
from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.sweeps import plans, records
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.io.models import load_model
from deepsvdd_jax.scoring import metrics

with lazily():
    from deepsvdd_jax import detectors
    from deepsvdd_jax.cli.reporting import inspection
    from deepsvdd_jax.detectors import embeddings

SCORES = ("of the sweep", "nearest", "mahalanobis")
INPUTS = "untrained: nearest inputs"

Array = npt.NDArray[Any]

# Least mean that scores are divided by.
_LEAST = 1e-30


class Compared(NamedTuple):
    """The scores of a run's test samples by its model.

    Attributes:
      scores: `[3, n]`, by each of `SCORES`, in units of its mean over the training samples.
      labels: `[n]`, 1 = anomalous.
      inputs: AUROC of the nearest inputs, in [0, 1].
    """

    scores: Array
    labels: Array
    inputs: float


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder, with saved models")
    flags.DEFINE_string("data_dir", None, "where the data are now (default: where the sweep says)")
    flags.DEFINE_string("to", None, "folder to write into (default: embeddings/ in the sweep's)")


def main() -> None:
    """Reads the flags, scores every saved model's embedding, writes and prints the table."""
    values = flags.FLAGS
    folder, to = paths.folders_of_study(values, "embeddings", ("embeddings.csv",))
    environment.use_platform(values.platform, values.compilation_cache)
    sweep = finished.read_sweep(folder, values.data_dir, None)
    if sweep.data is None:
        raise ConfigError(f"data_dir: {sweep.no_data}")
    names = [name for name in sorted(sweep.rows) if records.model_folder(folder, name).exists()]
    if not names:
        raise files.ResultsError(f"{folder}: no saved models; call the sweep with --save_models")
    found: dict[RunName, Compared] = {}
    with bars.progress_bar("embeddings", len(names), "model") as bar:
        for name, compared in _compared(sweep, names):
            found[name] = compared
            bar.update(1)
    lines = table(found)
    print(tables.aligned(lines))
    files.write_table(to / "embeddings.csv", lines)


def _compared(sweep: FinishedSweep, names: list[RunName]) -> Iterator[tuple[RunName, Compared]]:
    labels = tuple(sorted({name.normal_class for name in names}))
    seeds = tuple(sorted({name.seed for name in names}))
    assert sweep.data is not None
    splits = plans.make_splits(sweep.data, sweep.split, labels, seeds)
    of_inputs: dict[bytes, float] = {}
    for name in names:
        split = splits[name.normal_class, name.seed]
        yield name, compare_run(sweep, name, split, of_inputs)


def compare_run(
    sweep: FinishedSweep, name: RunName, split: OneClassSplit, of_inputs: dict[bytes, float]
) -> Compared:
    """Returns a run's scores of every kind by its model (touches files).

    Args:
      sweep: with its data.
      name: of a run with a saved model.
      split: its one-class problem.
      of_inputs: AUROCs of nearest inputs by split and preprocessing, a cache; it is added to.
    """
    assert sweep.data is not None
    model = load_model(records.model_folder(sweep.folder, name))
    images = [sweep.data.x_train[split.train_indices], sweep.data.x_test[split.test_indices]]
    key = repr((model.config.preprocessing, name.normal_class)).encode()
    key += split.train_indices.tobytes()
    if key not in of_inputs:
        train, test = (
            inspection.network_inputs(model, part).reshape(len(part), -1) for part in images
        )
        scores = embeddings.nearest_scores(test, train)
        of_inputs[key] = metrics.auroc(scores, split.test_labels)
    by_center = [detectors.member_distances(model, part)[0] for part in images]
    known, points = (embeddings.of_samples(model, part)[0] for part in images)
    nearest = (
        embeddings.nearest_scores(known, known, leave_one_out=True),
        embeddings.nearest_scores(points, known),
    )
    of_both = embeddings.mahalanobis_scores(np.concatenate([known, points]), known)
    every = (by_center, nearest, np.split(of_both, [len(known)]))
    in_units = [test / max(float(train.mean()), _LEAST) for train, test in every]
    return Compared(np.asarray(in_units), split.test_labels, of_inputs[key])


def table(found: dict[RunName, Compared]) -> list[tuple[str, ...]]:
    """Returns the cells, AUROC in percent, a line a class and method and one of their means, the
    header first; with columns of all seeds together where a class has several."""
    classes = {(name.method, name.normal_class) for name in found}
    several = len(found) > len(classes)
    together = tuple(f"{score}, together" for score in SCORES) if several else ()
    lines: list[tuple[str, ...]] = [("class", "method", "runs", *SCORES, *together, INPUTS)]
    for method in dict.fromkeys(name.method for name in found):
        rows = []
        for label in sorted(label for one, label in classes if one == method):
            runs = [compared for name, compared in found.items() if name[:2] == (method, label)]
            rows.append(_figures(runs, several))
            lines.append((str(label), method, str(len(runs)), *_percent(rows[-1])))
        count = sum(name.method == method for name in found)
        lines.append(("mean", method, str(count), *_percent(np.mean(rows, axis=0))))
    return lines


def _figures(runs: list[Compared], several: bool) -> npt.NDArray[np.floating]:
    """Returns the AUROCs of a class's seeds, in the order of a line's cells."""
    alone = [[metrics.auroc(scores, run.labels) for scores in run.scores] for run in runs]
    figures = [*np.mean(alone, axis=0)]
    if several:
        # The seeds of a class have the same test samples.
        means = np.mean([run.scores for run in runs], axis=0)
        figures += [metrics.auroc(scores, runs[0].labels) for scores in means]
    return np.array([*figures, np.mean([run.inputs for run in runs])])


def _percent(values: npt.NDArray[np.floating]) -> tuple[str, ...]:
    return tuple(f"{100 * value:.2f}" for value in values)
