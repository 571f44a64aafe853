"""Loads modules on their first use, so that `--help` and a mistyped flag need no jax.

    with lazily():
        from deepsvdd_jax import detectors
        from deepsvdd_jax.runs import memory

Importing a name from a module (`from deepsvdd_jax.detectors import fit_detector`) loads it at once:
import such names under `TYPE_CHECKING` for annotations.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_OURS = "deepsvdd_jax."


class _LazyFinder(MetaPathFinder):
    """Finds modules of this project, to be loaded on the first use of one of their names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(_OURS):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


@contextlib.contextmanager
def lazily() -> Iterator[None]:
    """Within it, modules of this project are imported without being loaded."""
    finder = _LazyFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
