"""Configurations as JSON, and single settings by their dotted names."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from deepsvdd_jax.configs.checks import ConfigError, hints_of
from deepsvdd_jax.configs.network import NetworkConfig
from deepsvdd_jax.configs.objective import (
    BaseObjectiveConfig,
    ObjectiveConfig,
    as_kind,
    objective_class,
)

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def to_json(config: Any) -> str:
    """Returns a configuration as readable JSON."""
    return json.dumps(to_dict(config), indent=2, allow_nan=False)


def from_dict(kind: type[Config], values: Any, where: str = "config") -> Config:
    """Builds a configuration of `kind` from nested dicts, the inverse of `to_dict`.

    Raises:
      ConfigError: a key that is unknown, a value of a wrong type or out of range; names its place.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected an object, found {type(values).__name__}")
    if kind is NetworkConfig and "decoder_layout" not in values:
        values = {**values, "decoder_layout": _layout_of_old(values.get("name"))}
    if issubclass(kind, BaseObjectiveConfig):
        named = objective_class(values.get("kind", ObjectiveConfig.kind))
        kind = typing.cast("type[Config]", named)
    hints = hints_of(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown setting {unknown[0]!r}; allowed: {', '.join(hints)}")
    arguments = {
        name: _from_json(hints[name], value, f"{where}.{name}") for name, value in values.items()
    }
    return kind(**arguments)


def _layout_of_old(name: object) -> str:
    """Returns the decoder of a network that was saved when the name still decided it."""
    name = name if isinstance(name, str) else ""
    layouts = {
        "mnist_lenet": "mnist_lenet",
        "cifar10_lenet_small": "mirror",
        "cifar10_lenet_deep": "mirror_doubled",
        "gtsrb_lenet": "gtsrb_lenet",
    }
    families = {"mnist_lenet": "mnist_lenet_wide", "cifar10_lenet": "cifar10_lenet"}
    found = [layout for family, layout in families.items() if name.startswith(family)]
    return layouts.get(name, found[0] if found else "mirror")


def from_json(kind: type[Config], text: str, where: str = "config") -> Config:
    """Builds a configuration of `kind` from JSON text, the inverse of `to_json`.

    Raises:
      ConfigError: not JSON, or as `from_dict`.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    try:
        return from_dict(kind, values, where)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None


def _from_json(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
        return _from_json(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is Mapping:
        _, part = typing.get_args(hint)
        return {name: from_dict(part, item, f"{where}.{name}") for name, item in value.items()}
    if origin is tuple:
        return _tuple_from_json(typing.get_args(hint), value, where)
    if origin is Literal:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: too large for a number with a fraction") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _tuple_from_json(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, found {value!r}")
    if parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{where}: expected {len(parts)} values, found {len(value)}")
    return tuple(
        _from_json(part, item, f"{where}[{index}]")
        for index, (part, item) in enumerate(zip(parts, value, strict=True))
    )


def replace_at(config: Config, path: str, value: Any) -> Config:
    """Returns `config` with the setting at a dotted path replaced, as `training.optimizer.name`.

    Another `kind` of an objective keeps the settings that both have.

    Raises:
      ConfigError: a value that is not allowed, or a setting that the objective does not have.
    """
    head, _, rest = path.partition(".")
    if rest:
        value = replace_at(getattr(config, head), rest, value)
    if isinstance(config, BaseObjectiveConfig):
        if head == "kind":
            return typing.cast(Config, as_kind(config, value))
        if not hasattr(config, head):
            raise ConfigError(f"{head} is no setting of the objective {config.kind}")
    return dataclasses.replace(typing.cast(Any, config), **{head: value})


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Returns one line for each setting in which two nested dicts differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return [
            line
            for name in sorted(set(first) | set(second))
            for line in differences(
                first.get(name), second.get(name), f"{where}.{name}" if where else name
            )
        ]
    same = json.dumps(first) == json.dumps(second)
    return [] if same else [f"{where} is {json.dumps(first)} there, {json.dumps(second)} here"]
