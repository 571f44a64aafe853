"""The hypersphere classifier against pictures that have nothing to do with the task (outlier
exposure; Ruff et al. 2020, Rethinking Assumptions in Deep Anomaly Detection).

    python -m experiments.sweep --dataset=cifar10 --data_dir=DIR --preset=hsc --outliers=FILE \
        --normal_classes=0,5,8 --seeds=3

With 3,936 outliers: airplanes, dogs and ships 86.43 ± 0.35, three seeds together 87.25
(results/published/cifar10-hsc-drop: nine runs, 22 min beside other work on two cores of an Intel
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
    """The paper's LeNets with biases and trained normalisation, eight epochs of Adam in batches of
    200, half outliers, shifted, flipped and with a little noise; rate 1e-3, a tenth of it from
    epoch 5 on and again from epoch 7 on.

    Images keep their contrast normalisation but are not scaled to [0, 1] after it: their mean would
    be far larger than their deviation, running statistics of the batch normalisation would lag
    behind weights that move at this rate, and scores of the same network then jump from epoch to
    epoch. Few epochs, because the network soon memorises a few thousand outliers; the falling rate
    ends this and the jumps. Published, with
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
            optimizer=OptimizerConfig("adam", 1e-3, milestones=(5, 7)),
            epochs=8,
            batch_size=200,
            weight_decay=1e-6,
            augment=("shift", "flip", "noise"),
        ),
    )
