"""Networks against plain flax layers in the published order, and the masks, shapes and draws."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import configs, convolution, recipes
from deepsvdd_jax.configs import ConfigError, NetworkConfig
from deepsvdd_jax.networks import (
    Network,
    build_network,
    network_from_module,
    without_decoder,
)

# What is compiled runs for a moment: most of the compiler's own work would be wasted.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
LAYOUTS = {
    "cifar10_lenet_small": "cifar10_lenet",
    "cifar10_lenet_elu": "cifar10_lenet",
    "itu_cnn": "mirror",
}
PUBLISHED: dict[str, tuple[NetworkConfig, tuple[int, int, int]]] = {
    config.name: (replace(config, decoder_layout=LAYOUTS.get(config.name, config.name)), shape)
    for config, shape in [
        (NetworkConfig("mnist_lenet", ((8,), (4,)), rep_dim=32), MNIST),
        (
            NetworkConfig(
                "mnist_lenet_wide",
                ((256,), (256,), (128,)),
                (320,),
                rep_dim=32,
                autoencoder_norm=True,
            ),
            MNIST,
        ),
        (NetworkConfig("cifar10_lenet", ((32,), (64,), (128,)), rep_dim=128), CIFAR),
        (NetworkConfig("cifar10_lenet_small", ((16,), (32,), (64,)), rep_dim=128), CIFAR),
        (
            NetworkConfig("cifar10_lenet_deep", ((16, 16), (32, 32), (64, 64)), rep_dim=128),
            CIFAR,
        ),
        (
            NetworkConfig(
                "cifar10_lenet_elu", ((32,), (64,), (128,)), rep_dim=128, activation="elu"
            ),
            CIFAR,
        ),
        (NetworkConfig("gtsrb_lenet", ((16,), (32,)), (64,), "activation", rep_dim=32), CIFAR),
        (
            NetworkConfig("fashion_mnist_lenet", ((16,), (32,)), (128,), "batch_norm", rep_dim=64),
            MNIST,
        ),
        (
            NetworkConfig(
                "itu_cnn",
                ((32,), (64,)),
                rep_dim=128,
                kernel_size=3,
                padding="valid",
                activation="relu",
                batch_norm=False,
                bias=True,
            ),
            MNIST,
        ),
    ]
}
SMALL = NetworkConfig("small", ((3, 5),), (7,), "batch_norm", rep_dim=4, kernel_size=3)
TABLE = NetworkConfig("mlp", (), (6, 5), rep_dim=3)


class PlainEncoder(nn.Module):
    """Convolution, normalisation, activation, pool, with flax's own layers."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, values: jax.Array, train: bool) -> jax.Array:
        config = self.config

        def normalize(values: jax.Array, name: str) -> jax.Array:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.0,
                epsilon=1e-4,
                use_bias=config.affine,
                use_scale=config.affine,
                name=name,
            )(values)

        def activate(values: jax.Array) -> jax.Array:
            kinds: dict[str, Callable] = {"relu": nn.relu, "elu": nn.elu}
            leaky = functools.partial(nn.leaky_relu, negative_slope=config.leaky_slope)
            return kinds.get(config.activation, leaky)(values)

        size = (config.kernel_size, config.kernel_size)
        for number, stage in enumerate(config.stages):
            for place, features in enumerate(stage):
                name = f"stage{number}_{place}"
                values = nn.Conv(
                    features,
                    size,
                    padding=config.padding.upper(),
                    use_bias=config.bias and not config.batch_norm,
                    name=name,
                )(values)
                if config.batch_norm:
                    values = normalize(values, f"{name}_norm")
                values = activate(values)
            values = nn.max_pool(values, (2, 2), (2, 2))
        values = values.reshape(values.shape[0], -1)
        style = config.hidden_style if config.stages else "activation"
        for number, features in enumerate(config.hidden):
            name = f"hidden{number}"
            values = nn.Dense(features, use_bias=config.bias, name=name)(values)
            if style == "batch_norm":
                values = normalize(values, f"{name}_norm")
            if style != "linear":
                values = activate(values)
        return nn.Dense(config.rep_dim, use_bias=config.bias, name="representation")(values)


def plain_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Renames our layers, or their statistics, to those of the plain networks."""
    renamed: dict[str, Any] = {}
    for name, layer in tree.items():
        inner = layer.get("linear", layer)
        weights = {key: value for key, value in inner.items() if key not in ("norm", "dense")}
        weights |= inner.get("dense", {})
        if weights:
            renamed[name] = weights
        if "norm" in layer:
            renamed[f"{name}_norm"] = layer["norm"]
    return renamed


def drawn_network(
    config: NetworkConfig, shape: tuple[int, ...], decoder: bool = False
) -> tuple[Network, dict[str, Any], dict[str, Any]]:
    """A network with weights in which biases, scales and offsets are not trivial.

    They are drawn here, since compiling the network's own draws takes longer than most tests.
    """
    network = build_network(config, shape)
    params, statistics = jax.eval_shape(lambda: network.init(jax.random.key(0), decoder))
    generator = np.random.default_rng(4)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            values = generator.normal(0.0, fan_in**-0.5, leaf.shape)
        else:
            # Some scales are negative.
            values = generator.normal(0.2, 1.0, leaf.shape)
        return values.astype(np.float32)

    def fresh(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.full(leaf.shape, path[-1].key == "var", np.float32)

    draws = jax.tree_util.tree_map_with_path(draw, params)
    return network, draws, jax.tree_util.tree_map_with_path(fresh, statistics)


def drawn_images(count: int, shape: tuple[int, ...], seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape)).astype(np.float32)


def in_float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Trees are equal up to a share of each leaf's largest value."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        scale = max(float(np.abs(other).max()), 1e-3)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


def named_leaves(tree: Any) -> Iterator[tuple[str, jax.Array]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(part.key for part in path), leaf


# --- the encoder --------------------------------------------------------------------------------

ENCODERS = [
    *PUBLISHED.values(),
    (SMALL, (9, 7, 2)),
    (replace(SMALL, affine=True), (9, 8, 2)),
    (replace(SMALL, affine=True, activation="relu"), (8, 8, 2)),
    (replace(SMALL, kernel_size=2, hidden_style="linear", leaky_slope=0.1), (8, 10, 2)),
    (replace(SMALL, batch_norm=False, bias=True, hidden_style="activation"), (8, 10, 5)),
    (TABLE, (6,)),
    (replace(TABLE, bias=True, activation="elu"), (6,)),
]


def network_name(value: Any) -> str | None:
    return value.name if isinstance(value, NetworkConfig) else None


@pytest.mark.parametrize(
    "config, shape",
    # Their layers are those of the ELU network, or fewer.
    [
        pytest.param(*one, marks=pytest.mark.slow)
        if one[0].name in ("cifar10_lenet", "cifar10_lenet_small")
        else one
        for one in ENCODERS
    ],
    ids=network_name,
)
def test_encoder_is_the_plain_one(config, shape):
    network, params, statistics = drawn_network(config, shape)
    images = drawn_images(3, shape)
    plain = PlainEncoder(config)
    weights = {"params": plain_names(params["encoder"])}

    @compiled
    def ours(params: Any) -> Any:
        embeddings, seen = network.encode_batch(params, images, None, None)
        return embeddings, seen, network.encode(params, {"encoder": seen}, images)

    @compiled
    def theirs(weights: Any) -> Any:
        embeddings, new = plain.apply(weights, images, True, mutable=["batch_stats"])
        return (
            embeddings,
            new.get("batch_stats", {}),
            plain.apply({**weights, **new}, images, False),
        )

    embeddings, seen, evaluated = ours(params)
    plain_codes, plain_seen, plain_evaluated = theirs(weights)
    assert embeddings.shape == (3, config.rep_dim) and network.rep_dim == config.rep_dim
    assert_close(embeddings, plain_codes)
    assert_close(plain_names(seen), plain_seen)
    assert_close(evaluated, plain_evaluated)
    assert jax.tree.structure(seen) == jax.tree.structure(statistics["encoder"])
    assert np.abs(embeddings).max() > 1e-2


@pytest.mark.parametrize(
    "config, shape",
    [
        pytest.param(SMALL, (9, 7, 2), marks=pytest.mark.slow),
        (replace(SMALL, affine=True), (8, 8, 2)),
        ENCODERS[-3],
        ENCODERS[-2],
    ],
    ids=network_name,
)
def test_gradients_are_the_plain_encoders(config, shape):
    network, params, _ = drawn_network(config, shape)
    images = drawn_images(5, shape)
    plain = PlainEncoder(config)

    def ours(params: Any) -> jax.Array:
        return jnp.sum(jnp.square(network.encode_batch(params, images, None, None)[0] - 0.3))

    def theirs(weights: Any) -> jax.Array:
        embeddings, _ = plain.apply({"params": weights}, images, True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(embeddings - 0.3))

    # Gradients through a normalisation are differences of large numbers.
    with jax.enable_x64(True):
        params, images = in_float64(params), in_float64(images)
        gradients = plain_names(compiled(jax.grad(ours))(params)["encoder"])
        expected = compiled(jax.grad(theirs))(plain_names(params["encoder"]))
        assert_close(gradients, expected, 1e-10)


def test_statistics_are_numpys_biased_moments():
    config, shape = PUBLISHED["mnist_lenet"]
    network, params, _ = drawn_network(config, shape)
    images = drawn_images(4, shape)
    _, statistics = compiled(network.encode_batch)(params, images, None, None)
    seen = statistics["stage0_0"]["norm"]
    kernel = np.asarray(params["encoder"]["stage0_0"]["kernel"], np.float64)
    wide = np.pad(np.asarray(images, np.float64), ((0, 0), (2, 2), (2, 2), (0, 0)))
    output = sum(wide[:, i : i + 28, j : j + 28] @ kernel[i, j] for i in range(5) for j in range(5))
    np.testing.assert_allclose(seen["mean"], output.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen["var"], output.var((0, 1, 2)), rtol=1e-5, atol=1e-6)


def test_fresh_statistics_are_mean_0_and_variance_1():
    _, statistics = compiled(build_network(SMALL, (8, 8, 2)).init, static_argnums=1)(
        jax.random.key(0), True
    )
    # Two convolutions and a dense layer; the mirror's dense layer and all convolutions but one.
    assert len(jax.tree.leaves(statistics["encoder"])) == 2 * 3
    assert len(jax.tree.leaves(statistics["decoder"])) == 2 * 3
    for name, leaf in named_leaves(statistics):
        np.testing.assert_array_equal(leaf, 1.0 if name.endswith("var") else 0.0)


@pytest.mark.parametrize(
    "config, shape",
    [
        (SMALL, (9, 7, 2)),
        pytest.param(replace(SMALL, affine=True), (8, 8, 2), marks=pytest.mark.slow),
        (ENCODERS[-3]),
        (TABLE, (6,)),
        (replace(TABLE, bias=True), (6,)),
    ],
    ids=network_name,
)
def test_padded_rows_change_nothing(config, shape):
    network, params, _ = drawn_network(config, shape, decoder=True)
    images = drawn_images(4, shape)
    mask = np.asarray([True] + [False] * 4 + [True] * 3)

    def loss(params: Any, images: jax.Array, mask: jax.Array | None) -> Any:
        embeddings, encoder = network.encode_batch(params, images, mask, None)
        outputs, decoder = network.decode_batch(params, embeddings, mask)
        if mask is not None:
            embeddings, outputs = (
                embeddings[np.asarray([0, 5, 6, 7])],
                outputs[np.asarray([0, 5, 6, 7])],
            )
        seen = embeddings, outputs, encoder, decoder
        return jnp.sum(jnp.square(embeddings - 0.2)) + jnp.sum(jnp.square(outputs - 0.7)), seen

    graded = jax.grad(loss, has_aux=True)
    with jax.enable_x64(True):
        params, images = in_float64(params), in_float64(images)
        wanted, wanted_seen = compiled(graded, static_argnums=2)(params, images, None)
        masked = compiled(graded)
        for filling in (50.0, math.nan):
            padding = np.full_like(images, filling)
            padded = np.concatenate([images[:1], padding, images[1:]])
            gradients, seen = masked(params, padded, mask)
            assert_close(seen, wanted_seen, 1e-10)
            assert_close(gradients, wanted, 1e-10)


def test_a_batch_of_padding_has_finite_statistics():
    network, params, _ = drawn_network(SMALL, (8, 8, 2))
    images = drawn_images(3, (8, 8, 2))
    _, seen = compiled(network.encode_batch)(params, images, np.zeros(3, bool), None)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))


# --- weights ------------------------------------------------------------------------------------

KERNELS = {
    "mnist_lenet": 25 * (8 + 8 * 4) + 7 * 7 * 4 * 32,
    "mnist_lenet_wide": 25 * (256 + 256 * 256 + 256 * 128) + 3 * 3 * 128 * 320 + 320 * 32,
    "cifar10_lenet": 25 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * 4 * 128 * 128,
    "cifar10_lenet_small": 25 * (3 * 16 + 16 * 32 + 32 * 64) + 4 * 4 * 64 * 128,
    "cifar10_lenet_deep": 25 * (48 + 256 + 512 + 1024 + 2048 + 4096) + 4 * 4 * 64 * 128,
    "cifar10_lenet_elu": 25 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * 4 * 128 * 128,
    "gtsrb_lenet": 25 * (3 * 16 + 16 * 32) + 8 * 8 * 32 * 64 + 64 * 32,
    "fashion_mnist_lenet": 25 * (16 + 16 * 32) + 7 * 7 * 32 * 128 + 128 * 64,
    "itu_cnn": 223_744,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_weights(name):
    network = build_network(*PUBLISHED[name])
    params, _ = jax.eval_shape(lambda: network.init(jax.random.key(0), False))
    assert set(params) == {"encoder"}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == KERNELS[name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "itu_cnn"])
def test_no_bias_anywhere(name):
    network = build_network(*PUBLISHED[name])
    params, _ = jax.eval_shape(lambda: network.init(jax.random.key(0), True))
    assert set(params) == {"encoder", "decoder"}
    assert {path.rsplit("/", 1)[-1] for path, _ in named_leaves(params)} == {"kernel"}


def fans(kernel: jax.Array) -> tuple[int, int]:
    window = math.prod(kernel.shape[:-2])
    return window * kernel.shape[-2], window * kernel.shape[-1]


@pytest.mark.parametrize("initializer", ["glorot", "torch"])
def test_ranges_of_the_draws(initializer):
    config = replace(PUBLISHED["cifar10_lenet_small"][0], initializer=initializer)
    params, _ = compiled(build_network(config, CIFAR).init, static_argnums=1)(
        jax.random.key(7), True
    )
    large = 0
    for _, kernel in named_leaves(params):
        fan_in, fan_out = fans(kernel)
        gain = math.sqrt(2 / (1 + 0.01**2)) if kernel.ndim == 4 else 1.0
        glorot = gain * math.sqrt(6 / (fan_in + fan_out))
        bound = glorot if initializer == "glorot" else 1 / math.sqrt(fan_in)
        kernel = np.asarray(kernel)
        assert np.abs(kernel).max() <= bound * 1.000001
        if kernel.size > 10_000:
            large += 1
            assert kernel.max() > 0.99 * bound and kernel.min() < -0.99 * bound
            assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert large >= 5


def test_draws_depend_on_the_key_and_the_encoders_not_on_the_decoder():
    network = build_network(SMALL, (8, 8, 2))
    draw = compiled(network.init, static_argnums=1)
    with_decoder, alone = (draw(jax.random.key(0), decoder)[0] for decoder in (True, False))
    for (_, one), (_, other) in zip(
        named_leaves(with_decoder["encoder"]), named_leaves(alone["encoder"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    other_key = draw(jax.random.key(1), False)[0]
    for (_, one), (_, other) in zip(named_leaves(alone), named_leaves(other_key), strict=True):
        assert not np.allclose(one, other)


# --- decoders -----------------------------------------------------------------------------------

# Kernels of the decoders in their order (dense: in x out; convolutions: features), what has a
# batch normalisation of its own, from the table of the published decoders.
DECODERS = {
    "mnist_lenet": ([], [(2, 4), (4, 8), (8, 1)], {"layer0", "layer1"}),
    "mnist_lenet_wide": (
        [(32, 320)],
        [(20, 128), (128, 256), (256, 256), (256, 1)],
        {"code", "layer0", "layer1", "layer2"},
    ),
    "cifar10_lenet": (
        [],
        [(8, 128), (128, 64), (64, 32), (32, 3)],
        {"layer0", "layer1", "layer2", "layer3"},
    ),
    "cifar10_lenet_small": (
        [],
        [(8, 64), (64, 32), (32, 16), (16, 3)],
        {"layer0", "layer1", "layer2", "layer3"},
    ),
    "cifar10_lenet_deep": (
        [],
        [(32, 64), (64, 64), (64, 32), (32, 32), (32, 16), (16, 16), (16, 3)],
        {f"layer{number}" for number in range(7)},
    ),
    "fashion_mnist_lenet": (
        [(64, 128)],
        [(8, 32), (32, 16), (16, 1)],
        {"code", "layer0", "layer1"},
    ),
    "gtsrb_lenet": ([(32, 64)], [(1, 32), (32, 16), (16, 3)], {"layer0", "layer1", "layer2"}),
}


@pytest.mark.parametrize("name", DECODERS)
def test_published_decoders(name):
    config, shape = PUBLISHED[name]
    network = build_network(config, shape)
    params, statistics = jax.eval_shape(lambda: network.init(jax.random.key(0), True))
    dense, convolutions, normalized = DECODERS[name]
    decoder = params["decoder"]
    found = [decoder[f"hidden{i}"]["linear"]["dense"]["kernel"].shape for i in range(len(dense))]
    assert found == dense
    found = [decoder[f"layer{i}"]["kernel"].shape for i in range(len(convolutions))]
    assert found == [(5, 5, *features) for features in convolutions]
    assert len(decoder) == len(dense) + len(convolutions)
    seen = {"code" if layer == "norm" else layer for layer in statistics["decoder"]}
    assert seen == normalized


@pytest.mark.parametrize(
    "name, normalized",
    [
        ("cifar10_lenet", {"norm", "layer0", "layer1", "layer2"}),
        ("mnist_lenet", {"layer0", "layer1"}),
    ],
)
def test_pytorch_decoders(name, normalized):
    config, shape = PUBLISHED[name]
    network = build_network(replace(config, decoder="pytorch"), shape)
    _, statistics = jax.eval_shape(lambda: network.init(jax.random.key(0), True))
    assert set(statistics["decoder"]) == normalized


@pytest.mark.parametrize(
    "config, shape",
    [
        *(value for name, value in PUBLISHED.items() if name != "itu_cnn"),
        *(
            (replace(SMALL, kernel_size=size), shape)
            for size in (1, 2, 3, 5)
            for shape in [(9, 7, 1), (15, 15, 2), (8, 10, 3), (4, 5, 1)]
        ),
        (NetworkConfig(), (11, 13, 2)),
        (replace(PUBLISHED["mnist_lenet"][0], rep_dim=30), MNIST),
        (PUBLISHED["mnist_lenet"][0], (27, 29, 3)),
        (TABLE, (6,)),
    ],
    ids=network_name,
)
def test_decoders_return_the_images_shape(config, shape):
    network = build_network(config, shape)

    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, statistics = network.init(key, True)
        embeddings = jnp.zeros((2, config.rep_dim))
        images, _ = network.decode_batch(params, embeddings, None)
        return network.decode(params, statistics, embeddings), images

    for images in jax.eval_shape(both, jax.random.key(0)):
        assert images.shape == (2, *shape)


def decoder_shapes(config: NetworkConfig, shape: tuple[int, ...]) -> Any:
    network = build_network(config, shape)
    params, statistics = jax.eval_shape(lambda: network.init(jax.random.key(0), True))
    return jax.tree.map(lambda leaf: leaf.shape, (params["decoder"], statistics["decoder"]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_networks_name_decides_nothing(name):
    config, shape = PUBLISHED[name]
    if name != "itu_cnn":
        other = replace(config, name="mine")
        assert decoder_shapes(other, shape) == decoder_shapes(config, shape)
    assert recipes.NETWORKS[name].decoder_layout == config.decoder_layout


# What the decoders of saved networks had before their settings named a layout: kernels of the
# convolutions, and whether the output and the code were normalised, of theano's and pytorch's.
OLD_DECODERS = {
    "mnist_lenet": (3, (False, False), (False, False)),
    "mnist_lenet_wide": (4, (False, True), (False, True)),
    "cifar10_lenet": (4, (True, False), (False, True)),
    "cifar10_lenet_elu": (4, (True, False), (False, True)),
    "cifar10_lenet_small": (4, (False, False), (False, False)),
    "cifar10_lenet_deep": (7, (False, False), (False, False)),
    "gtsrb_lenet": (3, (True, False), (False, False)),
    "fashion_mnist_lenet": (3, (False, False), (False, False)),
}


@pytest.mark.parametrize("decoder", ["theano", "pytorch"])
@pytest.mark.parametrize("name", OLD_DECODERS)
def test_saved_settings_without_a_layout_have_the_decoder_of_then(name, decoder):
    config, shape = PUBLISHED[name]
    saved = configs.to_dict(replace(config, decoder=decoder))
    del saved["decoder_layout"]
    found = configs.from_dict(NetworkConfig, saved)
    kernels, statistics = decoder_shapes(found, shape)
    layers, *normalized = OLD_DECODERS[name]
    assert len([layer for layer in kernels if layer.startswith("layer")]) == layers
    output, code = normalized[decoder == "pytorch"]
    assert (f"layer{layers - 1}" in statistics) == output
    assert ("norm" in statistics) == code
    if name == "fashion_mnist_lenet":
        # The mirror: 64 -> 128 -> 7 x 7 x 1.
        assert kernels["hidden1"]["linear"]["dense"]["kernel"] == (128, 49)


# --- encoders of autoencoders -------------------------------------------------------------------

# An encoder that numpy can follow: a convolution of one pixel, a pool, a dense layer of 5.
WIDE = NetworkConfig("wide", ((2,),), (5,), rep_dim=3, kernel_size=1, autoencoder_norm=True)


def in_numpy(params: dict[str, Any], images: np.ndarray, in_autoencoder: bool) -> np.ndarray:
    """The encoder of `WIDE` under the statistics of the batch, in float64: the dense layer is
    normalised in an autoencoder only, and not activated (Theano code, MNIST architecture 2)."""

    def normalized(values: np.ndarray) -> np.ndarray:
        axes = tuple(range(values.ndim - 1))
        return (values - values.mean(axes)) / np.sqrt(values.var(axes) + 1e-4)

    kernels = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["encoder"])
    values = normalized(images.astype(np.float64) @ kernels["stage0_0"]["kernel"][0, 0])
    values = np.where(values > 0, values, 0.01 * values)
    n, height, width, channels = values.shape
    values = values.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    values = values.reshape(n, -1) @ kernels["hidden0"]["linear"]["dense"]["kernel"]
    if in_autoencoder:
        values = normalized(values)
    return values @ kernels["representation"]["dense"]["kernel"]


@pytest.mark.parametrize("in_autoencoder", [True, False])
def test_the_wide_encoder_normalises_its_dense_layer_in_an_autoencoder(in_autoencoder):
    network, params, _ = drawn_network(WIDE, (4, 4, 2), decoder=in_autoencoder)
    images = drawn_images(6, (4, 4, 2))
    embeddings, seen = compiled(network.encode_batch)(params, images, None, None)
    expected = in_numpy(params, np.asarray(images), in_autoencoder)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
    # With the statistics of the batch, evaluation repeats the training mode.
    again = compiled(network.encode)(params, {"encoder": seen}, images)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_leaves_its_autoencoder_without_what_it_has_there_only():
    init = build_network(replace(WIDE, affine=True), (4, 4, 2)).init
    with_decoder, alone = (
        jax.eval_shape(functools.partial(init, jax.random.key(0), decoder))
        for decoder in (True, False)
    )
    assert tuple(without_decoder(tree) for tree in with_decoder) == alone
    # The affine normalisation of the autoencoder has a scale and an offset of its own.
    extra = set(with_decoder[0]["encoder"]) - set(alone[0]["encoder"])
    assert len(extra) == 1 and set(with_decoder[0]["encoder"][extra.pop()]) == {"norm"}


def test_the_published_wide_network_has_four_normalisations_in_an_autoencoder_and_three_alone():
    init = build_network(recipes.NETWORKS["mnist_lenet_wide"], MNIST).init
    counts = [
        len(jax.eval_shape(functools.partial(init, jax.random.key(0), decoder))[1]["encoder"])
        for decoder in (True, False)
    ]
    assert counts == [4, 3]
    without = replace(recipes.NETWORKS["mnist_lenet_wide"], batch_norm=False)
    shapes = jax.eval_shape(lambda: build_network(without, MNIST).init(jax.random.key(0), True)[1])
    assert shapes["encoder"] == {}


def test_saved_settings_without_the_normalisation_have_none():
    saved = configs.to_dict(recipes.NETWORKS["mnist_lenet_wide"])
    del saved["autoencoder_norm"]
    assert not configs.from_dict(NetworkConfig, saved).autoencoder_norm


@pytest.mark.parametrize("stages, hidden", [((), (5,)), (((2,),), ())])
def test_a_normalisation_of_dense_layers_that_are_not_there_is_refused(stages, hidden):
    with pytest.raises(ConfigError, match="autoencoder_norm needs stages and hidden layers"):
        replace(WIDE, stages=stages, hidden=hidden)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
@pytest.mark.parametrize("initializer", ["torch", "torch_xavier"])
def test_torchs_draws(initializer, activation):
    """torch draws uniformly in +-1/sqrt(fan_in); for a transposed convolution that counts the
    features that go out. The CIFAR-10 autoencoders of the PyTorch code draw convolutions of both
    kinds by Xavier, with the gain of a leaky ReLU or 1 before an ELU, and leave the dense layer."""
    config = replace(
        PUBLISHED["cifar10_lenet_small"][0],
        initializer=initializer,
        decoder="pytorch",
        activation=activation,
    )
    params, _ = compiled(build_network(config, CIFAR).init, static_argnums=1)(
        jax.random.key(7), True
    )
    gain = 1.0 if activation == "elu" else math.sqrt(2 / (1 + 0.01**2))
    for part in ("encoder", "decoder"):
        for name, kernel in named_leaves(params[part]):
            fan_in, fan_out = fans(kernel)
            bound = 1 / math.sqrt(fan_in)
            if kernel.ndim == 4:
                bound = 1 / math.sqrt(fan_out if part == "decoder" else fan_in)
                if initializer == "torch_xavier":
                    bound = gain * math.sqrt(6 / (fan_in + fan_out))
            values = np.abs(np.asarray(kernel))
            assert 0.95 * bound < values.max() <= bound * 1.000001, (part, name)


def plain_upscaling(
    config: NetworkConfig,
    params: dict[str, Any],
    start: tuple[int, int, int],
    paddings: list[Any],
    doubles: list[bool],
    crops: list[tuple[int, int] | None],
    normalize_last: bool,
) -> Callable[[jax.Array], jax.Array]:
    """The decoder from nearest-neighbour upscaling and flax's convolution and normalisation."""

    def decode(embeddings: jax.Array) -> jax.Array:
        values = nn.leaky_relu(embeddings.reshape(-1, *start), config.leaky_slope)
        for number, (padding, double, crop) in enumerate(
            zip(paddings, doubles, crops, strict=True)
        ):
            if double:
                batch, height, width, channels = values.shape
                larger = (batch, 2 * height, 2 * width, channels)
                values = jax.image.resize(values, larger, "nearest")
            kernel = params[f"layer{number}"]["kernel"]
            layer = nn.Conv(kernel.shape[3], kernel.shape[:2], padding=padding, use_bias=False)
            values = layer.apply({"params": {"kernel": kernel}}, values)
            if crop is not None:
                values = values[:, : crop[0], : crop[1]]
            last = number == len(paddings) - 1
            if not last or normalize_last:
                norm = nn.BatchNorm(False, epsilon=1e-4, use_bias=False, use_scale=False)
                values, _ = norm.init_with_output(jax.random.key(0), values)
            if not last:
                values = nn.leaky_relu(values, config.leaky_slope)
        return nn.sigmoid(values)

    return decode


@pytest.mark.parametrize(
    "name, start, paddings, doubles, normalize_last",
    [
        ("mnist_lenet", (4, 4, 2), [2, 1, 2], [True] * 3, False),
        # The small network has these layers, with fewer features.
        pytest.param(
            *("cifar10_lenet", (4, 4, 8), [2] * 4, [False, True, True, True], True),
            marks=pytest.mark.slow,
        ),
        ("cifar10_lenet_deep", (2, 2, 32), [2] * 7, [True, False] * 3 + [True], True),
        ("cifar10_lenet_small", (4, 4, 8), [2] * 4, [False, True, True, True], True),
    ],
)
def test_published_decoder_is_the_plain_upscaling(name, start, paddings, doubles, normalize_last):
    config, shape = PUBLISHED[name]
    network, params, _ = drawn_network(config, shape, decoder=True)
    embeddings = drawn_images(3, (config.rep_dim,)) - 0.5
    images, seen = compiled(network.decode_batch)(params, embeddings, None)
    plain = plain_upscaling(
        config,
        params["decoder"],
        start,
        paddings=paddings,
        doubles=doubles,
        crops=[None] * len(paddings),
        normalize_last=normalize_last,
    )
    assert_close(images, compiled(plain)(embeddings))
    assert images.shape == (3, *shape)
    assert 0.0 < float(images.min()) < float(images.max()) < 1.0
    # With the statistics of the batch, evaluation repeats the training mode.
    again = compiled(network.decode)(params, {"decoder": seen}, embeddings)
    assert_close(again, images)


def test_mirrored_decoder_crops_what_the_pool_left_out():
    """9x7 images are halved to 5x4, then 3x2 by the mirror; doubling gives 6x4 and 10x8."""
    config = NetworkConfig("odd", ((4,), (3,)), rep_dim=12)
    network, params, _ = drawn_network(config, (9, 7, 2), decoder=True)
    embeddings = drawn_images(3, (12,)) - 0.5
    crops = [None, (5, 4), (9, 7)]
    plain = plain_upscaling(
        config,
        params["decoder"],
        (3, 2, 2),
        paddings=[2] * 3,
        doubles=[False, True, True],
        crops=crops,
        normalize_last=False,
    )
    images, _ = compiled(network.decode_batch)(params, embeddings, None)
    assert_close(images, compiled(plain)(embeddings))


def test_a_tables_decoder_is_not_squashed():
    network, params, _ = drawn_network(TABLE, (6,), decoder=True)
    embeddings = drawn_images(4, (3,)) * 40 - 20
    weights = params["decoder"]
    values = np.asarray(embeddings, np.float64)
    leaky = lambda values: np.where(values > 0, values, 0.01 * values)  # noqa: E731
    for layer in ("hidden0", "hidden1"):
        kernel = weights[layer]["linear"]["dense"]["kernel"]
        values = leaky(
            leaky(values) @ np.asarray(kernel) if layer == "hidden0" else values @ kernel
        )
    expected = values @ np.asarray(weights["output"]["dense"]["kernel"])
    assert weights["hidden0"]["linear"]["dense"]["kernel"].shape == (3, 5)
    np.testing.assert_allclose(
        network.decode_batch(params, embeddings, None)[0], expected, rtol=1e-4, atol=1e-4
    )
    assert float(np.abs(expected).max()) > 1.0


# --- what is refused ----------------------------------------------------------------------------


def test_valid_convolutions_have_no_decoder():
    network = build_network(*PUBLISHED["itu_cnn"])
    with pytest.raises(ConfigError, match="itu_cnn.*padding=same.*pretrain_epochs=0"):
        network.init(jax.random.key(0), True)


@pytest.mark.parametrize(
    "config, shape, words",
    [
        (PUBLISHED["mnist_lenet"][0], (6,), "mnist_lenet takes images.*tables"),
        (TABLE, (8, 8, 1), "mlp takes tables.*images"),
        (PUBLISHED["cifar10_lenet"][0], (7, 32, 3), "halves images 3 times; 7x32"),
        (PUBLISHED["cifar10_lenet"][0], (32, 7, 3), "halves images 3 times; 32x7"),
        (PUBLISHED["itu_cnn"][0], (9, 9, 1), "halves images 2 times; 9x9"),
    ],
)
def test_images_that_do_not_fit_are_refused(config, shape, words):
    with pytest.raises(ConfigError, match=words):
        build_network(config, shape)


@pytest.mark.parametrize(
    "config, shape",
    [(PUBLISHED["cifar10_lenet"][0], (8, 8, 3)), (PUBLISHED["itu_cnn"][0], (10, 10, 1))],
    ids=network_name,
)
def test_the_smallest_images_pass(config, shape):
    network = build_network(config, shape)
    assert network.rep_dim == config.rep_dim and network.image_shape == shape


# --- dropout ------------------------------------------------------------------------------------


def test_dropout_draws_from_the_key_in_training_only():
    network, params, statistics = drawn_network(replace(SMALL, dropout=0.5), (8, 8, 2))
    images = drawn_images(4, (8, 8, 2))
    train = compiled(lambda key: network.encode_batch(params, images, None, key)[0])
    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    evaluate, without = map(compiled, (network.encode, build_network(SMALL, (8, 8, 2)).encode))
    np.testing.assert_array_equal(
        evaluate(params, statistics, images), without(params, statistics, images)
    )


def test_dropout_on_all_drops_the_images_and_the_input_of_every_layer_once():
    """Ones through kernels that pass them on: what is zero in a representation of one pixel."""
    config = NetworkConfig(
        "copy", ((1,), (1,)), rep_dim=1, kernel_size=1, batch_norm=False, dropout=0.5
    )
    images = jnp.ones((20_000, 4, 4, 1))

    def kept(on: str) -> np.ndarray:
        network = build_network(replace(config, dropout_on=on), (4, 4, 1))
        params, _ = jax.eval_shape(lambda: network.init(jax.random.key(0), False))
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
        embeddings = compiled(lambda key: network.encode_batch(ones, images, None, key)[0])
        return np.asarray(embeddings(jax.random.key(1)))[:, 0]

    of_dense, of_all = kept("dense"), kept("all")
    np.testing.assert_allclose(of_dense.mean(), 1.0, atol=0.02)
    np.testing.assert_allclose((of_dense == 0).mean(), 0.5, atol=0.02)
    # Pools take a maximum: of 4 pixels one is left, or none of the 4 of a window is.
    window = 1 - 0.2**4
    stage = 0.5 * window
    one_is_left = 1 - (1 - stage) ** 4
    np.testing.assert_allclose((of_all != 0).mean(), 0.5 * one_is_left, atol=0.015)
    assert set(np.round(np.unique(of_all), 4)) == {0.0, round(1 / 0.8 / 0.5 / 0.5, 4)}


# --- a user's modules ---------------------------------------------------------------------------


class Bare(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(4, use_bias=False)(images.reshape(images.shape[0], -1))


def test_only_networks_without_dropout_are_known_to_draw_nothing():
    assert not build_network(SMALL, (8, 8, 2)).stochastic
    assert build_network(replace(SMALL, dropout=0.5), (8, 8, 2)).stochastic
    assert build_network(Bare(), (8, 8, 2)).stochastic


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        values = nn.Dropout(0.5, deterministic=not train)(images.reshape(images.shape[0], -1))
        return nn.Dense(4, use_bias=False)(values)


def test_dropout_of_a_module_is_left_out_where_there_is_no_key():
    network, params, statistics = drawn_network(Dropping(), (3, 2, 2))
    images = drawn_images(4, (3, 2, 2))
    whole = network.encode(params, statistics, images)
    np.testing.assert_array_equal(network.encode_batch(params, images)[0], whole)
    dropped = network.encode_batch(params, images, None, jax.random.key(0))[0]
    assert not np.allclose(dropped, whole)


class DroppingDecoder(nn.Module):
    @nn.compact
    def __call__(self, embeddings: jax.Array, train: bool) -> jax.Array:
        values = nn.Dense(12, use_bias=False)(embeddings)
        return nn.Dropout(0.5, deterministic=not train)(values).reshape(-1, 3, 2, 2)


def test_a_decoder_has_no_key_to_drop_with():
    network = network_from_module(Dropping(), (3, 2, 2), DroppingDecoder())
    params, statistics = network.init(jax.random.key(0), True)
    embeddings = drawn_images(4, (4,))
    found = network.decode_batch(params, embeddings)[0]
    np.testing.assert_array_equal(found, network.decode(params, statistics, embeddings))
    dense = embeddings @ params["decoder"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(found.reshape(4, 12), dense, rtol=1e-5)


class Trained(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        values = nn.Dense(4, use_bias=False)(images.reshape(images.shape[0], -1))
        return nn.BatchNorm(use_running_average=not train, momentum=0.0)(values)


class Masked(nn.Module):
    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        values = nn.Dense(4, use_bias=False)(images.reshape(images.shape[0], -1))
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.0)
        return norm(values, mask=None if mask is None else mask[:, None])


class Upwards(nn.Module):
    @nn.compact
    def __call__(self, embeddings: jax.Array) -> jax.Array:
        return nn.Dense(12, use_bias=False)(embeddings).reshape(-1, 3, 2, 2)


@pytest.mark.parametrize("module", [Bare(), Trained(), Masked()], ids=lambda m: type(m).__name__)
def test_a_users_module(module):
    network = build_network(module, (3, 2, 2))
    assert network.rep_dim == 4 and network.image_shape == (3, 2, 2)
    params, statistics = network.init(jax.random.key(0), False)
    images = drawn_images(5, (3, 2, 2))
    mask = jnp.asarray([True, True, False, True, True])
    dense = images.reshape(5, 12) @ params["encoder"]["Dense_0"]["kernel"]
    embeddings, seen = network.encode_batch(params, images, mask, None)
    if isinstance(module, Bare):
        assert seen == statistics["encoder"] == {}
        np.testing.assert_allclose(embeddings, dense, rtol=1e-6)
        return
    kept = np.asarray(dense, np.float64)[np.asarray(mask) | isinstance(module, Trained)]
    np.testing.assert_allclose(seen["BatchNorm_0"]["mean"], kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen["BatchNorm_0"]["var"], kept.var(0), rtol=1e-4)
    expected = (dense - kept.mean(0)[None]) / np.sqrt(kept.var(0)[None] + 1e-5)
    np.testing.assert_allclose(embeddings[:2], expected[:2], rtol=1e-4, atol=1e-5)
    evaluated = network.encode(params, statistics, images)
    np.testing.assert_allclose(evaluated, dense / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_a_users_decoder():
    network = network_from_module(Bare(), (3, 2, 2), Upwards())
    params, statistics = network.init(jax.random.key(0), True)
    embeddings = drawn_images(5, (4,))
    expected = (embeddings @ params["decoder"]["Dense_0"]["kernel"]).reshape(5, 3, 2, 2)
    np.testing.assert_allclose(network.decode(params, statistics, embeddings), expected, rtol=1e-6)
    outputs, seen = network.decode_batch(params, embeddings, None)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert seen == {}


def test_a_users_module_without_a_decoder_says_so():
    network = build_network(Bare(), (3, 2, 2))
    with pytest.raises(ConfigError, match="Bare has no decoder.*network_from_module"):
        network.init(jax.random.key(0), True)


class Weighted(Bare):
    weights: np.ndarray | None = None


def test_a_network_that_is_built_again_is_compiled_once():
    traced = []

    @functools.partial(jax.jit, static_argnames="network")
    def encode(network, params, statistics, images):
        traced.append(network.image_shape)
        return network.encode(params, statistics, images)

    for shape in ((3, 2, 2), (3, 2, 2), (4, 2, 2)):
        network = network_from_module(Bare(), shape)
        encode(network, *network.init(jax.random.key(0), False), drawn_images(2, shape))
    assert traced == [(3, 2, 2), (4, 2, 2)]


def test_networks_are_equal_as_their_modules_are():
    bare = network_from_module(Bare(), (3, 2, 2))
    assert bare == network_from_module(Bare(), (3, 2, 2))
    assert bare != network_from_module(Bare(), (3, 2, 2), Upwards())
    assert bare != bare._replace(encode=bare.decode)
    # Arrays have no hash.
    weighted = Weighted(np.ones(3))
    network = network_from_module(weighted, (3, 2, 2))
    assert hash(network) == hash(network) and network == network._replace()
    assert network != network_from_module(weighted, (3, 2, 2))


# --- elsewhere ----------------------------------------------------------------------------------


def test_encoder_elsewhere_than_on_a_cpu():
    network, params, _ = drawn_network(SMALL, (8, 8, 2))
    images = drawn_images(4, (8, 8, 2))
    here = compiled(lambda: network.encode_batch(params, images, None, None))()
    with convolution.lowered_for("cuda"):
        elsewhere = compiled(lambda: network.encode_batch(params, images, None, None))()
    assert_close(elsewhere, here)
