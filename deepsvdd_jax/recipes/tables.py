"""The recipe for tables.

    python -m benchmarks.adbench --data_dir=FOLDER_OF_NPZ

18 ADBench tables, five halves each: mean AUROC 88.90, PyOD's KNN 87.97
(results/published/adbench-18, on two cores of an Intel Xeon beside much other work).
"""

import dataclasses

from deepsvdd_jax.configs import OptimizerConfig, PhaseConfig, PreprocessingConfig, RunConfig
from deepsvdd_jax.recipes.networks import NETWORKS, ImageShape


def tables(image_shape: ImageShape) -> RunConfig:
    """A quick recipe for tables `[n, features]`: standardised features, 50 epochs.

    One wide hidden layer: on iris and on simulated tables, which no figure of this project is
    about, it told anomalies better than deeper and narrower networks. `docs/tabular.md` has the
    AUROC on other tables.

    Every layer has a bias. Without any the network is homogeneous, f(t x) = t f(x) for t > 0, and
    maps the mean of standardised columns, the most typical row of all, to 0 and not to the center.
    Biases allow a collapse (Ruff et al. 2018, proposition 2): 50 epochs are far from it, and a
    `CollapseWarning` comes where it happens.
    """
    del image_shape
    return RunConfig(
        preset="auto",
        preprocessing=PreprocessingConfig(min_max=False, standardize=True),
        network=dataclasses.replace(NETWORKS["mlp"], hidden=(128,), rep_dim=64, bias=True),
        training=PhaseConfig(optimizer=OptimizerConfig("adam", 1e-3), epochs=50, batch_size=64),
    )
