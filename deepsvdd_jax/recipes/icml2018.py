"""The paper's recipe (Ruff et al., ICML 2018).

    python -m experiments.sweep --dataset=mnist --data_dir=DIR --preset=icml2018 --seeds=3

MNIST, mean of ten digits: 93.94 ± 0.67, three seeds together 95.58, published 94.8
(results/published/mnist-pretrained, where DCAE and some soft boundaries are too: 72 runs, about 3.8
hours of processor time on two cores of an AMD EPYC).
"""

import dataclasses

from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig, RunConfig
from deepsvdd_jax.recipes.networks import ImageShape, published_network
from deepsvdd_jax.recipes.parts import (
    autoencoder,
    published_preprocessing,
    theano_autoencoder_decay,
)


def icml2018(dataset: str, image_shape: ImageShape) -> RunConfig:
    """Ruff et al. 2018 as the paper's text has it: leaky slope 0.1, two learning rates, Adam 1e-4
    for 150 then 1e-5 for 100 epochs, an autoencoder for 250 + 100 before.

    Batch statistics are set before the center, unlike in both original codes
    (`statistics_first=False` does it their way). Paper, one-class means over ten classes: MNIST
    94.8, CIFAR-10 64.8.
    """
    network = published_network(dataset, image_shape, "icml2018")
    batch_size = 64 if dataset == "gtsrb" else 200
    return RunConfig(
        preset="icml2018",
        preprocessing=published_preprocessing(dataset),
        network=dataclasses.replace(network, leaky_slope=0.1),
        pretraining=autoencoder(
            OptimizerConfig("adam", 1e-4, milestones=(250,)),
            epochs=350,
            batch_size=batch_size,
            weight_decay=theano_autoencoder_decay(dataset),
        ),
        training=PhaseConfig(
            optimizer=OptimizerConfig("adam", 1e-4, milestones=(150,)),
            epochs=250,
            batch_size=batch_size,
            weight_decay=1e-6,
        ),
    )
