"""Nearest neighbors, after the networks' preprocessing."""

from deepsvdd_jax.cli.sweeps.methods.base import NeighborsConfig, ShallowConfig, ShallowMethod
from deepsvdd_jax.configs import PreprocessingConfig, RunConfig
from deepsvdd_jax.detectors.knn import KNNConfig


def _config(config: ShallowConfig) -> KNNConfig:
    neighbors = config.neighbors or NeighborsConfig()
    return KNNConfig(neighbors.n_neighbors, neighbors.distance)


def _preprocessing(config: ShallowConfig) -> PreprocessingConfig | None:
    return None if config.neighbors is None else config.neighbors.preprocessing


def _unread(path: str, base: RunConfig) -> str | None:
    return None if path.startswith("preprocessing.") else "does not read it"


METHOD = ShallowMethod(
    "knn",
    "nearest neighbors",
    _config,
    preprocessing=_preprocessing,
    flags=("knn_neighbors", "knn_distance"),
    unread=_unread,
)
