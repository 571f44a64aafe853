"""The hypersphere classifier against pictures that have nothing to do with the task (outlier
exposure; Ruff et al. 2020, Rethinking Assumptions in Deep Anomaly Detection).

    python -m experiments.sweep --dataset=cifar10 --data_dir=DIR --preset=hsc --outliers=FILE \
        --normal_classes=0,5,8 --seeds=2

With 3,936 outliers: airplanes, dogs and ships 83.09 ± 0.69, both seeds together 83.96
(results/published/cifar10-hsc: six runs, 42 min beside much other work on two cores of an Intel
Xeon).
"""

import dataclasses

from deepsvdd_jax.configs import (
    HSCConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.recipes.networks import ImageShape, published_network


def hsc(dataset: str, image_shape: ImageShape, name: str = "hsc") -> RunConfig:
    """The paper's LeNets with biases and trained normalisation, six epochs of Adam 1e-3 in batches
    of 200, half outliers, shifted, flipped and with a little noise.

    Images keep their contrast normalisation but are not scaled to [0, 1] after it: their mean would
    be far larger than their deviation, running statistics of the batch normalisation would lag
    behind weights that move at this rate, and scores of the same network then jump from epoch to
    epoch. Few epochs, because the network soon memorises a few thousand outliers. Published, with
    eighty million of them: CIFAR-10 95.9 (from memory).
    """
    network = published_network(dataset, image_shape, name)
    return RunConfig(
        preset=name,
        preprocessing=PreprocessingConfig(contrast="l1", min_max=False),
        network=dataclasses.replace(network, leaky_slope=0.1, bias=True, affine=True),
        pretraining=None,
        training=PhaseConfig(
            objective=HSCConfig(),
            optimizer=OptimizerConfig("adam", 1e-3),
            epochs=6,
            batch_size=200,
            weight_decay=1e-6,
            augment=("shift", "flip", "noise"),
        ),
    )
