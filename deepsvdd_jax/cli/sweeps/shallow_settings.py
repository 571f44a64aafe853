"""Settings of the shallow baselines, from flags."""

from __future__ import annotations

import dataclasses
from typing import Literal

from absl import flags

from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import ConfigError, PreprocessingConfig, RunConfig
from deepsvdd_jax.detectors.knn import KNNConfig

with lazily():
    from deepsvdd_jax.detectors import baselines, isolation_forest, kde, ocsvm


METHODS = ("ocsvm", "kde", "isolation_forest", "knn")


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
      threshold_quantile: quantile of the training scores above which a score is anomalous.
    """

    selection: Literal["none", "paper"] = "none"
    recipe: Literal["published", "itu"] = "published"
    pca: Literal["auto", "always", "never"] = "auto"
    svm_nu: float = 0.1
    svm_gamma: float | None = None
    kde_bandwidths: tuple[float, ...] | None = None
    neighbors: NeighborsConfig | None = None
    threshold_quantile: float = 0.99


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
        threshold_quantile=base.threshold_quantile,
    )
    try:
        for method in METHODS:
            method_config(method, config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if "knn" in methods:
        return config
    return dataclasses.replace(config, neighbors=None)


def _floats(name: str, parts: list[str] | None) -> tuple[float, ...] | None:
    if parts is None:
        return None
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise ConfigError(f"{name} is {','.join(parts)!r}; give numbers, as 0.5,1,2") from None


def method_config(method: str, config: ShallowConfig) -> baselines.BaselineConfig:
    """Returns the settings of a baseline (`algorithm`: paper, section 4.1)."""
    if method == "ocsvm":
        gamma: float | Literal["scale"] = config.svm_gamma or "scale"
        return ocsvm.OneClassSVMConfig(config.selection, config.svm_nu, gamma)
    if method == "kde":
        if config.kde_bandwidths is None:
            return kde.KDEConfig()
        return kde.KDEConfig(config.kde_bandwidths)
    if method == "knn":
        neighbors = config.neighbors or NeighborsConfig()
        return KNNConfig(neighbors.n_neighbors, neighbors.distance)
    return isolation_forest.IsolationForestConfig(
        contamination="auto" if config.recipe == "itu" else 0.1
    )


def check(config: ShallowConfig, methods: tuple[str, ...]) -> None:
    """Refuses settings that no chosen method has.

    Raises:
      ConfigError: `selection=paper` without a one-class SVM.
    """
    if config.selection == "paper" and "ocsvm" not in methods:
        raise ConfigError("selection=paper is for ocsvm; add it to --methods")
