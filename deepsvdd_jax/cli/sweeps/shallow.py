"""Scores the shallow baselines of a sweep, in threads."""

from __future__ import annotations

import collections
import os
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import preprocessing
from deepsvdd_jax.cli import bars
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import figures, methods, records
from deepsvdd_jax.cli.sweeps.methods.base import ShallowMethod
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import PreprocessingConfig
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.scoring import metrics

with lazily():
    from deepsvdd_jax.detectors import features as detectors_features

if TYPE_CHECKING:
    from deepsvdd_jax.cli.sweeps.plans import Sweep
    from deepsvdd_jax.cli.sweeps.store import SweepStore


# The report behind the preset `itu` states this seed of its isolation forest.
_ITU_RANDOM_STATE = 42


def score_missing(
    sweep: Sweep,
    own: Collection[RunName],
    store: SweepStore,
) -> None:
    """Scores the missing runs of some baselines, in threads; the row of a failed one holds the
    reason."""
    from joblib import Parallel, delayed

    missing = [name for name in own if name.method in methods.shallow() and name not in store.rows]
    for line in describe_costs(sweep, missing):
        print(line, file=sys.stderr)

    threads = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, 8)
    calls = (delayed(_score)(sweep, name) for name in missing)
    with bars.progress_bar("baselines", len(missing), "run") as bar:
        parallel = Parallel(n_jobs=threads, prefer="threads", return_as="generator_unordered")
        for name, row, scores in parallel(calls):
            protocol = sweep.settings.split.protocol
            record = records.record_of(sweep.dataset.name, protocol, name, row)
            store.write_run(record, scores, None)
            bar.update()
            if scores is not None and metrics.are_all_equal(scores["scores"]):
                print(
                    f"{name.stem}: all test samples have the same score, so that its figures mean "
                    "nothing",
                    file=sys.stderr,
                )
            store.stop.check()


def describe_costs(sweep: Sweep, missing: list[RunName]) -> list[str]:
    """Returns a line for each method of the missing runs on the cost of one run."""
    split = sweep.splits[sweep.settings.normal_classes[0], sweep.settings.seeds[0]]
    features = int(np.prod(sweep.dataset.x_train.shape[1:]))
    counts = collections.Counter(name.method for name in missing)
    lines = []
    for method, count in counts.items():
        known = methods.shallow()[method]
        cost = known.describe_cost(
            known.config(sweep.settings.shallow),
            len(split.train_indices),
            len(split.test_indices),
            features,
        )
        lines.append(f"{cost}; {count} such runs")
    return lines


def _score(
    sweep: Sweep, name: RunName
) -> tuple[RunName, dict[str, Any], dict[str, npt.NDArray[Any]] | None]:
    config, split = sweep.settings.shallow, sweep.splits[name.normal_class, name.seed]
    started = time.perf_counter()
    method = methods.shallow()[name.method]
    train, test = method_features(sweep, method, split)
    seed = name.seed + (_ITU_RANDOM_STATE if config.recipe == "itu" else 0)
    try:
        result = method.score(method.config(config), train, test, seed, split.test_labels)
    except ValueError as error:
        return name, {"failure": " ".join(str(error).split())}, None
    row: dict[str, Any] = figures.evaluate_scores(
        result.test_scores,
        split.test_labels,
        result.train_scores,
        config.threshold_quantile,
        result.test_indices,
    )
    row |= {
        "train_seconds": round(time.perf_counter() - started, 3),
        "selection": result.selection,
    }
    scores = figures.score_arrays(
        result.test_scores,
        result.test_scores,
        split.test_labels,
        result.train_scores,
        result.test_indices,
    )
    return name, row, scores


def method_features(
    sweep: Sweep, method: ShallowMethod, split: OneClassSplit
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Returns a baseline's features of the training and the test images, `[n, features]`.

    As in the paper: contrast-normalised on CIFAR-10 and, for the isolation forest, on MNIST, with
    95 % of the variance kept; pixels in [0, 1] otherwise. Tables are standardised. Nearest
    neighbors get the input of the networks, principal components only with `--pca=always`.
    """
    config, images = sweep.settings.shallow, sweep.dataset.x_train[split.train_indices]
    test = sweep.dataset.x_test[split.test_indices]
    steps = method.preprocessing(config)
    is_published = config.recipe == "published" and steps is None
    normalized = is_published and sweep.dataset.name in method.normalized_on
    if steps is None:
        steps = PreprocessingConfig(
            contrast="l1" if normalized else "none",
            min_max=normalized,
            standardize=images.ndim == 2,
        )
    fitted = preprocessing.fit(steps, images)
    train, tested = (
        detectors_features.to_features(preprocessing.apply(fitted, part)) for part in (images, test)
    )
    wants_pca = config.pca == "always" or (config.pca == "auto" and normalized)
    if wants_pca:
        return detectors_features.pca_features(train, tested)
    return train, tested
