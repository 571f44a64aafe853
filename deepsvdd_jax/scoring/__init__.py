"""From embeddings to anomaly scores and their figures."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.scoring.collapse import collapse_ratio, uniform_noise
    from deepsvdd_jax.scoring.distances import (
        BATCH_SIZE,
        anomaly_scores,
        batch_distances,
        pool_distances,
        score_offset,
    )

__getattr__, __dir__ = attach(
    __name__,
    {
        "collapse": (
            "collapse_ratio",
            "uniform_noise",
        ),
        "distances": (
            "BATCH_SIZE",
            "anomaly_scores",
            "batch_distances",
            "pool_distances",
            "score_offset",
        ),
    },
)

__all__ = [
    "BATCH_SIZE",
    "anomaly_scores",
    "batch_distances",
    "collapse_ratio",
    "pool_distances",
    "score_offset",
    "uniform_noise",
]
