"""The recipe for images that no publication covers.

    python -m experiments.sweep

Embedded digits, ten classes, five seeds: 98.47 ± 0.28, all seeds together 99.29; 20 s on two cores
of an AMD EPYC.
"""

import dataclasses

from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig, PreprocessingConfig, RunConfig
from deepsvdd_jax.recipes.networks import NETWORKS, ImageShape


def small_images(dataset: str, image_shape: ImageShape) -> RunConfig:
    """A quick recipe for any images: no pretraining, 50 epochs, a LeNet with 3x3 kernels."""
    del dataset
    stages = ((32,), (16,)) if min(image_shape[:2]) < 32 else ((32,), (32,), (16,))
    return RunConfig(
        preset="auto",
        preprocessing=PreprocessingConfig(contrast="l1"),
        network=dataclasses.replace(NETWORKS["lenet"], stages=stages),
        training=PhaseConfig(
            optimizer=OptimizerConfig("adam", 1e-3, milestones=(40,)), epochs=50, batch_size=64
        ),
    )
