"""The mean over a batch's examples, and the norm of the weights."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.networks import Params


def masked_mean(values: Array, mask: Array | None = None) -> Array:
    """Averages `[n]` over the examples whose mask is True; 0 if there is none."""
    if mask is None:
        return jnp.mean(values)
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)


def squared_kernel_norm(params: Params) -> Array:
    """Returns sum_l ||W_l||_F^2 over convolution and dense kernels, never biases or scales."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [
        leaf for path, leaf in leaves if getattr(path[-1], "key", None) in ("kernel", "embedding")
    ]
    return sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), jnp.zeros((), jnp.float32))
