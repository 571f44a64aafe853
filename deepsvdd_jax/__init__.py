"""Deep Support Vector Data Description in JAX: pure functions from a key, a configuration and
arrays to a trained one-class network and anomaly scores.

    import deepsvdd_jax as svdd

    config = svdd.preset("auto", "digits", (8, 8, 1))
    outcome, progress = svdd.train_runs(keys, config, images, test_images)

or, as a scikit-learn estimator, `svdd.DeepSVDD().fit(X).predict(X_new)`.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from deepsvdd_jax.detectors.estimator import DeepSVDD
    from deepsvdd_jax.detectors.export import export_model
    from deepsvdd_jax.io.models import Model, load_model, save_model
    from deepsvdd_jax.networks import Network, build_network, network_from_module
    from deepsvdd_jax.objectives import hypersphere_loss
    from deepsvdd_jax.recipes import NETWORKS, preset
    from deepsvdd_jax.runs import init_run, train_runs
    from deepsvdd_jax.runs.program_cache import keep_compiled_programs
    from deepsvdd_jax.scoring import anomaly_scores
    from deepsvdd_jax.scoring.calibration import conformal_p_values
    from deepsvdd_jax.training import Batch, Hyperparameters, RunData, TrainState, train_step

__version__ = "0.1.0"

# Where each name is defined. A module is loaded when a name of it is first used: that of the
# settings, for one, then takes neither jax nor scikit-learn.
_HOMES = {
    "deepsvdd_jax.configs": (
        "DataConfig",
        "DetectorConfig",
        "NetworkConfig",
        "ObjectiveConfig",
        "OptimizerConfig",
        "PhaseConfig",
        "PreprocessingConfig",
        "RunConfig",
        "SplitConfig",
    ),
    "deepsvdd_jax.detectors": (
        "fit_detector",
        "score_images",
    ),
    "deepsvdd_jax.detectors.estimator": ("DeepSVDD",),
    "deepsvdd_jax.detectors.export": ("export_model",),
    "deepsvdd_jax.io.models": (
        "Model",
        "load_model",
        "save_model",
    ),
    "deepsvdd_jax.networks": (
        "Network",
        "build_network",
        "network_from_module",
    ),
    "deepsvdd_jax.objectives": ("hypersphere_loss",),
    "deepsvdd_jax.recipes": (
        "NETWORKS",
        "preset",
    ),
    "deepsvdd_jax.runs": (
        "init_run",
        "train_runs",
    ),
    "deepsvdd_jax.runs.program_cache": ("keep_compiled_programs",),
    "deepsvdd_jax.scoring": ("anomaly_scores",),
    "deepsvdd_jax.scoring.calibration": ("conformal_p_values",),
    "deepsvdd_jax.training": (
        "Batch",
        "Hyperparameters",
        "RunData",
        "TrainState",
        "train_step",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

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
    "__version__",
    "anomaly_scores",
    "build_network",
    "conformal_p_values",
    "export_model",
    "fit_detector",
    "hypersphere_loss",
    "init_run",
    "keep_compiled_programs",
    "load_model",
    "network_from_module",
    "preset",
    "save_model",
    "score_images",
    "train_runs",
    "train_step",
]


def __getattr__(name: str) -> Any:
    """Returns a public name, or a module of this package, on its first use."""
    if name in _HOME:
        found = getattr(importlib.import_module(_HOME[name]), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
