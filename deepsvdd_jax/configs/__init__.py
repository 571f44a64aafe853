"""Every setting as a frozen, hashable dataclass, its checks, and JSON to and from."""

from deepsvdd_jax.configs.checks import ConfigError
from deepsvdd_jax.configs.data import DataConfig, PreprocessingConfig, SplitConfig
from deepsvdd_jax.configs.labelled import BCEConfig, DeepSADConfig, FCDDConfig, HSCConfig
from deepsvdd_jax.configs.network import NetworkConfig
from deepsvdd_jax.configs.objective import (
    BaseObjectiveConfig,
    ObjectiveConfig,
    as_kind,
    objective_class,
    objective_kinds,
    register_objective_config,
)
from deepsvdd_jax.configs.optimizer import OPTIMIZERS, OptimizerConfig
from deepsvdd_jax.configs.run import (
    AUGMENTATIONS,
    EXPORT_PLATFORMS,
    MOST_SEEDS,
    SYNTHETIC_MIXTURES,
    DetectorConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.configs.serialization import (
    Config,
    differences,
    from_dict,
    from_json,
    replace_at,
    to_dict,
    to_json,
)
from deepsvdd_jax.configs.transformations import TransformationsConfig

__all__ = [
    "AUGMENTATIONS",
    "BCEConfig",
    "BaseObjectiveConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DeepSADConfig",
    "DetectorConfig",
    "EXPORT_PLATFORMS",
    "MOST_SEEDS",
    "SYNTHETIC_MIXTURES",
    "FCDDConfig",
    "HSCConfig",
    "NetworkConfig",
    "OPTIMIZERS",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PreprocessingConfig",
    "RunConfig",
    "SplitConfig",
    "TransformationsConfig",
    "as_kind",
    "differences",
    "from_dict",
    "from_json",
    "objective_class",
    "objective_kinds",
    "register_objective_config",
    "replace_at",
    "to_dict",
    "to_json",
]
