"""Encoders from a configuration: stages of convolutions, then dense layers."""

import dataclasses
import functools

import flax.linen as nn
from jax import Array

from deepsvdd_jax.configs import ConfigError, NetworkConfig
from deepsvdd_jax.networks.base import (
    BatchStats,
    ImageShape,
    Network,
    Params,
    as_network,
    network_from_module,
)
from deepsvdd_jax.networks.decoders import Decoder, DenseDecoder, decoder_plan
from deepsvdd_jax.networks.layers import (
    Convolution,
    Dense,
    DenseBlock,
    FeatureNormalization,
    without_padding,
)
from deepsvdd_jax.networks.process import check_process

# The Theano code drops a fifth of the pixels where it drops half of everything else.
_IMAGE_DROPOUT = 0.2


# Begins the names of layers that an encoder has in an autoencoder only.
_AUTOENCODER_ONLY = "autoencoder_only_"


class _Encoder(nn.Module):
    """Convolution stages, then dense layers, then the representation without bias."""

    config: NetworkConfig
    in_autoencoder: bool = False

    @nn.compact
    def __call__(self, images: Array, mask: Array | None, train: bool) -> Array:
        # Padding that is not finite would reach the gradient of the first kernel as 0 * inf.
        config, values = self.config, without_padding(images, mask)
        for number, stage in enumerate(config.stages):
            if config.dropout_on == "all":
                rate = min(config.dropout, _IMAGE_DROPOUT) if number == 0 else config.dropout
                values = self._drop(values, train, rate)
            for place, features in enumerate(stage):
                pool = place == len(stage) - 1 and number < config.pools
                name = f"stage{number}_{place}"
                values = Convolution(config, features, pool, name=name)(values, mask, train)
        if config.fully_convolutional:
            values = Dense(config, 1, name="map")(values)
            return values.reshape(values.shape[0], -1)
        values = values.reshape(values.shape[0], -1)
        style = "activation" if config.is_dense else config.hidden_style
        for number, features in enumerate(config.hidden):
            values = self._drop(values, train, config.dropout)
            values = DenseBlock(config, features, style, name=f"hidden{number}")(
                values, mask, train
            )
            if self.in_autoencoder:
                name = f"{_AUTOENCODER_ONLY}norm{number}"
                values = FeatureNormalization(config, name=name)(values, mask, train)
        values = self._drop(values, train, config.dropout)
        return Dense(config, config.rep_dim, name="representation")(values)

    def _drop(self, values: Array, train: bool, rate: float) -> Array:
        return nn.Dropout(rate, deterministic=not train)(values) if rate else values


@dataclasses.dataclass(frozen=True)
class _OwnDecoder:
    """Makes the decoder of a configuration, which is checked where it is needed."""

    config: NetworkConfig
    image_shape: ImageShape

    def __call__(self) -> nn.Module:
        if self.config.fully_convolutional:
            raise ConfigError(
                f"network {self.config.name} is fully convolutional and has no decoder"
            )
        if self.config.is_dense:
            return DenseDecoder(self.config, self.image_shape[0])
        return Decoder(self.config, decoder_plan(self.config, self.image_shape))


def build_network(config: NetworkConfig | nn.Module, image_shape: ImageShape) -> Network:
    """Returns the pure functions of a network for images of one shape.

    Args:
      config: the description of one of the project's networks, or any flax module of the user's
        that maps `[n, *image_shape]` to `[n, rep_dim]` (see `network_from_module`).
      image_shape: `(height, width, channels)`, or `(features,)` for tables.

    Raises:
      ConfigError: the images do not fit the network.
      RuntimeError: this process was forked after jax had started in its parent.
    """
    check_process()
    return _built(config, image_shape)


@functools.lru_cache(maxsize=64)
def _built(config: NetworkConfig | nn.Module, image_shape: ImageShape) -> Network:
    if isinstance(config, nn.Module):
        return network_from_module(config, image_shape)
    check_image_shape(config, image_shape)
    normalizes = config.autoencoder_norm and config.batch_norm
    in_autoencoder = _Encoder(config, in_autoencoder=True) if normalizes else None
    network = as_network(
        _Encoder(config), _OwnDecoder(config, image_shape), image_shape, in_autoencoder
    )
    return network._replace(stochastic=config.dropout > 0)


def without_decoder(tree: Params | BatchStats) -> Params | BatchStats:
    """Returns the params or statistics of an encoder without decoder: the entry `encoder` less the
    layers that exist only in an autoencoder."""
    kept = {
        name: value
        for name, value in tree["encoder"].items()
        if not name.startswith(_AUTOENCODER_ONLY)
    }
    return {"encoder": kept}


def check_image_shape(config: NetworkConfig, image_shape: ImageShape) -> None:
    """Checks that images of a shape can pass through a network.

    Raises:
      ConfigError: tables for convolutions, images for dense layers, or images that are too small.
    """
    if len(image_shape) != (1 if config.is_dense else 3):
        kinds = ("tables [n, features]", "images [n, height, width, channels]")
        wanted, found = kinds if config.is_dense else kinds[::-1]
        raise ConfigError(f"network {config.name} takes {wanted}; the data are {found}")
    if not config.is_dense and config.kernel_size > 2 * max(image_shape[:2]) + 1:
        raise ConfigError(
            f"kernel_size is {config.kernel_size}; beyond twice the side of "
            f"{image_shape[0]}x{image_shape[1]} pixels a kernel sees nothing more"
        )
    if min(config.map_sides(image_shape[:2])) < 1:
        raise ConfigError(
            f"network {config.name} halves images {config.pools} times; "
            f"{image_shape[0]}x{image_shape[1]} pixels are too few"
        )
