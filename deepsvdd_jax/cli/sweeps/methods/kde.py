"""Kernel density estimate, its bandwidth by cross-validated likelihood (paper, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps.methods.base import ShallowConfig, ShallowMethod

with lazily():
    from deepsvdd_jax.detectors import kde

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.kde import KDEConfig


def _config(config: ShallowConfig) -> KDEConfig:
    if config.kde_bandwidths is None:
        return kde.KDEConfig()
    return kde.KDEConfig(config.kde_bandwidths)


METHOD = ShallowMethod("kde", "KDE", _config, flags=("kde_bandwidths",))
