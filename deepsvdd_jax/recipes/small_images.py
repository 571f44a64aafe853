"""The recipe for images that no publication covers."""

import dataclasses

from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig, PreprocessingConfig, RunConfig
from deepsvdd_jax.recipes.networks import NETWORKS, ImageShape


def small_images(dataset: str, image_shape: ImageShape) -> RunConfig:
    """A quick recipe for any images: no pretraining, 50 epochs, a LeNet with 3x3 kernels.

    `python -m experiments.sweep` (digits, ten classes, five seeds) takes well under a minute on two
    CPU cores; mean AUROC about 98.5, ensemble of five seeds about 99.2.
    """
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
