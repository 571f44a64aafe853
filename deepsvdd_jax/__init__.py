"""Deep Support Vector Data Description in JAX: pure functions from a key, a configuration and
arrays to a trained one-class network and anomaly scores.

    import deepsvdd_jax as svdd

    config = svdd.preset("auto", "digits", (8, 8, 1))
    outcome, progress = svdd.train_runs(keys, config, images, test_images)

or, as a scikit-learn estimator, `svdd.DeepSVDD().fit(X).predict(X_new)`.
"""

from deepsvdd_jax.calibration import conformal_p_values
from deepsvdd_jax.checkpoints import Model, load_model, save_model
from deepsvdd_jax.configs import (
    DataConfig,
    DetectorConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
    SplitConfig,
)
from deepsvdd_jax.detectors import fit_detector, score_images
from deepsvdd_jax.estimator import DeepSVDD
from deepsvdd_jax.exports import export_model
from deepsvdd_jax.networks import Network, build_network, network_from_module
from deepsvdd_jax.objectives import hypersphere_loss
from deepsvdd_jax.presets import NETWORKS, preset
from deepsvdd_jax.runs import init_run, train_runs
from deepsvdd_jax.scoring import anomaly_scores
from deepsvdd_jax.training import Batch, Hyperparameters, RunData, TrainState, train_step

__all__ = [
    "Batch",
    "DataConfig",
    "DeepSVDD",
    "DetectorConfig",
    "Hyperparameters",
    "Model",
    "NETWORKS",
    "Network",
    "NetworkConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PreprocessingConfig",
    "RunConfig",
    "RunData",
    "SplitConfig",
    "TrainState",
    "anomaly_scores",
    "build_network",
    "conformal_p_values",
    "export_model",
    "fit_detector",
    "hypersphere_loss",
    "init_run",
    "load_model",
    "network_from_module",
    "preset",
    "save_model",
    "score_images",
    "train_runs",
    "train_step",
]
