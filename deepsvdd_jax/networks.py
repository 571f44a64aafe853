"""Encoders and decoders, the only module that knows flax.

A network is handed on as a `Network` of pure functions over plain dicts. Batch normalisation hands
out the statistics of the batch; the running average of them is kept by the caller.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import convolution
from deepsvdd_jax.configs import ConfigError, NetworkConfig

Params = dict[str, Any]
Statistics = dict[str, Any]
ImageShape = tuple[int, ...]

BATCH_NORM_EPSILON = 1e-4

# Both original codes draw with the gain of a leaky ReLU of slope 0.01, whatever slope they use.
_CONVOLUTION_GAIN = math.sqrt(2.0 / (1.0 + 0.01**2))


class Network(NamedTuple):
    """Pure functions of a network for images of one shape; params and statistics are dicts with
    the entries `encoder` and, where there is one, `decoder`.

    Attributes:
      init: `(key, with_decoder) -> (params, statistics)`, statistics being mean 0, variance 1.
      encode: `(params, statistics, images) -> codes [n, rep_dim]`, with the given statistics.
      encode_batch: `(params, images, mask, key) -> (codes, batch statistics)`, normalised by the
        statistics of the batch itself; mask is bool `[n]`, key draws the dropout (None: none).
      decode: `(params, statistics, codes) -> images`.
      decode_batch: `(params, codes, mask) -> (images, batch statistics)`.
      rep_dim: width of the representation.
      image_shape: of one image, `(height, width, channels)`, or `(features,)`.
      draws: whether a training step may draw something, as dropout does; of a user's modules True.
    """

    init: Callable[[Array, bool], tuple[Params, Statistics]]
    encode: Callable[[Params, Statistics, Array], Array]
    encode_batch: Callable[[Params, Array, Array | None, Array | None], tuple[Array, Statistics]]
    decode: Callable[[Params, Statistics, Array], Array]
    decode_batch: Callable[[Params, Array, Array | None], tuple[Array, Statistics]]
    rep_dim: int
    image_shape: ImageShape
    draws: bool = True


# --- layers -------------------------------------------------------------------------------------


_NO_CROP = ((0, 0), (0, 0))


class _Moments(NamedTuple):
    mean: Array
    variance: Array


def _moments(total: Array, total_of_squares: Array, count: Array | int) -> _Moments:
    mean = total / count
    # Rounding can push the difference of two nearly equal numbers below zero.
    return _Moments(mean, jnp.maximum(total_of_squares / count - jnp.square(mean), 0.0))


def _count(mask: Array | None, batch: int, positions: int) -> Array | int:
    return batch * positions if mask is None else jnp.maximum(jnp.sum(mask), 1) * positions


def _without_padding(values: Array, mask: Array | None) -> Array:
    """Sets padded rows to zero: without a bias a linear layer keeps them so, and they add nothing
    to a sum."""
    if mask is None:
        return values
    return jnp.where(jnp.expand_dims(mask, tuple(range(1, values.ndim))), values, 0.0)


class _Normalization(nn.Module):
    """Returns the scale and offset `[features]` that normalise by a batch's moments, by the stored
    ones where there are none."""

    affine: bool
    features: int

    @nn.compact
    def __call__(self, moments: _Moments | None) -> tuple[Array, Array]:
        shape = (self.features,)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if moments is None:
            moments = _Moments(mean.value, variance.value)
        elif not self.is_initializing():
            mean.value, variance.value = jax.lax.stop_gradient(moments)
        scale = jax.lax.rsqrt(moments.variance + BATCH_NORM_EPSILON)
        offset = -moments.mean * scale
        if self.affine:
            gain = self.param("scale", nn.initializers.ones, shape)
            scale = scale * gain
            offset = offset * gain + self.param("bias", nn.initializers.zeros, shape)
        return scale, offset


def _kernel_initializer(config: NetworkConfig, convolutional: bool) -> Callable[..., Array]:
    if config.initializer == "torch":
        return nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
    gained = convolutional and config.initializer == "glorot"
    gain = _CONVOLUTION_GAIN if gained else 1.0
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _activate(config: NetworkConfig, values: Array) -> Array:
    if config.activation == "relu":
        return jax.nn.relu(values)
    if config.activation == "elu":
        return jax.nn.elu(values)
    return jnp.where(values > 0, values, config.leaky_slope * values)


def _padding(config: NetworkConfig) -> convolution.Padding:
    return convolution.same_padding(config.kernel_size) if config.padding == "same" else _NO_CROP


class _Dense(nn.Module):
    config: NetworkConfig
    features: int

    @nn.compact
    def __call__(self, values: Array) -> Array:
        return nn.Dense(
            self.features,
            use_bias=self.config.bias,
            kernel_init=_kernel_initializer(self.config, convolutional=False),
            name="dense",
        )(values)


class _DenseBlock(nn.Module):
    """A dense layer and what its style puts after it."""

    config: NetworkConfig
    features: int
    style: str

    @nn.compact
    def __call__(self, values: Array, mask: Array | None, train: bool) -> Array:
        values = _Dense(self.config, self.features, name="linear")(values)
        if self.style == "batch_norm":
            values = _normalize_features(self.config, values, mask, train)
        return values if self.style == "linear" else _activate(self.config, values)


def _normalize_features(
    config: NetworkConfig, values: Array, mask: Array | None, train: bool
) -> Array:
    moments = None
    if train:
        kept = _without_padding(values, mask)
        count = _count(mask, values.shape[0], 1)
        moments = _moments(kept.sum(0), jnp.square(kept).sum(0), count)
    normalization = _Normalization(config.affine, values.shape[1], name="norm")
    scale, offset = normalization(moments)
    return values * scale[None] + offset[None]


class _Convolution(nn.Module):
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
        kernel = self.param("kernel", _kernel_initializer(config, convolutional=True), shape)
        images = _without_padding(images, mask)
        pool_first = self.pool and not (config.batch_norm and config.affine)
        scaled, moments = _map(images, kernel, _padding(config), mask, pool_first, train)
        if config.batch_norm:
            normalization = _Normalization(config.affine, self.features, name="norm")
            values = scaled(*normalization(moments))
        elif config.bias:
            # Under batch normalisation a bias would cancel against the mean.
            values = scaled(None, self.param("bias", nn.initializers.zeros, (self.features,)))
        else:
            values = scaled(None, None)
        values = _activate(config, values)
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
    return scaled, _channel_moments(values, mask) if train else None


def _channel_moments(values: Array, mask: Array | None) -> _Moments:
    count = _count(mask, values.shape[0], values.shape[1] * values.shape[2])
    return _moments(*convolution.channel_sums(values), count)


class _Encoder(nn.Module):
    """Convolution stages, then dense layers, then the representation without bias."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, images: Array, mask: Array | None, train: bool) -> Array:
        # What is not finite in padding would reach the gradient of the first kernel as 0 * inf.
        config, values = self.config, _without_padding(images, mask)
        for number, stage in enumerate(config.stages):
            for place, features in enumerate(stage):
                pool = place == len(stage) - 1
                name = f"stage{number}_{place}"
                values = _Convolution(config, features, pool, name=name)(values, mask, train)
            if config.dropout_on == "all":
                values = self._drop(values, train)
        values = values.reshape(values.shape[0], -1)
        style = "activation" if config.is_dense else config.hidden_style
        for number, features in enumerate(config.hidden):
            values = self._drop(values, train)
            values = _DenseBlock(config, features, style, name=f"hidden{number}")(
                values, mask, train
            )
        values = self._drop(values, train)
        return _Dense(config, config.rep_dim, name="representation")(values)

    def _drop(self, values: Array, train: bool) -> Array:
        if not self.config.dropout:
            return values
        return nn.Dropout(self.config.dropout, deterministic=not train)(values)


# --- decoders -----------------------------------------------------------------------------------


class _DecoderLayer(NamedTuple):
    """A convolution of a decoder: its features, whether the image is doubled before it, and the
    pixels it takes off, `((top, bottom), (left, right))`, compared with 'same' padding."""

    features: int
    doubles: bool
    crop: convolution.Padding = _NO_CROP


class _DecoderPlan(NamedTuple):
    """Dense widths, the first small image `(height, width, channels)`, and the convolutions."""

    hidden: tuple[int, ...]
    start: tuple[int, int, int]
    layers: tuple[_DecoderLayer, ...]
    normalize_code: bool = False
    normalize_output: bool = False


def _decoder_plan(config: NetworkConfig, shape: ImageShape) -> _DecoderPlan:
    """Returns the authors' decoder of a published network at its own image size, else a mirror."""
    layer, mirrored = _DecoderLayer, functools.partial(_mirrored_plan, config, shape)
    layers: tuple[_DecoderLayer, ...]
    one_off = ((1, 1), (1, 1))
    theano = config.decoder == "theano"
    if shape == (28, 28, 1) and config.rep_dim == 32 and config.name.startswith("mnist_lenet"):
        if config.name == "mnist_lenet":
            layers = (layer(4, True), layer(8, True, one_off), layer(1, True))
            return _DecoderPlan((), (4, 4, 2), layers)
        layers = (layer(128, False), layer(256, True), layer(256, True, one_off), layer(1, True))
        return _DecoderPlan((320,), (4, 4, 20), layers, normalize_code=True)
    if shape == (32, 32, 3) and config.rep_dim == 128 and config.name == "cifar10_lenet_deep":
        # Nothing but the doubling before the first layer sets it apart from the mirror.
        plan = mirrored()
        first = plan.layers[0]._replace(doubles=True)
        return plan._replace(start=(2, 2, 32), layers=(first, *plan.layers[1:]))
    if shape == (32, 32, 3) and config.rep_dim == 128 and config.name.startswith("cifar10_lenet"):
        small = config.name == "cifar10_lenet_small"
        return mirrored()._replace(
            normalize_output=theano and not small, normalize_code=not theano and not small
        )
    if shape == (32, 32, 3) and config.name == "gtsrb_lenet":
        return mirrored()._replace(hidden=(64,), start=(8, 8, 1), normalize_output=theano)
    return mirrored()


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
            crop = _crop(sides[number + 2], sides[number + 1]) if doubles else _NO_CROP
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


class _Decoder(nn.Module):
    """Dense layers, reshaped to a small image, activated, then enlarged by convolutions."""

    config: NetworkConfig
    plan: _DecoderPlan

    @nn.compact
    def __call__(self, codes: Array, mask: Array | None, train: bool) -> Array:
        config, plan, values = self.config, self.plan, codes
        for number, features in enumerate(plan.hidden):
            last = number == len(plan.hidden) - 1
            style = "linear" if last else config.hidden_style
            values = _DenseBlock(config, features, style, name=f"hidden{number}")(
                values, mask, train
            )
        if plan.normalize_code:
            values = _normalize_features(config, values, mask, train)
        values = _activate(config, values.reshape(values.shape[0], *plan.start))
        for number, layer in enumerate(plan.layers):
            last = number == len(plan.layers) - 1
            values = _DecoderConvolution(
                config, layer, normalize=plan.normalize_output or not last, name=f"layer{number}"
            )(values, mask, train)
            values = jax.nn.sigmoid(values) if last else _activate(config, values)
        return values


class _DecoderConvolution(nn.Module):
    config: NetworkConfig
    layer: _DecoderLayer
    normalize: bool

    @nn.compact
    def __call__(self, images: Array, mask: Array | None, train: bool) -> Array:
        config, layer = self.config, self.layer
        shape = (config.kernel_size, config.kernel_size, images.shape[-1], layer.features)
        kernel = self.param("kernel", _kernel_initializer(config, convolutional=True), shape)
        padding = _less(_padding(config), layer.crop)
        convolve = convolution.upsample_convolve if layer.doubles else convolution.convolve
        values = convolve(_without_padding(images, mask), kernel, padding)
        if self.normalize and config.batch_norm:
            moments = _channel_moments(values, mask) if train else None
            normalization = _Normalization(config.affine, layer.features, name="norm")
            values = convolution.scale_channels(values, *normalization(moments))
        elif config.bias:
            bias = self.param("bias", nn.initializers.zeros, (layer.features,))
            values = convolution.scale_channels(values, None, bias)
        return values


def _less(padding: convolution.Padding, crop: convolution.Padding) -> convolution.Padding:
    (top, bottom), (left, right) = padding
    (off_top, off_bottom), (off_left, off_right) = crop
    return (top - off_top, bottom - off_bottom), (left - off_left, right - off_right)


class _DenseDecoder(nn.Module):
    """The dense layers backwards, ending in the features themselves: tables are not in (0, 1)."""

    config: NetworkConfig
    features: int

    @nn.compact
    def __call__(self, codes: Array, mask: Array | None, train: bool) -> Array:
        values = _activate(self.config, codes)
        for number, features in enumerate(reversed(self.config.hidden)):
            values = _DenseBlock(self.config, features, "activation", name=f"hidden{number}")(
                values, mask, train
            )
        return _Dense(self.config, self.features, name="output")(values)


# --- from modules to pure functions -------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def build_network(config: NetworkConfig | nn.Module, image_shape: ImageShape) -> Network:
    """Returns the pure functions of a network for images of one shape.

    Args:
      config: the description of one of the project's networks, or any flax module of the user's
        that maps `[n, *image_shape]` to `[n, rep_dim]` (see `network_from_module`).
      image_shape: `(height, width, channels)`, or `(features,)` for tables.

    Raises:
      ConfigError: the images do not fit the network.
    """
    if isinstance(config, nn.Module):
        return network_from_module(config, image_shape)
    check_image_shape(config, image_shape)

    def decoder() -> nn.Module:
        if config.is_dense:
            return _DenseDecoder(config, image_shape[0])
        return _Decoder(config, _decoder_plan(config, image_shape))

    network = _as_network(_Encoder(config), decoder, image_shape)
    return network._replace(draws=config.dropout > 0)


def network_from_module(
    encoder: nn.Module, image_shape: ImageShape, decoder: nn.Module | None = None
) -> Network:
    """Returns the pure functions of a user's flax modules.

    Args:
      encoder: called as `module(images)`, and with `train=True` or `False` and `mask=[n]` where its
        `__call__` has such parameters; returns `[n, rep_dim]`. Batch normalisation must be built
        with momentum 0, since the running average is kept by the training. `flax.linen.Dropout`
        drops in training steps, not where batch statistics are collected.
      image_shape: of one image.
      decoder: called likewise on representations; needed for pretraining and reconstruction. It
        has nothing to draw from, so that its dropout layers pass on what they are given.
    """

    def no_decoder() -> nn.Module:
        if decoder is None:
            raise ConfigError(
                f"{type(encoder).__name__} has no decoder: hand one to network_from_module, or "
                "train without autoencoder (pretrain_epochs=0)"
            )
        return decoder

    return _as_network(encoder, no_decoder, image_shape)


def check_image_shape(config: NetworkConfig, image_shape: ImageShape) -> None:
    """Checks that images of a shape can pass through a network.

    Raises:
      ConfigError: tables for convolutions, images for dense layers, or images that are too small.
    """
    if len(image_shape) != (1 if config.is_dense else 3):
        kinds = ("tables [n, features]", "images [n, height, width, channels]")
        wanted, found = kinds if config.is_dense else kinds[::-1]
        raise ConfigError(f"network {config.name} takes {wanted}; the data are {found}")
    side = min(image_shape[:2]) if not config.is_dense else 1
    for stage in config.stages:
        if config.padding == "valid":
            side -= len(stage) * (config.kernel_size - 1)
        side //= 2
    if side < 1:
        raise ConfigError(
            f"network {config.name} halves images {len(config.stages)} times; "
            f"{image_shape[0]}x{image_shape[1]} pixels are too few"
        )


_EVALUATION = {"mask": None, "train": False}


def _as_network(
    encoder: nn.Module, make_decoder: Callable[[], nn.Module], image_shape: ImageShape
) -> Network:
    def apply(module: nn.Module, variables: dict[str, Any], values: Array, **arguments: Any) -> Any:
        accepted = _accepted_arguments(module)
        keywords = {name: arguments[name] for name in ("mask", "train") if name in accepted}
        key = arguments.get("key")
        return module.apply(
            variables,
            values,
            mutable=["batch_stats"] if arguments["train"] else False,
            rngs=None if key is None else {"dropout": key},
            **keywords,
        )

    def init(key: Array, with_decoder: bool = False) -> tuple[Params, Statistics]:
        key_encoder, key_decoder = jax.random.split(key)
        images = jnp.zeros((1, *image_shape))
        modules: list[tuple[str, nn.Module, Array, Array]] = [
            ("encoder", encoder, key_encoder, images)
        ]
        if with_decoder:
            codes = jnp.zeros((1, rep_dim))
            modules.append(("decoder", make_decoder(), key_decoder, codes))
        params, statistics = {}, {}
        for part, module, key_part, values in modules:
            variables = module.init(key_part, values, **_evaluation_arguments(module))
            params[part] = variables["params"]
            statistics[part] = variables.get("batch_stats", {})
        return params, statistics

    def encode(params: Params, statistics: Statistics, images: Array) -> Array:
        variables = {"params": params["encoder"], "batch_stats": statistics["encoder"]}
        return apply(encoder, variables, images, mask=None, train=False)

    def encode_batch(
        params: Params, images: Array, mask: Array | None = None, key: Array | None = None
    ) -> tuple[Array, Statistics]:
        variables = {"params": params["encoder"]}
        intercepting = contextlib.nullcontext() if key is not None else _without_dropout()
        with intercepting:
            codes, new = apply(encoder, variables, images, mask=mask, train=True, key=key)
        return codes, new.get("batch_stats", {})

    def decode(params: Params, statistics: Statistics, codes: Array) -> Array:
        variables = {"params": params["decoder"], "batch_stats": statistics["decoder"]}
        return apply(make_decoder(), variables, codes, mask=None, train=False)

    def decode_batch(
        params: Params, codes: Array, mask: Array | None = None
    ) -> tuple[Array, Statistics]:
        variables = {"params": params["decoder"]}
        # A step has one key, the encoder's.
        with _without_dropout():
            images, new = apply(make_decoder(), variables, codes, mask=mask, train=True)
        return images, new.get("batch_stats", {})

    def encode_nothing() -> Array:
        images = jnp.zeros((1, *image_shape))
        arguments = _evaluation_arguments(encoder)
        return encoder.init_with_output(jax.random.key(0), images, **arguments)[0]

    # Shapes only: nothing is computed.
    rep_dim = jax.eval_shape(encode_nothing).shape[-1]
    return Network(init, encode, encode_batch, decode, decode_batch, rep_dim, image_shape)


def _without_dropout() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which dropout layers pass on what they are given."""

    def pass_on(
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        if isinstance(context.module, nn.Dropout):
            return arguments[0] if arguments else keywords["inputs"]
        return method(*arguments, **keywords)

    return nn.intercept_methods(pass_on)


def _evaluation_arguments(module: nn.Module) -> dict[str, Any]:
    accepted = _accepted_arguments(module)
    return {name: value for name, value in _EVALUATION.items() if name in accepted}


def _accepted_arguments(module: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(type(module).__call__).parameters)
