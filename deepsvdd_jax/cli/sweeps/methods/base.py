"""The protocol of a method: its name, its title, its settings, and the cost of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import PreprocessingConfig, RunConfig

with lazily():
    from deepsvdd_jax.detectors import baselines

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.features import BaselineResult

Features = npt.NDArray[np.floating]


@dataclasses.dataclass(frozen=True)
class ShallowConfig:
    """Settings of the baselines.

    Attributes:
      selection: how the one-class SVM picks nu and gamma: `none`, or `paper`, by AUROC on a
        labelled tenth of the test set, which is then left out of its figures.
      recipe: of the features: `published` (by data set) or `itu` (pixels in [0, 1]).
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
    """Settings of the nearest neighbors, which get the input of the networks of the same sweep.

    Attributes:
      n_neighbors: k.
      distance: `mean` of the distances to the k nearest, or `largest` of them.
      preprocessing: of the images, as for the networks.
    """

    n_neighbors: int = 5
    distance: Literal["mean", "largest"] = "mean"
    preprocessing: PreprocessingConfig = PreprocessingConfig()


def _score(
    config: Any,
    train: Features,
    test: Features,
    seed: int,
    test_labels: npt.NDArray[np.integer],
) -> BaselineResult:
    return baselines.fit_and_score(config, train, test, seed, test_labels)


def _describe_cost(config: Any, n_train: int, n_test: int, n_features: int) -> str:
    return baselines.describe_cost(config, n_train, n_test, n_features)


@dataclasses.dataclass(frozen=True)
class ShallowMethod:
    """A method without epochs: fitted to features and scored, a run at a time, in threads.

    Attributes:
      name: in `--methods`, in rows and in file names.
      title: in tables for readers.
      config: returns its settings from those of all baselines; raises ValueError where they are not
        allowed.
      is_random: whether its scores depend on the seed; otherwise it runs for the first one only.
      normalized_on: data sets whose contrast the paper normalises for this method.
      preprocessing: of the images, where it differs from the paper's.
      flags: of the command that it reads, beside `--pca`.
      unread: why it does not read a setting of a `RunConfig`, see `unread.Reader`.
      score: fits and scores: (settings, training features `[n, features]`, test features, seed,
        test labels, 1 = anomalous) -> `BaselineResult`, or ValueError.
      describe_cost: one line on what a run will take: (settings, training samples, test samples,
        features).
    """

    name: str
    title: str
    config: Callable[[ShallowConfig], Any]
    is_random: Callable[[ShallowConfig], bool] = lambda config: False
    normalized_on: tuple[str, ...] = ("cifar10",)
    preprocessing: Callable[[ShallowConfig], PreprocessingConfig | None] = lambda config: None
    flags: tuple[str, ...] = ()
    unread: Callable[[str, RunConfig], str | None] = lambda path, base: "does not read it"
    score: Callable[..., BaselineResult] = _score
    describe_cost: Callable[[Any, int, int, int], str] = _describe_cost

    def title_of(self, objective: str) -> str:
        """Returns the title of the method in tables for readers."""
        return self.title


@dataclasses.dataclass(frozen=True)
class DeepMethod:
    """A method whose networks are trained, all runs together in compiled programs.

    The cost of its runs is measured, see `reporting.costs`.

    Attributes:
      name: in `--methods`, in rows and in file names.
      title: in tables for readers.
      config: returns the settings of its runs from those of the flags; raises ConfigError where
        these are another method's.
      titles: by objective, where methods would share a title.
      place: in tables for readers; lower comes first, the paper's own method last.
      unread: why it does not read a setting of a `RunConfig`, see `unread.Reader`.
    """

    name: str
    title: str
    config: Callable[[RunConfig], RunConfig]
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    place: int = 1
    unread: Callable[[str, RunConfig], str | None] = lambda path, base: None

    def title_of(self, objective: str) -> str:
        """Returns the title of the method in tables for readers."""
        return self.titles.get(objective, self.title)


Method = ShallowMethod | DeepMethod
