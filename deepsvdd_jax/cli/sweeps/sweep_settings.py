"""The settings of a sweep: one object, whose JSON is its `config.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deepsvdd_jax import configs
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.cli.sweeps.methods.base import ShallowConfig
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig

# Methods that `config.json` always names, wanted or not.
_ALWAYS_LISTED = ("deep_svdd", "dcae", "soft_boundary")

# Other entries of `config.json`: where runs were trained, and those of the commands around a sweep.
_BESIDE = ("versions", "device", "table", "classifier", "attack")


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """The settings of a sweep.

    Attributes:
      data: the data set and its source.
      split: the normal and the anomalous images.
      normal_classes: each of them in turn.
      seeds: of every class.
      methods: in the order of the flag.
      configs: of the runs of each deep method.
      shallow: of the others.
      outliers: name and number of the known anomalies from elsewhere; None without.
      runs_per_program: None chooses.
      data_devices: over how many devices the batches of a run are split.
      memory_budget: bytes of images on a device, above which they are streamed; None chooses.
      evaluate_every: epochs between two full passes over both sets; None makes none.
      save_models: whether the models of all runs are kept.
    """

    data: DataConfig
    split: SplitConfig
    normal_classes: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    configs: Mapping[str, RunConfig]
    shallow: ShallowConfig
    outliers: tuple[str, int] | None = None
    runs_per_program: int | None = None
    data_devices: int = 1
    memory_budget: int | None = None
    evaluate_every: int | None = None
    save_models: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `config.json` without versions and devices."""
        data = configs.to_dict(self.data)
        data_dir = data.pop("data_dir")
        shallow = dataclasses.asdict(self.shallow)
        neighbors = shallow.pop("neighbors")
        deep = dict.fromkeys(_ALWAYS_LISTED) | {
            name: configs.to_dict(config) for name, config in self.configs.items()
        }
        return {
            "data": data,
            "data_dir": data_dir,
            "split": configs.to_dict(self.split),
            "normal_classes": list(self.normal_classes),
            "seeds": list(self.seeds),
            "methods": list(self.methods),
            **deep,
            "shallow": shallow,
            "knn": neighbors,
            "outliers": None if self.outliers is None else list(self.outliers),
            "runs_per_program": self.runs_per_program,
            "data_devices": self.data_devices,
            "memory_budget": self.memory_budget,
            "evaluate_every": self.evaluate_every,
            "save_models": self.save_models,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "config.json") -> "SweepSettings":
        """Returns the settings of a `config.json`, the inverse of `to_json`.

        Settings that a file is too old to have get their former values; entries on machines and
        those of the commands around a sweep are left out.

        Raises:
          ConfigError: a setting is missing, unknown or invalid; names its place.
        """
        left = {name: value for name, value in values.items() if name not in _BESIDE}
        left.setdefault("shallow", {})
        listed = {*_ALWAYS_LISTED, *methods.deep()}
        deep = {name: left.pop(name) for name in listed if name in left}
        parts: dict[str, Any] = {
            "data": _object(left, "data", where) | {"data_dir": left.pop("data_dir", None)},
            "split": _object(left, "split", where),
            "shallow": _object(left, "shallow", where) | {"neighbors": left.pop("knn", None)},
            "configs": {name: config for name, config in deep.items() if config is not None},
        }
        for name in ("normal_classes", "seeds", "methods"):
            if name not in left:
                raise ConfigError(f"{where}: {name} is missing")
        return configs.from_dict(cls, left | parts, where)


def _object(values: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Takes an object out of settings."""
    found = values.pop(name, None)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{where}: {name} is no object")
    return dict(found)
