"""Reconstruction errors of an autoencoder."""

import jax.numpy as jnp
from jax import Array


def reconstruction_errors(outputs: Array, images: Array, kind: str = "squared") -> Array:
    """Returns the reconstruction error of every image, `[n]`, *summed* over its pixels.

    Args:
      outputs: `[n, ...]`, reconstructions; in (0, 1) for `cross-entropy`.
      images: `[n, ...]`, what should have come out; in [0, 1] for `cross-entropy`.
      kind: `squared` or `cross-entropy`.
    """
    if kind == "squared":
        errors = jnp.square(outputs - images)
    else:
        # Float32 rounds a saturated sigmoid to 0 or 1, whose logarithm is infinite.
        outputs = jnp.clip(outputs, 1e-7, 1.0 - 1e-7)
        errors = -(images * jnp.log(outputs) + (1.0 - images) * jnp.log1p(-outputs))
    return jnp.sum(errors, axis=tuple(range(1, errors.ndim)))
