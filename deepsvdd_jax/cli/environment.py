"""Sets up the platform, the devices and the cache of compiled programs; tells versions."""

import contextlib
import logging
import os
import platform as host
import sys
from importlib import metadata
from typing import Any

from absl import flags

from deepsvdd_jax import __version__
from deepsvdd_jax.cli import help, paths
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.runs import program_cache

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")

# jax's names of each platform, tried one after the other: jax refuses a list with an entry that is
# not installed.
PLATFORMS = {"cpu": ("cpu",), "gpu": ("cuda", "rocm"), "tpu": ("tpu",)}

# As in jax's guide to its installation.
_INSTALL = {
    "gpu": "pip install 'jax[cuda13]' for NVIDIA, pip install 'jax[rocm7-local]' for AMD",
    "tpu": "pip install 'jax[tpu]' on a TPU machine",
}

# jax's message for a platform that is not installed, which gives no further reason.
_UNKNOWN_TO_JAX = "not in the list of known backends"

# A device for each core helps as long as every device has runs to loop over.
MOST_CPU_DEVICES = 16


@help.topic("Device")
def define_flags() -> None:
    """Defines the flags that every command has."""
    flags.DEFINE_enum("platform", "auto", ["auto", "cpu", "gpu", "tpu"], "where to compute")
    flags.DEFINE_string(
        "compilation_cache",
        program_cache.default_folder(),
        "folder that keeps compiled programs for the next call; empty = none",
    )


def use_platform(name: str, cache: str) -> None:
    """Chooses the platform, before any computation: a CPU gets one device a core.

    Raises:
      ConfigError: no such device here.
    """
    import jax

    # A user's JAX_NUMPY_DTYPE_PROMOTION=strict ends in a traceback: counts are int32, sums float32.
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    # Devices cannot change after the first computation of a process.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(_cores(), MOST_CPU_DEVICES))
    if cache:
        _keep_compiled_programs(cache)
    if name == "auto":
        asked: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]  # set by name
        reason = _failure_of(asked)
        if reason is not None:
            which = f" of JAX_PLATFORMS={asked}" if asked else ""
            raise ConfigError(
                f"platform auto: jax can use no device{which}{reason}; give --platform=cpu"
            )
        return
    reasons = []
    for candidate in PLATFORMS[name]:
        reason = _failure_of(candidate)
        if reason is None:
            return
        reasons.append(reason)
    raise ConfigError(
        f"platform {name}: jax finds no such device{''.join(reasons)}; {_INSTALL[name]}, or use "
        "--platform=cpu"
    )


def _failure_of(platforms: str | None) -> str | None:
    """Makes jax use platforms. Returns None, or the reason why there is no such device, to be put
    after a sentence; it is empty where jax gives none."""
    import jax

    # jax also logs every platform that it looks for in vain; its warnings tell of an idle GPU.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    jax.config.update("jax_platforms", platforms)
    try:
        jax.devices()
    except AssertionError:
        # jax's message where CUDA is asked for and the driver shows no device.
        return ""
    except RuntimeError as error:
        words = str(error).partition(" (set JAX_PLATFORMS")[0]
        return "" if _UNKNOWN_TO_JAX in words else f" ({words})"
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_compiled_programs(cache: str) -> None:
    folder = paths.of_flag("compilation_cache", cache)
    try:
        program_cache.keep_compiled_programs(folder)
    except OSError as error:
        where = error.filename or folder
        print(f"compiled programs are not kept: {where}: {error.strerror}", file=sys.stderr)


def explain_version() -> str:
    """Returns the versions of this package, of jax and of Python, in one line."""
    versions = _versions()
    names = {"deepsvdd_jax": "deepsvdd_jax", "jax": "jax", "python": "Python"}
    return ", ".join(f"{shown} {versions[name]}" for name, shown in names.items())


def _versions() -> dict[str, str]:
    versions = {"python": host.python_version(), "deepsvdd_jax": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def devices_in_words() -> str:
    """Returns how many devices of which kind there are, as `2 devices (cpu)`."""
    import jax

    kinds = sorted({device.device_kind for device in jax.local_devices()})
    count = jax.local_device_count()
    return f"{count} device{'s' if count > 1 else ''} ({', '.join(kinds)})"


def describe() -> dict[str, Any]:
    """Returns the versions of the packages and the devices, for `config.json`."""
    import jax

    device = jax.local_devices()[0]
    return {
        "versions": _versions(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "processor": program_cache.processor_name(),
            "count": jax.local_device_count(),
            "cores": _cores(),
        },
    }
