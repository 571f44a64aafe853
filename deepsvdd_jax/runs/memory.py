"""Memory in bytes: of a device, of a program, of a user's budget."""

import functools
import math
import re

import jax

from deepsvdd_jax.configs import ConfigError, NetworkConfig, RunConfig
from deepsvdd_jax.io import memory
from deepsvdd_jax.networks import build_network

# Share of a device's memory that a program may plan for: the allocator needs some room.
_MEMORY_SHARE = 0.8


def widest_program(needed: int, pools: int, width: int, memory: int) -> int:
    """Returns how many runs a device, at least one, has the memory for.

    Args:
      needed: bytes of a program on a device, as `Program.compile` returns them, which has
      width: runs on that device, and
      pools: bytes of what these share.
      memory: bytes of the device.
    """
    a_run = max((needed - pools) / width, 1.0)
    return max(1, int((_MEMORY_SHARE * memory - pools) // a_run))


# Share of an accelerator's memory that the pools of images may take before they are streamed.
_POOL_SHARE = 0.5

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


# Copies of the parameters that a run holds while it trains: themselves and, at least, a gradient.
_COPIES = 2
_BYTES = 4


def check_memory(config: RunConfig, image_shape: tuple[int, ...], count: int = 1) -> None:
    """Refuses a training whose least memory is more than is free.

    Args:
      config: of all runs; without a decoder if nothing is reconstructed.
      image_shape: of one image.
      count: of runs whose parameters are held at once.

    Raises:
      ConfigError: says what takes how much, and how much is free.
    """
    size = _parameter_count(config.network, image_shape, config.needs_decoder)
    phases = [phase for phase in (config.pretraining, config.training) if phase is not None]
    largest = max(phase.batch_size for phase in phases)
    needs = {
        f"{count} networks of {size} parameters": _COPIES * _BYTES * count * size,
        f"a batch of {largest} images": _BYTES * largest * math.prod(image_shape),
        f"the first layer's values of a batch of {largest} images": (
            _BYTES * largest * _first_values(config.network, image_shape)
        ),
    }
    for what, needed in needs.items():
        missing = _shortage(needed)
        if missing is not None:
            raise ConfigError(f"{what} take at least {missing}")


def _first_values(config: NetworkConfig, image_shape: tuple[int, ...]) -> int:
    """Returns the fewest values of an image that the first layer keeps for the gradient, once
    pooled."""
    if not config.stages:
        return config.hidden[0] if config.hidden else config.rep_dim
    height, width = image_shape[:2]
    return (height // 2) * (width // 2) * config.stages[0][0]


@functools.lru_cache(maxsize=128)
def _parameter_count(
    config: NetworkConfig, image_shape: tuple[int, ...], with_decoder: bool
) -> int:
    network = build_network(config, image_shape)
    shapes = jax.eval_shape(lambda key: network.init(key, with_decoder)[0], jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _shortage(needed: int) -> str | None:
    of_device = device_memory()
    if of_device is None:
        return memory.shortage(needed)
    if needed <= of_device:
        return None
    return f"{needed / 1e9:.1f} GB of memory, of which the device has {of_device / 1e9:.1f} GB"


def budget_in_bytes(budget: int | None) -> int | None:
    """Returns a budget as it is, or the one that `choose_engine` takes where it is None."""
    of_device = device_memory()
    return int(_POOL_SHARE * of_device) if budget is None and of_device is not None else budget


def device_memory() -> int | None:
    """Returns the bytes of a device's memory; None where it does not say, as a CPU."""
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
