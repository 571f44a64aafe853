"""Isolation forest, on MNIST after contrast normalisation too (paper, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps.methods.base import ShallowConfig, ShallowMethod

with lazily():
    from deepsvdd_jax.detectors import isolation_forest

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.isolation_forest import IsolationForestConfig


def _config(config: ShallowConfig) -> IsolationForestConfig:
    return isolation_forest.IsolationForestConfig(
        contamination="auto" if config.recipe == "itu" else 0.1
    )


METHOD = ShallowMethod(
    "isolation_forest",
    "isolation forest",
    _config,
    is_random=lambda config: True,
    normalized_on=("cifar10", "mnist", "fashion_mnist", "kmnist"),
)
