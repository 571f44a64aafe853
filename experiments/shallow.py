"""Scores the shallow baselines of a sweep: features, methods, several cores."""

from __future__ import annotations

import collections
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import preprocessing
from deepsvdd_jax.configs import ConfigError, PreprocessingConfig, RunConfig
from deepsvdd_jax.datasets import OneClassSplit
from deepsvdd_jax.knn import KNNConfig
from experiments import environment, processes, results
from experiments.lazy import lazily
from experiments.results import RunName

with lazily():
    from deepsvdd_jax import baselines
    from experiments import deep

if TYPE_CHECKING:
    from experiments.plans import Sweep

METHODS = ("ocsvm", "kde", "isolation_forest", "knn")

# The report behind the preset `itu` names this state of its isolation forest.
_ITU_RANDOM_STATE = 42


@dataclasses.dataclass(frozen=True)
class ShallowConfig:
    """Settings of the baselines.

    Attributes:
      selection: how the one-class SVM picks nu and gamma: `none`, or `paper`, by AUROC on a
        labelled tenth of the test set, which is then left out of its figures.
      recipe: whose features: `published` (by data set) or `itu` (pixels in [0, 1]).
      pca: principal components with 95 % of the variance: `auto` where the paper has them.
      svm_nu: of the one-class SVM, unless it is selected.
      svm_gamma: likewise; None is 1 / (features x variance).
      kde_bandwidths: candidates of the kernel density; None is 20 from 2^-4.5 to 2^5.
      neighbors: of the nearest neighbors; None where that method is not asked for.
    """

    selection: Literal["none", "paper"] = "none"
    recipe: Literal["published", "itu"] = "published"
    pca: Literal["auto", "always", "never"] = "auto"
    svm_nu: float = 0.1
    svm_gamma: float | None = None
    kde_bandwidths: tuple[float, ...] | None = None
    neighbors: NeighborsConfig | None = None


@dataclasses.dataclass(frozen=True)
class NeighborsConfig:
    """Settings of the nearest neighbors, which see what the networks of the same sweep would see.

    Attributes:
      n_neighbors: k.
      distance: `mean` of the distances to the k nearest, or `largest` of them.
      preprocessing: of the images, as for the networks.
    """

    n_neighbors: int = 5
    distance: Literal["mean", "largest"] = "mean"
    preprocessing: PreprocessingConfig = PreprocessingConfig()


def define_flags() -> None:
    """Defines the baselines' flags."""
    flags.DEFINE_enum(
        "selection",
        "none",
        ["none", "paper"],
        "one-class SVM: fixed settings, or chosen by AUROC on a labelled tenth of the test set",
    )
    flags.DEFINE_enum(
        "pca", "auto", ["auto", "always", "never"], "baselines: components with 95 % variance"
    )
    flags.DEFINE_float("svm_nu", 0.1, "one-class SVM: nu, where selection is none")
    flags.DEFINE_float(
        "svm_gamma",
        None,
        "one-class SVM: gamma, where selection is none (default: 1 / (features x variance))",
    )
    flags.DEFINE_list(
        "kde_bandwidths",
        None,
        "kernel density: bandwidths to choose from by cross-validation (default: 2^-4.5 to 2^5)",
    )
    flags.DEFINE_integer("knn_neighbors", 5, "knn: nearest training images that count")
    flags.DEFINE_enum(
        "knn_distance",
        "mean",
        ["mean", "largest"],
        "knn: mean distance to the nearest training images, or the largest of them",
    )


def read_config(
    values: flags.FlagValues, base: RunConfig, methods: tuple[str, ...]
) -> ShallowConfig:
    """Builds the baselines' configuration from parsed flags.

    Raises:
      ConfigError: a flag that is wrong, or one that no chosen method has.
    """
    recipe: Literal["published", "itu"] = "itu" if base.preset == "itu" else "published"
    if values.svm_gamma is not None and not values.svm_gamma > 0:
        raise ConfigError(f"svm_gamma is {values.svm_gamma}; it must be positive")
    config = ShallowConfig(
        selection=values.selection,
        recipe=recipe,
        pca=values.pca,
        svm_nu=values.svm_nu,
        svm_gamma=values.svm_gamma,
        kde_bandwidths=_floats("kde_bandwidths", values.kde_bandwidths),
        neighbors=NeighborsConfig(values.knn_neighbors, values.knn_distance, base.preprocessing),
    )
    try:
        for method in METHODS:
            method_config(method, config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if "knn" in methods:
        return config
    for name in ("knn_neighbors", "knn_distance"):
        if values[name].present:
            raise ConfigError(f"--{name} is for knn; add it to --methods")
    return dataclasses.replace(config, neighbors=None)


def _floats(name: str, parts: list[str] | None) -> tuple[float, ...] | None:
    if parts is None:
        return None
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise ConfigError(f"{name} is {','.join(parts)!r}; give numbers, as 0.5,1,2") from None


def wanted_runs(sweep: Sweep) -> list[RunName]:
    """Returns the runs of the baselines; what does not depend on a seed runs for the first only."""
    return [
        RunName(method, label, seed)
        for method in METHODS
        if method in sweep.methods
        for label in sweep.classes
        for seed in (sweep.seeds if _is_random(method, sweep) else sweep.seeds[:1])
    ]


def _is_random(method: str, sweep: Sweep) -> bool:
    drawn = bool(sweep.split.outlier_fraction or sweep.split.validation_fraction)
    by_selection = method == "ocsvm" and sweep.shallow.selection == "paper"
    return method == "isolation_forest" or by_selection or drawn


def method_config(method: str, config: ShallowConfig) -> baselines.BaselineConfig:
    """Returns the settings of a baseline (`algorithm`: paper, section 4.1)."""
    if method == "ocsvm":
        gamma: float | Literal["scale"] = config.svm_gamma or "scale"
        return baselines.OneClassSVMConfig(config.selection, config.svm_nu, gamma)
    if method == "kde":
        if config.kde_bandwidths is None:
            return baselines.KDEConfig()
        return baselines.KDEConfig(config.kde_bandwidths)
    if method == "knn":
        neighbors = config.neighbors or NeighborsConfig()
        return KNNConfig(neighbors.n_neighbors, neighbors.distance)
    return baselines.IsolationForestConfig(contamination="auto" if config.recipe == "itu" else 0.1)


def score_missing(
    sweep: Sweep,
    own: Collection[RunName],
    rows: dict[RunName, results.Row],
    stop_if_asked: Callable[[], None],
) -> None:
    """Scores those of some baselines that are missing, in threads; a row says of one that failed
    why."""
    from joblib import Parallel, delayed

    missing = [name for name in own if name.method in METHODS and name not in rows]
    for line in describe_costs(sweep, missing):
        print(line, file=sys.stderr)

    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, 8)
    calls = (delayed(_score)(sweep, name) for name in missing)
    with environment.progress_bar("baselines", len(missing), "run") as bar:
        parallel = Parallel(n_jobs=workers, prefer="threads", return_as="generator_unordered")
        for name, row, scores in parallel(calls):
            values = results.identity(sweep.dataset.name, sweep.split.protocol, name) | row
            results.write_run(sweep.out, rows, name, values, scores, None)
            processes.write_table(sweep.team, sweep.out, rows)
            bar.update()
            stop_if_asked()


def describe_costs(sweep: Sweep, missing: list[RunName]) -> list[str]:
    """Returns a line for each method of the missing runs: what one of them will cost."""
    split = sweep.splits[sweep.classes[0], sweep.seeds[0]]
    features = int(np.prod(sweep.dataset.x_train.shape[1:]))
    counts = collections.Counter(name.method for name in missing)
    lines = []
    for method, count in counts.items():
        cost = baselines.describe_cost(
            method_config(method, sweep.shallow),
            len(split.train_indices),
            len(split.test_indices),
            features,
        )
        lines.append(f"{cost}; {count} such runs")
    return lines


def _score(
    sweep: Sweep, name: RunName
) -> tuple[RunName, dict[str, Any], dict[str, npt.NDArray[Any]] | None]:
    split = sweep.splits[name.normal_class, name.seed]
    started = time.perf_counter()
    train, test = method_features(sweep, name.method, split)
    seed = name.seed + (_ITU_RANDOM_STATE if sweep.shallow.recipe == "itu" else 0)
    try:
        result = baselines.fit_and_score(
            method_config(name.method, sweep.shallow), train, test, seed, split.test_labels
        )
    except ValueError as error:
        return name, {"failure": " ".join(str(error).split())}, None
    row: dict[str, Any] = deep.evaluate_scores(
        result.test_scores, split.test_labels, result.train_scores, 0.99, result.test_indices
    )
    row |= {
        "train_seconds": round(time.perf_counter() - started, 3),
        "selection": result.selection,
    }
    scores = deep.score_arrays(
        result.test_scores,
        result.test_scores,
        split.test_labels,
        result.train_scores,
        result.test_indices,
    )
    return name, row, scores


def method_features(
    sweep: Sweep, method: str, split: OneClassSplit
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Returns a baseline's features of the training and the test images, `[n, features]`.

    As in the paper: contrast-normalised on CIFAR-10 and, for the isolation forest, on MNIST, with
    95 % of the variance kept; pixels in [0, 1] otherwise. Tables are standardised. Nearest
    neighbors get what the networks get, principal components only with `--pca=always`.
    """
    images = sweep.dataset.x_train[split.train_indices]
    test = sweep.dataset.x_test[split.test_indices]
    name, published = sweep.dataset.name, sweep.shallow.recipe == "published"
    grey = name in ("mnist", "fashion_mnist", "kmnist") and method == "isolation_forest"
    normalized = published and (name == "cifar10" or grey)
    table = images.ndim == 2
    steps = PreprocessingConfig(
        contrast="l1" if normalized else "none", min_max=normalized, standardize=table
    )
    if method == "knn" and sweep.shallow.neighbors is not None:
        steps, normalized = sweep.shallow.neighbors.preprocessing, False
    fitted = preprocessing.fit(steps, images)
    train, tested = (
        baselines.to_features(preprocessing.apply(fitted, part)) for part in (images, test)
    )
    wants_pca = sweep.shallow.pca == "always" or (sweep.shallow.pca == "auto" and normalized)
    if wants_pca:
        return baselines.pca_features(train, tested)
    return train, tested


def check(config: ShallowConfig, methods: tuple[str, ...]) -> None:
    """Refuses settings that no chosen method has.

    Raises:
      ConfigError: `selection=paper` without a one-class SVM.
    """
    if config.selection == "paper" and "ocsvm" not in methods:
        raise ConfigError("selection=paper is for ocsvm; add it to --methods")
