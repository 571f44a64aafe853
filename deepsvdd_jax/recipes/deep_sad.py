"""The recipe of Deep SAD (Ruff et al., ICLR 2020; authors' PyTorch code).

    python -m experiments.sweep --dataset=mnist --data_dir=DIR --preset=deep_sad \
        --normal_classes=0 --known_anomalous_classes=1 --labelled_ratio=0.05

Without pretraining, over three pairs of digits without labels and nine with, two seeds: 92.30,
94.93 and 95.24 with 0, 1 and 5 % of labelled anomalies, both seeds together 93.97, 95.93 and 96.24
(results/published/mnist-deep-sad: 42 runs, 37 min beside other work on two cores of an Intel Xeon).
"""

import dataclasses

from deepsvdd_jax.configs import (
    DeepSADConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.recipes.networks import ImageShape, published_network
from deepsvdd_jax.recipes.parts import autoencoder


def deep_sad(dataset: str, image_shape: ImageShape) -> RunConfig:
    """Pixels in [0, 1] as they are, LeNets without bias, eta 1; both phases 150 epochs of Adam 1e-4
    divided by ten at epoch 50, batches of 128.

    The paper, over 90 pairs of normal and known class: MNIST 92.8 without labels, 96.4, 96.7, 96.9
    and 96.9 with 1, 5, 10 and 20 % of labelled anomalies; Fashion-MNIST 89.2, then 90.0 to 91.3;
    CIFAR-10 60.9, then 72.6 to 81.9 (as quoted in a later paper).
    """
    small = dataset in ("mnist", "fashion_mnist", "kmnist")
    optimizer = OptimizerConfig("adam", 1e-4, milestones=(50,))
    return RunConfig(
        preset="deep_sad",
        preprocessing=PreprocessingConfig(min_max=False),
        network=dataclasses.replace(
            published_network(dataset, image_shape, "deep_sad"),
            initializer="torch" if small else "glorot",
            decoder="pytorch",
        ),
        pretraining=autoencoder(optimizer, epochs=150, batch_size=128, weight_decay=0.5e-3),
        training=PhaseConfig(
            objective=DeepSADConfig(statistics_first=False),
            optimizer=optimizer,
            epochs=150,
            batch_size=128,
            weight_decay=0.5e-6,
        ),
    )
