"""Tables of several widths in one compiled program: columns of zeros up to a common width.

A column of zeros changes nothing: its weights get no gradient, and start at zero here. The other
weights start as they would without it, from the same draws; only sums are added in another order.
Outside a program, in a saved model, there are none of these columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import NetworkConfig, RunConfig

Params = dict[str, Any]

# Widths are powers of two from the first to the second of these, then multiples of the second.
_LEAST, _STEP = 32, 256


def program_width(config: RunConfig, image_shape: tuple[int, ...]) -> int | None:
    """Returns the width of the program for samples of a shape; None where columns cannot be added:
    images, a user's own module, a decoder, which would learn them, or weights of a saved model."""
    network = config.network
    plain = isinstance(network, NetworkConfig) and network.is_dense and len(image_shape) == 1
    if not plain or config.needs_decoder or config.initial_model is not None:
        return None
    return padded_width(image_shape[0])


def padded_width(columns: int) -> int:
    """Returns a number of columns to compile for."""
    if columns > _STEP:
        return -(-columns // _STEP) * _STEP
    return max(_LEAST, 1 << (columns - 1).bit_length())


def pad(values: npt.NDArray[Any], width: int, with_value: float = 0.0) -> npt.NDArray[Any]:
    """Returns an array `[..., features]` with more columns, all of one value."""
    missing = width - values.shape[-1]
    widths = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
    return np.pad(values, widths, constant_values=with_value)


def start_factors(network: NetworkConfig, columns: int, width: int) -> Params:
    """Returns the factors on the first kernel after it was drawn for `width` columns, nested as the
    parameters: the draws get the range that `columns` columns would have, and 0 for the added
    ones."""
    outputs = (*network.hidden, network.rep_dim)[0]
    if network.initializer == "torch":
        ratio = width / columns
    else:
        ratio = (width + outputs) / (columns + outputs)
    factors = np.where(np.arange(width) < columns, np.sqrt(ratio), 0.0).astype(np.float32)
    return _nested(_path(network), factors[:, None])


def cut(network: NetworkConfig, params: Params, columns: int) -> Params:
    """Returns stacked parameters whose first kernel `[members, width, outputs]` is of the first
    columns alone."""
    return _with_first_kernel(network, params, lambda kernel: kernel[:, :columns])


def widen(network: NetworkConfig, params: Params, width: int) -> Params:
    """Returns stacked parameters whose first kernel has rows of zeros up to a width."""

    def with_zeros(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.pad(kernel, ((0, 0), (0, width - kernel.shape[1]), (0, 0)))

    return _with_first_kernel(network, params, with_zeros)


def _path(network: NetworkConfig) -> tuple[str, ...]:
    """Returns where the first kernel is among the parameters."""
    layer = ("hidden0", "linear") if network.hidden else ("representation",)
    return ("encoder", *layer, "dense", "kernel")


def _nested(path: tuple[str, ...], value: Any) -> Params:
    for name in reversed(path):
        value = {name: value}
    nested: Params = value
    return nested


def _with_first_kernel(network: NetworkConfig, params: Params, change: Any) -> Params:
    def changed(part: Params, path: tuple[str, ...]) -> Params:
        name, *rest = path
        new = changed(part[name], tuple(rest)) if rest else change(np.asarray(part[name]))
        return {**part, name: new}

    return changed(params, _path(network))
