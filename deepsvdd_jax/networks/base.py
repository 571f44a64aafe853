"""A network as pure functions over plain dicts, of this package or of a user's flax modules.

Batch normalisation hands out the statistics of the batch; the running average of them is kept by
the caller.
"""

import contextlib
import dataclasses
import functools
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
    the entries `encoder` and, where there is one, `decoder`. Networks of equal modules are equal.

    Attributes:
      init: `(key, with_decoder) -> (params, statistics)`, statistics being mean 0, variance 1.
      encode: `(params, statistics, images) -> embeddings`, `[n, rep_dim]`, under given statistics.
      encode_batch: `(params, images, mask, key) -> (embeddings, batch statistics)`, normalised by
        the statistics of the batch itself; mask is bool `[n]`, key draws the dropout (None: none).
      decode: `(params, statistics, embeddings) -> images`.
      decode_batch: `(params, embeddings, mask) -> (images, batch statistics)`.
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
    return as_network(encoder, _GivenDecoder(type(encoder).__name__, decoder), image_shape)


_EVALUATION = {"mask": None, "train": False}


@dataclasses.dataclass(frozen=True)
class _GivenDecoder:
    """A user's decoder, whose absence is an error once it is needed."""

    encoder: str
    decoder: nn.Module | None

    def __call__(self) -> nn.Module:
        if self.decoder is None:
            raise ConfigError(
                f"{self.encoder} has no decoder: hand one to network_from_module, or "
                "train without autoencoder (pretrain_epochs=0)"
            )
        return self.decoder


@dataclasses.dataclass(frozen=True, eq=False)
class _Modules:
    """The modules of a network, and its functions.

    Two are equal where their modules are, so that programs are compiled once for a network,
    however often it is built. Modules with attributes that have no hash equal themselves alone.

    Attributes:
      encoder: of networks without decoder, and of all where `in_autoencoder` is None.
      in_autoencoder: the encoder where the params have a decoder, if that is another one.
      make_decoder: compared by value, as the modules are.
      image_shape: of one image.
    """

    encoder: nn.Module
    in_autoencoder: nn.Module | None
    make_decoder: Callable[[], nn.Module]
    image_shape: ImageShape

    @functools.cached_property
    def _hash(self) -> int | None:
        try:
            return hash(self._values)
        except TypeError:
            return None

    @property
    def _values(self) -> tuple[object, ...]:
        return self.encoder, self.in_autoencoder, self.make_decoder, self.image_shape

    def __hash__(self) -> int:
        return id(self) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _Modules) or self._hash is None or self._hash != other._hash:
            return False
        return self._values == other._values

    @functools.cached_property
    def rep_dim(self) -> int:
        """The width of the representation, from shapes alone: nothing is computed."""

        def encode_nothing() -> Array:
            images = jnp.zeros((1, *self.image_shape), jnp.float32)
            arguments = _evaluation_arguments(self.encoder)
            return self.encoder.init_with_output(jax.random.key(0), images, **arguments)[0]

        return int(jax.eval_shape(encode_nothing).shape[-1])

    def _encoder(self, has_decoder: bool) -> nn.Module:
        other = self.in_autoencoder
        return other if has_decoder and other is not None else self.encoder

    def init(self, key: Array, with_decoder: bool = False) -> tuple[Params, BatchStats]:
        key_encoder, key_decoder = jax.random.split(key)
        images = jnp.zeros((1, *self.image_shape), jnp.float32)
        modules: list[tuple[str, nn.Module, Array, Array]] = [
            ("encoder", self._encoder(with_decoder), key_encoder, images)
        ]
        if with_decoder:
            embeddings = jnp.zeros((1, self.rep_dim), jnp.float32)
            modules.append(("decoder", self.make_decoder(), key_decoder, embeddings))
        params, statistics = {}, {}
        for part, module, key_part, values in modules:
            with jax.enable_x64(False):
                variables = module.init(key_part, values, **_evaluation_arguments(module))
            params[part] = variables["params"]
            statistics[part] = variables.get("batch_stats", {})
        return params, statistics

    def encode(self, params: Params, statistics: BatchStats, images: Array) -> Array:
        variables = {"params": params["encoder"], "batch_stats": statistics["encoder"]}
        module = self._encoder("decoder" in params)
        return _apply(module, variables, images, mask=None, train=False)

    def encode_batch(
        self, params: Params, images: Array, mask: Array | None = None, key: Array | None = None
    ) -> tuple[Array, BatchStats]:
        variables = {"params": params["encoder"]}
        intercepting = contextlib.nullcontext() if key is not None else _without_dropout()
        with intercepting:
            module = self._encoder("decoder" in params)
            embeddings, new = _apply(module, variables, images, mask=mask, train=True, key=key)
        return embeddings, new.get("batch_stats", {})

    def decode(self, params: Params, statistics: BatchStats, embeddings: Array) -> Array:
        variables = {"params": params["decoder"], "batch_stats": statistics["decoder"]}
        return _apply(self.make_decoder(), variables, embeddings, mask=None, train=False)

    def decode_batch(
        self, params: Params, embeddings: Array, mask: Array | None = None
    ) -> tuple[Array, BatchStats]:
        variables = {"params": params["decoder"]}
        # A step has one key, the encoder's.
        with _without_dropout():
            images, new = _apply(self.make_decoder(), variables, embeddings, mask=mask, train=True)
        return images, new.get("batch_stats", {})


@dataclasses.dataclass(frozen=True)
class _Method:
    """A method of modules, equal to that of equal modules, as a bound method is not."""

    modules: _Modules
    name: str

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return getattr(self.modules, self.name)(*arguments, **keywords)


def as_network(
    encoder: nn.Module,
    make_decoder: Callable[[], nn.Module],
    image_shape: ImageShape,
    in_autoencoder: nn.Module | None = None,
) -> Network:
    """Returns the pure functions of modules; networks of equal modules are equal.

    Args:
      encoder: of the network.
      make_decoder: compared by value, so a dataclass and no closure.
      image_shape: of one image.
      in_autoencoder: the encoder where the params have a decoder, if that is another one.
    """
    modules = _Modules(encoder, in_autoencoder, make_decoder, image_shape)
    return Network(
        init=_Method(modules, "init"),
        encode=_Method(modules, "encode"),
        encode_batch=_Method(modules, "encode_batch"),
        decode=_Method(modules, "decode"),
        decode_batch=_Method(modules, "decode_batch"),
        rep_dim=modules.rep_dim,
        image_shape=image_shape,
    )


def _apply(module: nn.Module, variables: dict[str, Any], values: Array, **arguments: Any) -> Any:
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
