"""Checks that settings share; each raises `ConfigError` with the name and what is allowed."""

import functools
import math
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

MOST_COUNTED = 2**31 - 1


class ConfigError(ValueError):
    """A setting that is wrong; the message names it and says what is allowed."""


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}")


def check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be positive")


def check_count(name: str, value: int) -> None:
    check_positive(name, value)
    check_most(name, value)


def check_most(name: str, value: int) -> None:
    """Refuses a number that does not fit into the 32-bit counters of a program."""
    if value > MOST_COUNTED:
        raise ConfigError(f"{name} is {value}; it must be at most {MOST_COUNTED}")


def check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}; it must not be negative")


def check_range(name: str, value: float, low: float, high: float, *, right_open: bool) -> None:
    if not (low <= value < high if right_open else low <= value <= high):
        interval = f"[{low:g}, {high:g}" + (")" if right_open else "]")
        raise ConfigError(f"{name} is {value}; it must lie in {interval}")


def check_literals(config: Any) -> None:
    for name, hint in hints_of(type(config)).items():
        if typing.get_origin(hint) is Literal:
            check_choice(name, getattr(config, name), typing.get_args(hint))


def hints_of(kind: type) -> Mapping[str, Any]:
    """Returns the types of a dataclass's fields by name."""
    return _hints_of(kind)


@functools.cache
def _hints_of(kind: type) -> Mapping[str, Any]:
    return MappingProxyType(typing.get_type_hints(kind))
