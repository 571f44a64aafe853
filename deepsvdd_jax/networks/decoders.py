"""Decoders: the authors' own for their networks, else the encoder backwards."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import convolution
from deepsvdd_jax.configs import ConfigError, NetworkConfig
from deepsvdd_jax.networks.base import ImageShape
from deepsvdd_jax.networks.layers import (
    NO_CROP,
    Dense,
    DenseBlock,
    Normalization,
    activate,
    channel_moments,
    kernel_initializer,
    kernel_padding,
    normalize_features,
    without_padding,
)


class _DecoderLayer(NamedTuple):
    """A convolution of a decoder: its features, whether the image is doubled before it, and the
    pixels it takes off, `((top, bottom), (left, right))`, compared with 'same' padding."""

    features: int
    doubles: bool
    crop: convolution.Padding = NO_CROP


class _DecoderPlan(NamedTuple):
    """Dense widths, the first small image `(height, width, channels)`, and the convolutions."""

    hidden: tuple[int, ...]
    start: tuple[int, int, int]
    layers: tuple[_DecoderLayer, ...]
    normalize_code: bool = False
    normalize_output: bool = False


# Image shape that a layout is for, and the width of the representation that its decoder needs.
_MADE_FOR: dict[str, tuple[ImageShape, int | None]] = {
    "mnist_lenet": ((28, 28, 1), 32),
    "mnist_lenet_wide": ((28, 28, 1), 32),
    "fashion_mnist_lenet": ((28, 28, 1), None),
    "mirror_doubled": ((32, 32, 3), 128),
    "cifar10_lenet": ((32, 32, 3), 128),
    "cifar10_lenet_deep": ((32, 32, 3), 128),
    "gtsrb_lenet": ((32, 32, 3), None),
}


def decoder_plan(config: NetworkConfig, shape: ImageShape) -> _DecoderPlan:
    """Returns the authors' decoder of a layout at its own image size, else a mirror."""
    layout, layer = config.decoder_layout, _DecoderLayer
    made_for, rep_dim = _MADE_FOR.get(layout, (None, None))
    if shape != made_for or config.rep_dim != (rep_dim or config.rep_dim):
        return _mirrored_plan(config, shape)
    layers: tuple[_DecoderLayer, ...]
    one_off = ((1, 1), (1, 1))
    theano = config.decoder == "theano"
    if layout == "mnist_lenet":
        layers = (layer(4, True), layer(8, True, one_off), layer(1, True))
        return _DecoderPlan((), (4, 4, 2), layers)
    if layout == "mnist_lenet_wide":
        layers = (layer(128, False), layer(256, True), layer(256, True, one_off), layer(1, True))
        return _DecoderPlan((320,), (4, 4, 20), layers, normalize_code=True)
    if layout == "fashion_mnist_lenet":
        layers = (layer(32, True), layer(16, True, one_off), layer(1, True))
        return _DecoderPlan((128,), (4, 4, 8), layers, normalize_code=True)
    plan = _mirrored_plan(config, shape)
    if layout == "gtsrb_lenet":
        return plan._replace(hidden=(64,), start=(8, 8, 1), normalize_output=theano)
    if layout != "mirror_doubled":
        plan = plan._replace(normalize_output=theano, normalize_code=not theano)
    if layout == "cifar10_lenet":
        return plan
    # A deep layout differs from the mirror only by the doubling before its first layer.
    first = plan.layers[0]._replace(doubles=True)
    return plan._replace(start=(2, 2, 32), layers=(first, *plan.layers[1:]))


def _mirrored_plan(config: NetworkConfig, shape: ImageShape) -> _DecoderPlan:
    """Returns the encoder backwards, for any size: a stage's image is doubled after it, less the
    row or column that the encoder's pool left out."""
    if config.padding != "same":
        raise ConfigError(
            f"network {config.name}: no decoder can mirror its '{config.padding}' convolutions; "
            "use padding=same, or train without autoencoder (pretrain_epochs=0)"
        )
    sides = [shape[:2]]
    for _ in config.stages:
        height, width = sides[-1]
        sides.append((-(-height // 2), -(-width // 2)))
    layers: list[_DecoderLayer] = []
    for number in reversed(range(len(config.stages))):
        for place, features in enumerate(reversed(config.stages[number])):
            doubles = place == 0 and bool(layers)
            crop = _crop(sides[number + 2], sides[number + 1]) if doubles else NO_CROP
            layers.append(_DecoderLayer(features, doubles, crop))
    layers.append(_DecoderLayer(shape[2], True, _crop(sides[1], sides[0])))
    height, width = sides[-1]
    channels, rest = divmod(config.rep_dim, height * width)
    hidden = tuple(reversed(config.hidden))
    if rest or hidden:
        channels = max(channels, 1)
        hidden = (*hidden, height * width * channels)
    return _DecoderPlan(hidden, (height, width, channels), tuple(layers))


def _crop(small: tuple[int, ...], large: tuple[int, ...]) -> convolution.Padding:
    (down, across) = (2 * low - high for low, high in zip(small, large, strict=True))
    return (0, down), (0, across)


class Decoder(nn.Module):
    """Dense layers, reshaped to a small image, activated, then enlarged by convolutions."""

    config: NetworkConfig
    plan: _DecoderPlan

    @nn.compact
    def __call__(self, embeddings: Array, mask: Array | None, train: bool) -> Array:
        config, plan, values = self.config, self.plan, embeddings
        for number, features in enumerate(plan.hidden):
            last = number == len(plan.hidden) - 1
            style = "linear" if last else config.hidden_style
            values = DenseBlock(config, features, style, name=f"hidden{number}")(
                values, mask, train
            )
        if plan.normalize_code:
            values = normalize_features(config, values, mask, train)
        values = activate(config, values.reshape(values.shape[0], *plan.start))
        for number, layer in enumerate(plan.layers):
            last = number == len(plan.layers) - 1
            values = _DecoderConvolution(
                config, layer, normalize=plan.normalize_output or not last, name=f"layer{number}"
            )(values, mask, train)
            values = jax.nn.sigmoid(values) if last else activate(config, values)
        return values


class _DecoderConvolution(nn.Module):
    config: NetworkConfig
    layer: _DecoderLayer
    normalize: bool

    @nn.compact
    def __call__(self, images: Array, mask: Array | None, train: bool) -> Array:
        config, layer = self.config, self.layer
        shape = (config.kernel_size, config.kernel_size, images.shape[-1], layer.features)
        draw = kernel_initializer(config, True, transposed=config.decoder == "pytorch")
        kernel = self.param("kernel", draw, shape, jnp.float32)
        padding = _less(kernel_padding(config), layer.crop)
        convolve = convolution.upsample_convolve if layer.doubles else convolution.convolve
        values = convolve(without_padding(images, mask), kernel, padding)
        if self.normalize and config.batch_norm:
            moments = channel_moments(values, mask) if train else None
            normalization = Normalization(config.affine, layer.features, name="norm")
            values = convolution.scale_channels(values, *normalization(moments))
        elif config.bias:
            bias = self.param("bias", nn.initializers.zeros, (layer.features,), jnp.float32)
            values = convolution.scale_channels(values, None, bias)
        return values


def _less(padding: convolution.Padding, crop: convolution.Padding) -> convolution.Padding:
    (top, bottom), (left, right) = padding
    (off_top, off_bottom), (off_left, off_right) = crop
    return (top - off_top, bottom - off_bottom), (left - off_left, right - off_right)


class DenseDecoder(nn.Module):
    """The dense layers backwards, ending in the features themselves: tables are not in (0, 1)."""

    config: NetworkConfig
    features: int

    @nn.compact
    def __call__(self, embeddings: Array, mask: Array | None, train: bool) -> Array:
        values = activate(self.config, embeddings)
        for number, features in enumerate(reversed(self.config.hidden)):
            values = DenseBlock(self.config, features, "activation", name=f"hidden{number}")(
                values, mask, train
            )
        return Dense(self.config, self.features, name="output")(values)
