"""Keeps traced programs on disk, so that a new process need not trace them again.

jax's own cache finds a compiled program by the text of the traced one, and tracing is most of the
time that remains of a table's first fit. Here a traced program is found by the input of the
tracing: settings, shapes, jax's own settings, and the sources of this package.
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

# Packages whose code is traced.
_TRACED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

# Rooms whose code is not traced.
_NOT_TRACED = ("cli", "viz")

# Errors that unpickling can raise.
_DAMAGES = (
    *(ValueError, TypeError, AttributeError, ImportError, EOFError),
    pickle.UnpicklingError,
)


def kept(
    function: Callable[..., Any], static: tuple[Any, ...], platform: str
) -> Callable[..., Any]:
    """Returns the same function for `jax.jit`, which loads its trace from the disk if a process has
    traced it before, and stores it there otherwise. Its results are the same to the bit.

    Traces are kept only after a call of `keep_compiled_programs`, and only for a CPU: on an
    accelerator tracing is a small part. They are not kept for an objective or a network of the
    user's own, whose code the name of a file cannot identify.

    Args:
      function: of trees of arrays, on one device.
      static: everything that it depends on beside its arguments, this package's code and jax's
        settings; with a network the settings that it was built from.
      platform: for which it is lowered.
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
    """Returns the traced program from leaves to leaves, and the tree of its results; None if jax
    cannot export it."""
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
    """Reads a traced program (touches files); None if it is missing or damaged."""
    try:
        data = path.read_bytes()
        checksum, kept_data = data[:32], data[32:]
        if hashlib.sha256(kept_data).digest() != checksum:
            return None
        text, returned = pickle.loads(kept_data)
    except (OSError, *_DAMAGES):
        return None
    return text, returned


def _write(path: Path, text: bytearray, returned: jax.tree_util.PyTreeDef) -> None:
    """Writes a traced program for later processes (touches files); a full disk only costs time."""
    data = pickle.dumps((text, returned))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, hashlib.sha256(data).digest() + data)
    except OSError:
        return


# --- its name -----------------------------------------------------------------------------------


class _Unknown(Exception):
    """A value that no name identifies."""


def _name(parts: tuple[str, ...]) -> str:
    whole = (*parts, *_settings_of_jax(), *_sources())
    return hashlib.sha256("\n".join(whole).encode()).hexdigest()


def _shape(leaf: Any) -> str:
    aval = jax.typeof(leaf)
    if getattr(aval, "weak_type", False):
        raise _Unknown
    return f"{aval.shape} {aval.dtype}"


def _parts(static: tuple[Any, ...]) -> Iterator[str]:
    """Yields texts that identify the values, without any address in memory."""
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
    """Returns jax's settings of this thread, but for those of its caches, which change no
    result."""
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
