"""The recipe of the authors' PyTorch code.

    python -m experiments.sweep --dataset=mnist --data_dir=DIR --preset=pytorch --seeds=3

This project has published no table of it.
"""

import dataclasses

from deepsvdd_jax.configs import ObjectiveConfig, OptimizerConfig, PhaseConfig, RunConfig
from deepsvdd_jax.recipes.networks import ImageShape, published_network
from deepsvdd_jax.recipes.parts import autoencoder, published_preprocessing


def pytorch(dataset: str, image_shape: ImageShape) -> RunConfig:
    """The published commands of the authors' PyTorch code: leaky slope 0.01, Adam 1e-4 divided by
    ten at epoch 50, 150 epochs, torch's initialisation, running statistics of the autoencoder kept.

    On CIFAR-10 that code draws the convolutions of an autoencoder by Xavier, and leaves torch's
    default to dense layers and to a network that is not pretrained (`without_pretraining`).

    A third party measured 93.8 on MNIST with that code.
    """
    network = published_network(dataset, image_shape, "pytorch")
    small = dataset in ("mnist", "fashion_mnist", "kmnist")
    pretrain_epochs, drop = (150, 50) if small else (350, 250)
    return RunConfig(
        preset="pytorch",
        preprocessing=published_preprocessing(dataset),
        network=dataclasses.replace(
            network, initializer="torch" if small else "torch_xavier", decoder="pytorch"
        ),
        pretraining=autoencoder(
            OptimizerConfig("adam", 1e-4, milestones=(drop,)),
            epochs=pretrain_epochs,
            batch_size=200,
            weight_decay=0.5e-3 if small else 0.5e-6,
        ),
        training=PhaseConfig(
            objective=ObjectiveConfig(statistics_first=False),
            optimizer=OptimizerConfig("adam", 1e-4, milestones=(50,)),
            epochs=150,
            batch_size=200,
            weight_decay=0.5e-6,
        ),
    )
