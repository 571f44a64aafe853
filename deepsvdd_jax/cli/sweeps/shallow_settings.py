"""Settings of the shallow baselines, from flags."""

import dataclasses
from typing import Literal

from absl import flags

from deepsvdd_jax.cli import help
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.cli.sweeps.methods.base import NeighborsConfig, ShallowConfig
from deepsvdd_jax.configs import ConfigError, RunConfig


@help.topic("Methods without training")
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
    values: flags.FlagValues, base: RunConfig, chosen: tuple[str, ...]
) -> ShallowConfig:
    """Builds the baselines' configuration from parsed flags.

    Raises:
      ConfigError: a flag that is wrong, or that no chosen method reads.
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
        for method in methods.shallow().values():
            method.config(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.selection == "paper" and "ocsvm" not in chosen:
        raise ConfigError("selection=paper is for ocsvm; add it to --methods")
    return config if "knn" in chosen else dataclasses.replace(config, neighbors=None)


def _floats(name: str, parts: list[str] | None) -> tuple[float, ...] | None:
    if parts is None:
        return None
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise ConfigError(f"{name} is {','.join(parts)!r}; give numbers, as 0.5,1,2") from None
