"""The recipe of the authors' Theano code."""

from deepsvdd_jax.configs import ObjectiveConfig, OptimizerConfig, PhaseConfig, RunConfig
from deepsvdd_jax.recipes.networks import ImageShape, published_network
from deepsvdd_jax.recipes.parts import (
    autoencoder,
    published_preprocessing,
    theano_autoencoder_decay,
)


def theano(dataset: str, image_shape: ImageShape) -> RunConfig:
    """The scripts of the authors' Theano code: Adam 1e-4 divided by ten at epoch 50, Glorot
    initialisation, whole batches in random order, on MNIST a first layer from a dictionary.

    Batch normalisation has no trainable offset here, unlike there: an offset is a bias, which the
    theory forbids (`affine=True` brings it back).
    """
    network = published_network(dataset, image_shape, "theano")
    small = dataset in ("mnist", "fashion_mnist", "kmnist")
    batch_size = 64 if dataset == "gtsrb" else 200
    return RunConfig(
        preset="theano",
        preprocessing=published_preprocessing(dataset),
        network=network,
        pretraining=autoencoder(
            OptimizerConfig("adam", 1e-4),
            epochs=150,
            batch_size=batch_size,
            weight_decay=theano_autoencoder_decay(dataset),
            whole_batches=True,
        ),
        training=PhaseConfig(
            objective=ObjectiveConfig(
                statistics_first=False, radius_rule="block-coordinate", warm_up_epochs=10
            ),
            optimizer=OptimizerConfig("adam", 1e-4, milestones=(50,)),
            epochs=150,
            batch_size=batch_size,
            weight_decay=1e-6,
            whole_batches=True,
        ),
        first_layer="dictionary" if small else "random",
    )
