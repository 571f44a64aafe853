"""Whether another score of the embedding tells more than the distance to the center.

    python -m experiments.sweep --save_models --out=results/digits-auto
    python -m experiments.embeddings --out=results/digits-auto

Reads the saved models of a finished sweep and the data that they were trained on. Prints, and
writes as `embeddings.csv` into `--to`, the AUROC of every class, mean over seeds, by the score of
the sweep, by the five nearest training embeddings, and by the Mahalanobis distance to the training
embeddings; beside them the five nearest neighbors of the network's input, where nothing is trained.
Labels serve to judge only.
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

NEIGHBORS = 5
SCORES = ("of the sweep", "nearest", "mahalanobis", "untrained: nearest inputs")

Array = npt.NDArray[Any]


class Figures(NamedTuple):
    """AUROC of a run's test samples by each of `SCORES`, in [0, 1]."""

    of_sweep: float
    nearest: float
    mahalanobis: float
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
    if values.out is None:
        raise ConfigError("out is not given; it is a sweep's folder")
    folder = paths.to_read("out", values.out)
    to = paths.folder_of_study(values.to, folder, "embeddings", ("embeddings.csv",))
    environment.use_platform(values.platform, values.compilation_cache)
    sweep = finished.read_sweep(folder, values.data_dir, None)
    if sweep.data is None:
        raise ConfigError(f"data_dir: {sweep.no_data}")
    names = [name for name in sorted(sweep.rows) if records.model_folder(folder, name).exists()]
    if not names:
        raise files.ResultsError(f"{folder}: no saved models; call the sweep with --save_models")
    found: dict[RunName, Figures] = {}
    with bars.progress_bar("embeddings", len(names), "model") as bar:
        for name, figures in _compared(sweep, names):
            found[name] = figures
            bar.update(1)
    lines = table(found)
    print(tables.aligned(lines))
    files.write_table(to / "embeddings.csv", lines)


def _compared(sweep: FinishedSweep, names: list[RunName]) -> Iterator[tuple[RunName, Figures]]:
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
) -> Figures:
    """Returns the figures of a run (touches files).

    Args:
      sweep: with its data.
      name: of a run with a saved model.
      split: its one-class problem.
      of_inputs: the AUROC of nearest inputs by what they are the same for; it is added to.
    """
    assert sweep.data is not None
    ensemble = load_model(records.model_folder(sweep.folder, name))
    model = inspection.first_member(ensemble)
    train = inspection.network_inputs(ensemble, sweep.data.x_train[split.train_indices])
    test = sweep.data.x_test[split.test_indices]
    of_center = metrics.auroc(detectors.score_images(ensemble, test), split.test_labels)
    test = inspection.network_inputs(ensemble, test)
    known, points = (inspection.representations(model, inputs) for inputs in (train, test))
    key = repr((model.config.preprocessing, name.normal_class)).encode()
    key += split.train_indices.tobytes()
    if key not in of_inputs:
        flat = [inputs.reshape(len(inputs), -1) for inputs in (test, train)]
        scores = embeddings.nearest_scores(flat[0], flat[1], NEIGHBORS)
        of_inputs[key] = metrics.auroc(scores, split.test_labels)
    nearest = embeddings.nearest_scores(points, known, NEIGHBORS)
    ellipsoid = embeddings.mahalanobis_scores(points, known)
    return Figures(
        of_center,
        metrics.auroc(nearest, split.test_labels),
        metrics.auroc(ellipsoid, split.test_labels),
        of_inputs[key],
    )


def table(found: dict[RunName, Figures]) -> list[tuple[str, ...]]:
    """Returns the cells, AUROC in percent, a line a class and method and one of their means, the
    header first."""
    lines: list[tuple[str, ...]] = [("class", "method", "runs", *SCORES)]
    for method in dict.fromkeys(name.method for name in found):
        means = []
        for label in sorted({name.normal_class for name in found if name.method == method}):
            runs = [figures for name, figures in found.items() if name[:2] == (method, label)]
            means.append(np.mean(runs, axis=0))
            lines.append((str(label), method, str(len(runs)), *_percent(means[-1])))
        count = sum(name.method == method for name in found)
        lines.append(("mean", method, str(count), *_percent(np.mean(means, axis=0))))
    return lines


def _percent(values: npt.NDArray[np.floating]) -> tuple[str, ...]:
    return tuple(f"{100 * value:.2f}" for value in values)
