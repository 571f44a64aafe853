"""Traced programs, kept on disk: what jax's own cache of compiled programs leaves to be done anew.

jax finds a compiled program by the text of the traced one, and tracing is most of what is then left
of a table's first fit. Here a traced program is found by what it was traced from: settings, shapes,
jax's own settings, and the sources of this package.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax import export

from deepsvdd_jax.configs import ConfigError, NetworkConfig, RunConfig
from deepsvdd_jax.io import atomic
from deepsvdd_jax.networks import Network, build_network
from deepsvdd_jax.runs import program_cache

PACKAGE = __name__.partition(".")[0]

# Whose code is traced.
_TRACED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

# Rooms whose code is not.
_NOT_TRACED = ("cli", "viz")


def kept(
    function: Callable[..., Any], static: tuple[Any, ...], platform: str
) -> Callable[..., Any]:
    """Returns the same function for `jax.jit`, which takes it from the disk where a process has
    traced it before, and leaves it there otherwise. Its results are the same to the bit.

    Nothing is kept unless `keep_compiled_programs` was called, and of a CPU only: on an accelerator
    tracing is a small part. Nor is anything with an objective or a network of the user's own, whose
    code the name of a file cannot stand for.

    Args:
      function: of trees of arrays, on one device.
      static: all that it depends on beside its arguments, this package's code and jax's settings;
        with a network the settings that it was built from.
      platform: that it is lowered for.
    """

    def call(*arguments: Any) -> Any:
        folder = program_cache.folder_of_traces()
        if folder is None or platform != "cpu":
            return function(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        try:
            path = folder / _name((*_parts(static), platform, str(tree), *map(_shape, leaves)))
        except _Unknown:
            return function(*arguments)
        found = _read(path)
        if found is None:
            found = _trace(function, tree, leaves, platform)
            if found is None:
                return function(*arguments)
            _write(path, *found)
        text, returned = found
        return jax.tree.unflatten(returned, export.deserialize(text).call(*leaves))

    return call


# --- the program --------------------------------------------------------------------------------

_Found = tuple[bytearray, jax.tree_util.PyTreeDef]


def _trace(
    function: Callable[..., Any],
    tree: jax.tree_util.PyTreeDef,
    leaves: list[Any],
    platform: str,
) -> _Found | None:
    """Returns the traced program from leaves to leaves, and the tree that these are of; None where
    jax cannot export it."""
    returned: list[jax.tree_util.PyTreeDef] = []

    def of_leaves(*leaves: Any) -> list[Any]:
        found, structure = jax.tree.flatten(function(*jax.tree.unflatten(tree, leaves)))
        returned.append(structure)
        return found

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    try:
        text = export.export(jax.jit(of_leaves), platforms=[platform])(*shapes).serialize()
    except (ValueError, NotImplementedError):
        return None
    return text, returned[-1]


def _read(path: Path) -> _Found | None:
    """Reads a traced program (touches files); None where there is none, or not a whole one."""
    try:
        data = path.read_bytes()
        checksum, kept_data = data[:32], data[32:]
        if hashlib.sha256(kept_data).digest() != checksum:
            return None
        text, returned = pickle.loads(kept_data)
    except (OSError, ValueError, TypeError, AttributeError, ImportError, EOFError):
        return None
    except pickle.UnpicklingError:
        return None
    return text, returned


def _write(path: Path, text: bytearray, returned: jax.tree_util.PyTreeDef) -> None:
    """Leaves a traced program for later processes (touches files); a full disk takes time only."""
    data = pickle.dumps((text, returned))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, hashlib.sha256(data).digest() + data)
    except OSError:
        return


# --- its name -----------------------------------------------------------------------------------


class _Unknown(Exception):
    """Of something no name tells what it does."""


def _name(parts: tuple[str, ...]) -> str:
    whole = (*parts, *_settings_of_jax(), *_sources())
    return hashlib.sha256("\n".join(whole).encode()).hexdigest()


def _shape(leaf: Any) -> str:
    aval = jax.typeof(leaf)
    if getattr(aval, "weak_type", False):
        raise _Unknown
    return f"{aval.shape} {aval.dtype}"


def _parts(static: tuple[Any, ...]) -> Iterator[str]:
    """Yields what tells one value from another, without any address in memory."""
    configs = [part for part in _flat(static) if isinstance(part, RunConfig | NetworkConfig)]
    for part in _flat(static):
        if isinstance(part, Network):
            if not any(_is_built_from(part, config) for config in configs):
                raise _Unknown
            yield f"network of {part.image_shape}"
        elif part is None or isinstance(part, str | int | float | bool):
            yield repr(part)
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            yield _own(type(part))
            for field in dataclasses.fields(part):
                yield field.name
                yield from _parts((getattr(part, field.name),))
        elif callable(part):
            yield _own(part)
        else:
            raise _Unknown


def _flat(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple) and not isinstance(value, Network):
            yield "("
            yield from _flat(value)
            yield ")"
        else:
            yield value


def _own(thing: Any) -> str:
    """Returns the name of a class or function of this package."""
    module, name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "<")
    if module.partition(".")[0] != PACKAGE or "<" in name:
        raise _Unknown
    return f"{module}.{name}"


def _is_built_from(network: Network, config: RunConfig | NetworkConfig) -> bool:
    settings = config.network if isinstance(config, RunConfig) else config
    try:
        return network == build_network(settings, network.image_shape)
    except ConfigError:
        return False


def _settings_of_jax() -> list[str]:
    """Returns jax's settings as they are for this thread, but for those of its caches, which change
    nothing."""
    names = sorted(name for name in jax.config.values if "_cache_" not in name)
    return [f"{name}={getattr(jax.config, name, None)!r}" for name in names]


@functools.cache
def _sources() -> tuple[str, ...]:
    """Returns the versions and a checksum of all code that is traced (reads files)."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _TRACED_PACKAGES]
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in _NOT_TRACED:
            found.update(path.read_bytes())
    return (*versions, found.hexdigest())
