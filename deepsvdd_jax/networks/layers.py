"""Layers of encoders and decoders."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import convolution
from deepsvdd_jax.configs import NetworkConfig

BATCH_NORM_EPSILON = 1e-4

# Both original codes draw with the gain of a leaky ReLU of slope 0.01, whatever slope they use.
_CONVOLUTION_GAIN = math.sqrt(2.0 / (1.0 + 0.01**2))


NO_CROP = ((0, 0), (0, 0))


class _Moments(NamedTuple):
    mean: Array
    variance: Array


def _moments(total: Array, total_of_squares: Array, count: Array | int) -> _Moments:
    mean = total / count
    # Rounding can push the difference of two nearly equal numbers below zero.
    return _Moments(mean, jnp.maximum(total_of_squares / count - jnp.square(mean), 0.0))


def _count(mask: Array | None, batch: int, positions: int) -> Array | int:
    return (
        batch * positions
        if mask is None
        else jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1) * positions
    )


def without_padding(values: Array, mask: Array | None) -> Array:
    """Sets padded rows to zero: without a bias a linear layer keeps them so, and they add nothing
    to a sum."""
    if mask is None:
        return values
    return jnp.where(jnp.expand_dims(mask, tuple(range(1, values.ndim))), values, 0.0)


class Normalization(nn.Module):
    """Returns the scale and offset `[features]` that normalise by a batch's moments, by the stored
    ones where there are none."""

    affine: bool
    features: int

    @nn.compact
    def __call__(self, moments: _Moments | None) -> tuple[Array, Array]:
        shape = (self.features,)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if moments is None:
            moments = _Moments(mean.value, variance.value)
        elif not self.is_initializing():
            mean.value, variance.value = jax.lax.stop_gradient(moments)
        scale = jax.lax.rsqrt(moments.variance + BATCH_NORM_EPSILON)
        offset = -moments.mean * scale
        if self.affine:
            gain = self.param("scale", nn.initializers.ones, shape, jnp.float32)
            scale = scale * gain
            offset = offset * gain + self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return scale, offset


def kernel_initializer(
    config: NetworkConfig, convolutional: bool, transposed: bool = False
) -> Callable[..., Array]:
    """Returns the initialiser of a kernel; torch takes a transposed convolution's outputs as its
    fan."""
    if config.initializer == "torch" or (
        config.initializer == "torch_xavier" and not convolutional
    ):
        fan: Literal["fan_in", "fan_out"] = "fan_out" if transposed else "fan_in"
        return nn.initializers.variance_scaling(1.0 / 3.0, fan, "uniform")
    elu = config.initializer == "torch_xavier" and config.activation == "elu"
    gained = convolutional and config.initializer != "glorot_unit" and not elu
    gain = _CONVOLUTION_GAIN if gained else 1.0
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def activate(config: NetworkConfig, values: Array) -> Array:
    if config.activation == "relu":
        return jax.nn.relu(values)
    if config.activation == "elu":
        return jax.nn.elu(values)
    return jnp.where(values > 0, values, config.leaky_slope * values)


def kernel_padding(config: NetworkConfig) -> convolution.Padding:
    return convolution.same_padding(config.kernel_size) if config.padding == "same" else NO_CROP


class Dense(nn.Module):
    config: NetworkConfig
    features: int

    @nn.compact
    def __call__(self, values: Array) -> Array:
        return nn.Dense(
            self.features,
            use_bias=self.config.bias,
            kernel_init=kernel_initializer(self.config, convolutional=False),
            name="dense",
        )(values)


class DenseBlock(nn.Module):
    """A dense layer and the layers that its style puts after it."""

    config: NetworkConfig
    features: int
    style: str

    @nn.compact
    def __call__(self, values: Array, mask: Array | None, train: bool) -> Array:
        values = Dense(self.config, self.features, name="linear")(values)
        if self.style == "batch_norm":
            values = normalize_features(self.config, values, mask, train)
        return values if self.style == "linear" else activate(self.config, values)


class FeatureNormalization(nn.Module):
    """Batch normalisation of vectors as a layer with a name of its own."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, values: Array, mask: Array | None, train: bool) -> Array:
        return normalize_features(self.config, values, mask, train)


def normalize_features(
    config: NetworkConfig, values: Array, mask: Array | None, train: bool
) -> Array:
    moments = None
    if train:
        kept = without_padding(values, mask)
        count = _count(mask, values.shape[0], 1)
        moments = _moments(kept.sum(0), jnp.square(kept).sum(0), count)
    normalization = Normalization(config.affine, values.shape[1], name="norm")
    scale, offset = normalization(moments)
    return values * scale[None] + offset[None]


class Convolution(nn.Module):
    """A convolution, normalised and activated, pooled if `pool`.

    With a positive scale normalisation and activation are monotone: the pool then comes first and
    a quarter of the elements is normalised, to the same values. A trainable scale may turn
    negative, so there the pool comes last.
    """

    config: NetworkConfig
    features: int
    pool: bool

    @nn.compact
    def __call__(self, images: Array, mask: Array | None, train: bool) -> Array:
        config = self.config
        shape = (config.kernel_size, config.kernel_size, images.shape[-1], self.features)
        kernel = self.param(
            "kernel", kernel_initializer(config, convolutional=True), shape, jnp.float32
        )
        images = without_padding(images, mask)
        pool_first = self.pool and not (config.batch_norm and config.affine)
        scaled, moments = _map(
            images, kernel, kernel_padding(config), mask=mask, pool=pool_first, train=train
        )
        if config.batch_norm:
            normalization = Normalization(config.affine, self.features, name="norm")
            values = scaled(*normalization(moments))
        elif config.bias:
            # Under batch normalisation a bias would cancel against the mean.
            values = scaled(
                None, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            )
        else:
            values = scaled(None, None)
        values = activate(config, values)
        return convolution.max_pool(values) if self.pool and not pool_first else values


def _map(
    images: Array,
    kernel: Array,
    padding: convolution.Padding,
    mask: Array | None,
    pool: bool,
    train: bool,
) -> tuple[Callable[[Array | None, Array | None], Array], _Moments | None]:
    """Convolves, and pools if `pool`; returns the function that scales what came out, and the
    moments before pooling if `train`."""
    if pool and train:
        pooled = convolution.convolve_pool(images, kernel, padding)
        count = _count(mask, images.shape[0], pooled.count)
        return pooled.scaled, _moments(pooled.total, pooled.total_of_squares, count)
    convolve = convolution.convolve_maximum if pool else convolution.convolve
    values = convolve(images, kernel, padding)
    scaled = functools.partial(convolution.scale_channels, values)
    return scaled, channel_moments(values, mask) if train else None


def channel_moments(values: Array, mask: Array | None) -> _Moments:
    count = _count(mask, values.shape[0], values.shape[1] * values.shape[2])
    return _moments(*convolution.channel_sums(values), count)
