"""A network as pure functions over plain dicts, of this package or of a user's flax modules.

Batch normalisation hands out the statistics of the batch; the running average of them is kept by
the caller.
"""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import ConfigError

Params = dict[str, Any]
BatchStats = dict[str, Any]
# Its former name.
Statistics = BatchStats
ImageShape = tuple[int, ...]


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
      stochastic: whether a training step may draw something, as dropout does; of a user's modules
        True.
    """

    init: Callable[[Array, bool], tuple[Params, BatchStats]]
    encode: Callable[[Params, BatchStats, Array], Array]
    encode_batch: Callable[[Params, Array, Array | None, Array | None], tuple[Array, BatchStats]]
    decode: Callable[[Params, BatchStats, Array], Array]
    decode_batch: Callable[[Params, Array, Array | None], tuple[Array, BatchStats]]
    rep_dim: int
    image_shape: ImageShape
    stochastic: bool = True


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

    return as_network(encoder, no_decoder, image_shape)


_EVALUATION = {"mask": None, "train": False}


def as_network(
    encoder: nn.Module,
    make_decoder: Callable[[], nn.Module],
    image_shape: ImageShape,
    in_autoencoder: nn.Module | None = None,
) -> Network:
    """Returns the pure functions of modules; `in_autoencoder` is the encoder where the params have
    a decoder, if it is another one there."""

    def encoder_of(has_decoder: bool) -> nn.Module:
        return in_autoencoder if has_decoder and in_autoencoder is not None else encoder

    def apply(module: nn.Module, variables: dict[str, Any], values: Array, **arguments: Any) -> Any:
        accepted = _accepted_arguments(module)
        keywords = {name: arguments[name] for name in ("mask", "train") if name in accepted}
        key = arguments.get("key")
        # flax draws in jax's default type, which may be float64 where the images are not.
        with jax.enable_x64(values.dtype == jnp.float64):
            return module.apply(
                variables,
                values,
                mutable=["batch_stats"] if arguments["train"] else False,
                rngs=None if key is None else {"dropout": key},
                **keywords,
            )

    def init(key: Array, with_decoder: bool = False) -> tuple[Params, BatchStats]:
        key_encoder, key_decoder = jax.random.split(key)
        images = jnp.zeros((1, *image_shape), jnp.float32)
        modules: list[tuple[str, nn.Module, Array, Array]] = [
            ("encoder", encoder_of(with_decoder), key_encoder, images)
        ]
        if with_decoder:
            codes = jnp.zeros((1, rep_dim), jnp.float32)
            modules.append(("decoder", make_decoder(), key_decoder, codes))
        params, statistics = {}, {}
        for part, module, key_part, values in modules:
            with jax.enable_x64(False):
                variables = module.init(key_part, values, **_evaluation_arguments(module))
            params[part] = variables["params"]
            statistics[part] = variables.get("batch_stats", {})
        return params, statistics

    def encode(params: Params, statistics: BatchStats, images: Array) -> Array:
        variables = {"params": params["encoder"], "batch_stats": statistics["encoder"]}
        module = encoder_of("decoder" in params)
        return apply(module, variables, images, mask=None, train=False)

    def encode_batch(
        params: Params, images: Array, mask: Array | None = None, key: Array | None = None
    ) -> tuple[Array, BatchStats]:
        variables = {"params": params["encoder"]}
        intercepting = contextlib.nullcontext() if key is not None else _without_dropout()
        with intercepting:
            module = encoder_of("decoder" in params)
            codes, new = apply(module, variables, images, mask=mask, train=True, key=key)
        return codes, new.get("batch_stats", {})

    def decode(params: Params, statistics: BatchStats, codes: Array) -> Array:
        variables = {"params": params["decoder"], "batch_stats": statistics["decoder"]}
        return apply(make_decoder(), variables, codes, mask=None, train=False)

    def decode_batch(
        params: Params, codes: Array, mask: Array | None = None
    ) -> tuple[Array, BatchStats]:
        variables = {"params": params["decoder"]}
        # A step has one key, the encoder's.
        with _without_dropout():
            images, new = apply(make_decoder(), variables, codes, mask=mask, train=True)
        return images, new.get("batch_stats", {})

    def encode_nothing() -> Array:
        images = jnp.zeros((1, *image_shape), jnp.float32)
        arguments = _evaluation_arguments(encoder)
        return encoder.init_with_output(jax.random.key(0), images, **arguments)[0]

    # Shapes only: nothing is computed.
    rep_dim = jax.eval_shape(encode_nothing).shape[-1]
    return Network(
        init=init,
        encode=encode,
        encode_batch=encode_batch,
        decode=decode,
        decode_batch=decode_batch,
        rep_dim=rep_dim,
        image_shape=image_shape,
    )


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
