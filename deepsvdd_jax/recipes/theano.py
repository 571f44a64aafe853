"""The recipe of the authors' Theano code.

    python -m experiments.sweep --dataset=mnist --data_dir=DIR --preset=theano --seeds=3

This project has published no table of it; `icml2018` with its first layer, which is learned as here
(`--first_layer=dictionary --seeds=3`): 94.48 ± 0.40, three seeds together 95.86
(results/published/mnist-pretrained-dictionary: 30 runs, 2 h 3 min beside other work on two cores of
an AMD EPYC).
"""

from deepsvdd_jax.configs import (
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.recipes.networks import ImageShape, published_network
from deepsvdd_jax.recipes.parts import (
    autoencoder,
    published_preprocessing,
    theano_autoencoder_decay,
)


def theano(dataset: str, image_shape: ImageShape) -> RunConfig:
    """The scripts of the authors' Theano code: Adam 1e-4 divided by ten at epoch 50, Glorot
    initialisation, whole batches in random order, a first layer from a dictionary; on CIFAR-10 and
    GTSRB the autoencoder has 350 epochs and its rate drops at 250, and GTSRB is scaled to the range
    of its training set.

    Differences from them: batch normalisation has no trainable offset here (an offset is a bias,
    which the theory forbids; `affine=True` brings it back). Their CIFAR-10 networks train on four
    fifths of a class and their MNIST autoencoders, as a detector, on five sixths; here that is
    `--validation_fraction=0.2` and `0.1667`. Atoms of the dictionary are scaled, and learned from
    20 patches of each image (see `dictionary_kernel`). Center and radius of the soft boundary are
    exact where theirs are found by a search.
    """
    network = published_network(dataset, image_shape, "theano")
    published = dataset in ("mnist", "fashion_mnist", "kmnist", "cifar10", "gtsrb")
    milestones: tuple[int, ...]
    epochs, milestones = (350, (250,)) if dataset in ("cifar10", "gtsrb") else (150, ())
    batch_size = 64 if dataset == "gtsrb" else 200
    preprocessing = published_preprocessing(dataset)
    if dataset == "gtsrb":
        preprocessing = PreprocessingConfig(min_max=True)
    return RunConfig(
        preset="theano",
        preprocessing=preprocessing,
        network=network,
        pretraining=autoencoder(
            OptimizerConfig("adam", 1e-4, milestones=milestones),
            epochs=epochs,
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
        first_layer="dictionary" if published else "random",
    )
