"""Encoders and decoders, the only room that knows flax."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.networks.base import (
        BatchStats,
        ImageShape,
        Network,
        Params,
        Statistics,
        network_from_module,
    )
    from deepsvdd_jax.networks.encoders import build_network, check_image_shape, without_decoder
    from deepsvdd_jax.networks.layers import BATCH_NORM_EPSILON

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": (
            "BatchStats",
            "ImageShape",
            "Network",
            "Params",
            "Statistics",
            "network_from_module",
        ),
        "encoders": (
            "build_network",
            "check_image_shape",
            "without_decoder",
        ),
        "layers": ("BATCH_NORM_EPSILON",),
    },
)

__all__ = [
    "BATCH_NORM_EPSILON",
    "BatchStats",
    "ImageShape",
    "Network",
    "Params",
    "Statistics",
    "build_network",
    "check_image_shape",
    "network_from_module",
    "without_decoder",
]
