"""From embeddings to anomaly scores and their figures."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.scoring.collapse import noise_spread, uniform_noise
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
            "noise_spread",
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
    "noise_spread",
    "pool_distances",
    "score_offset",
    "uniform_noise",
]
