"""Convolution and pooling, each in the form that is fast on the platform it is compiled for.

No other room knows the form: `rule.py` chooses among those of `cpu.py` and `accelerator.py`. All
functions take images `[batch, height, width, channels]` and kernels `[k, k, channels, features]`,
are differentiable in both, and equal `lax.conv_general_dilated` up to rounding, in every form on
every platform.
"""

from jax import Array

from deepsvdd_jax.convolution import accelerator, cpu
from deepsvdd_jax.convolution.channels import channel_sums, scale_channels
from deepsvdd_jax.convolution.geometry import (
    Padding,
    PooledMap,
    output_shape,
    same_padding,
    upsample,
)
from deepsvdd_jax.convolution.pooling import max_pool
from deepsvdd_jax.convolution.rule import FORMS, lowered_for, on_cpu, platform, use_form

__all__ = [
    "FORMS",
    "Padding",
    "PooledMap",
    "channel_sums",
    "convolve",
    "convolve_maximum",
    "convolve_pool",
    "lowered_for",
    "max_pool",
    "platform",
    "same_padding",
    "scale_channels",
    "upsample",
    "upsample_convolve",
    "use_form",
]


def convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves with stride 1.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros `((top, bottom), (left, right))`, at most k - 1 each.

    Returns:
      `[batch, height', width', features]`.
    """
    form = cpu if on_cpu() else accelerator
    return form.convolve(images, kernel, padding)


def convolve_pool(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """Convolves, takes the maximum of every 2x2 window and the sums that a normalisation needs.

    An odd last row or column enters the sums but no window, as in `flax.linen.max_pool`. Of equal
    values in a window the first, row by row, gets the gradient.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros `((top, bottom), (left, right))`.
    """
    form = cpu if on_cpu() else accelerator
    return form.convolve_pool(images, kernel, padding)


def convolve_maximum(images: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves and takes the maximum of every 2x2 window: `convolve_pool` where no sums and, for
    speed, no gradients are wanted.

    Returns:
      `[batch, height' // 2, width' // 2, features]`.
    """
    if on_cpu():
        return cpu.convolve_maximum(images, kernel, padding)
    return accelerator.convolve_pool(images, kernel, padding).scaled(None, None)


def upsample_convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """Repeats every pixel 2x2 times (nearest neighbour), then convolves with stride 1.

    The kernel is folded instead where that is faster, so that the larger image is never made.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros around the enlarged image, `((top, bottom), (left, right))`.

    Returns:
      `[batch, height', width', features]`, height' = 2 height + padding - k + 1.
    """
    if not on_cpu():
        return accelerator.upsample_convolve(images, kernel, padding)
    height, width = output_shape(images, kernel, padding, upsampling=2)
    if height % 2 or width % 2:
        return cpu.convolve(upsample(images), kernel, padding)
    return cpu.upsample_convolve(images, kernel, padding)
