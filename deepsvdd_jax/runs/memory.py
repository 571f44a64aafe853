"""Bytes: of a device, of a program, of what a user allows."""

import math
import re

import jax

from deepsvdd_jax.configs import ConfigError

# Share of a device's memory that a program may plan for: the allocator needs some room.
_MEMORY_SHARE = 0.8


def widest_program(needed: int, pools: int, width: int, memory: int) -> int:
    """Returns how many runs a device, at least one, has the memory for.

    Args:
      needed: bytes of a program on a device, as `compile_programs` returns them, which has
      width: runs on that device, and
      pools: bytes of what these share.
      memory: bytes of the device.
    """
    a_run = max((needed - pools) / width, 1.0)
    return max(1, int((_MEMORY_SHARE * memory - pools) // a_run))


# Share of an accelerator's memory that the pools of images may take before they are streamed.
_POOL_SHARE = 0.5

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def budget_in_bytes(budget: int | None) -> int | None:
    """Returns a budget as it is, or the one that `choose_engine` takes where it is None."""
    memory = device_memory()
    return int(_POOL_SHARE * memory) if budget is None and memory is not None else budget


def device_memory() -> int | None:
    """Returns the bytes of a device's memory, None where it does not tell: a CPU."""
    limit: int | None = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit


def parse_bytes(text: str) -> int:
    """Parses a number of bytes, as `500000`, `64MB` or `2GiB`.

    Raises:
      ConfigError: something else, or less than one byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    number = float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else 0
    if not 1 <= number < math.inf:
        raise ConfigError(f"memory budget {text!r}; give bytes, or a size as 500MB or 2GiB")
    return int(number)
