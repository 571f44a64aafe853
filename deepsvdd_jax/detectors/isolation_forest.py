"""The isolation forest of Liu et al. (2008), by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sklearn.ensemble import IsolationForest

from deepsvdd_jax.detectors.features import BaselineResult, FloatArray, all, is_positive


@dataclass(frozen=True)
class IsolationForestConfig:
    """Isolation forest (Liu et al. 2008), drawn from the seed.

    Attributes:
      n_estimators: trees.
      max_samples: training points of a tree; all of them if there are fewer.
      contamination: in (0, 0.5] or `auto`; moves scikit-learn's own threshold only, not a score.

    Raises:
      ValueError: a setting is out of range.
    """

    n_estimators: int = 100
    max_samples: int = 256
    contamination: float | Literal["auto"] = 0.1

    def __post_init__(self) -> None:
        if self.n_estimators < 1 or self.max_samples < 1:
            raise ValueError("n_estimators and max_samples must be at least 1")
        if self.contamination != "auto" and not (
            is_positive(self.contamination) and self.contamination <= 0.5
        ):
            raise ValueError(
                f"contamination must lie in (0, 0.5] or be 'auto', got {self.contamination!r}"
            )


def score_forest(
    config: IsolationForestConfig,
    train: FloatArray,
    test: FloatArray,
    seed: int,
    n_jobs: int | None,
) -> BaselineResult:
    samples = min(config.max_samples, len(train))
    forest = IsolationForest(
        n_estimators=config.n_estimators,
        max_samples=samples,
        contamination=config.contamination,
        random_state=seed,
        n_jobs=n_jobs,
    ).fit(train)
    parameters = {"n_estimators": config.n_estimators, "max_samples": samples}
    return BaselineResult(
        -forest.score_samples(train), -forest.score_samples(test), parameters, "none", all(test)
    )
