"""Nested dicts of arrays under flat names."""

from typing import Any

import numpy as np
import numpy.typing as npt


def flatten(tree: dict[str, Any], prefix: str) -> dict[str, npt.NDArray[Any]]:
    """Returns the leaves of a nested dict under names like `prefix/encoder/dense/kernel`."""
    flat: dict[str, npt.NDArray[Any]] = {}
    for name, value in tree.items():
        key = f"{prefix}/{name}"
        flat.update(flatten(value, key) if isinstance(value, dict) else {key: np.asarray(value)})
    return flat


def unflatten(arrays: dict[str, npt.NDArray[Any]], prefix: str) -> dict[str, Any]:
    """Returns the nested dict that `flatten` took apart; arrays of other prefixes are left out."""
    tree: dict[str, Any] = {}
    for key, value in arrays.items():
        first, *path = key.split("/")
        if first != prefix:
            continue
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = value
    # A part without arrays (an encoder without batch normalisation) leaves no trace in a file.
    for part in ("encoder", "decoder") if prefix == "statistics" else ():
        tree.setdefault(part, {})
    return tree
