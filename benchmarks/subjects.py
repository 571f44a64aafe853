"""Parts that benchmarks share: networks by name, their layers as PyTorch needs them, tables."""

import functools
import importlib.metadata
import importlib.util
import itertools
import os
import pathlib
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import NetworkConfig
from deepsvdd_jax.networks import ImageShape


class BenchmarkError(ValueError):
    """A wrong flag or a missing extra; the message says what is allowed."""


class Layer(NamedTuple):
    """The settings of a layer that PyTorch and the count of operations need.

    Attributes:
      kind: `convolution`, `dense`, `reshape` (embeddings to small images) or `activation`.
      inputs: channels or features that come in.
      outputs: channels or features that go out.
      side: of the square output map, before pooling; 1 for a dense layer.
      kernel: side of the kernel; 1 for a dense layer.
      padding: zeros on every side, around the enlarged image where there is one.
      upsample: the image is doubled first (nearest neighbour).
      normalize: batch normalisation follows.
      activation: `linear`, `leaky_relu`, `relu` or `sigmoid`, after the normalisation.
      pool: a 2x2 maximum ends the layer.
      bias: a bias is added.
    """

    kind: str
    inputs: int = 0
    outputs: int = 0
    side: int = 1
    kernel: int = 1
    padding: int = 0
    upsample: bool = False
    normalize: bool = False
    activation: str = "linear"
    pool: bool = False
    bias: bool = False


class Subject(NamedTuple):
    """A network to measure, its input, a number of images for its timing, and its usual
    objectives."""

    config: NetworkConfig
    shape: ImageShape
    images: int
    objectives: tuple[str, ...] = ("one-class",)


SUBJECTS = {
    "mnist_lenet": Subject(
        NetworkConfig(
            name="mnist_lenet", stages=((8,), (4,)), rep_dim=32, decoder_layout="mnist_lenet"
        ),
        (28, 28, 1),
        6000,
        ("one-class", "autoencoder"),
    ),
    "cifar10_lenet": Subject(
        NetworkConfig(name="cifar10_lenet", stages=((32,), (64,), (128,)), rep_dim=128),
        (32, 32, 3),
        400,
    ),
    "itu_cnn": Subject(
        NetworkConfig(
            name="itu_cnn",
            stages=((32,), (64,)),
            rep_dim=128,
            kernel_size=3,
            padding="valid",
            activation="relu",
            batch_norm=False,
            bias=True,
        ),
        (28, 28, 1),
        2000,
    ),
    "mlp": Subject(
        NetworkConfig(name="mlp", stages=(), hidden=(128, 64), rep_dim=32, batch_norm=False),
        (64,),
        6000,
    ),
    "lenet": Subject(
        NetworkConfig(name="lenet", stages=((32,), (16,)), rep_dim=32, kernel_size=3),
        (8, 8, 1),
        150,
    ),
}


def encoder_layers(config: NetworkConfig, shape: ImageShape) -> list[Layer]:
    """Returns the layers of an encoder for square images, or for tables `(features,)`."""
    kernel, padding = config.kernel_size, config.kernel_size // 2 if config.padding == "same" else 0
    layers, side, channels = [], shape[0], shape[-1]
    for stage in config.stages:
        for place, features in enumerate(stage):
            side, pool = side + 2 * padding - kernel + 1, place == len(stage) - 1
            layers.append(
                Layer(
                    kind="convolution",
                    inputs=channels,
                    outputs=features,
                    side=side,
                    kernel=kernel,
                    padding=padding,
                    normalize=config.batch_norm,
                    activation=config.activation,
                    pool=pool,
                    bias=config.bias and not config.batch_norm,
                )
            )
            channels, side = features, side // 2 if pool else side
    flat = channels * side**2 if config.stages else channels
    widths = (flat, *config.hidden, config.rep_dim)
    return layers + dense_layers(widths, config.activation, config.bias)


def dense_layers(widths: Sequence[int], activation: str, bias: bool) -> list[Layer]:
    """Returns dense layers from each width to the next, activated but for the last."""
    last = len(widths) - 2
    return [
        Layer("dense", *pair, bias=bias, activation="linear" if place == last else activation)
        for place, pair in enumerate(itertools.pairwise(widths))
    ]


def decoder_layers(config: NetworkConfig, shape: ImageShape) -> list[Layer]:
    """Returns the layers of the decoder of one of the networks measured here.

    Raises:
      BenchmarkError: it has none.
    """
    five = functools.partial(
        Layer, "convolution", kernel=5, normalize=True, activation=config.activation
    )
    if config.name == "mnist_lenet":
        return [
            Layer("reshape", 32, 2, 4, activation=config.activation),
            five(2, 4, side=8, padding=2, upsample=True),
            five(4, 8, side=14, padding=1, upsample=True),
            five(8, 1, 28, padding=2, upsample=True, normalize=False, activation="sigmoid"),
        ]
    if config.name == "cifar10_lenet":
        return [
            Layer("reshape", 128, 8, 4, activation=config.activation),
            five(8, 128, side=4, padding=2),
            five(128, 64, side=8, padding=2, upsample=True),
            five(64, 32, side=16, padding=2, upsample=True),
            five(32, 3, side=32, padding=2, upsample=True, activation="sigmoid"),
        ]
    if config.is_dense:
        widths = (config.rep_dim, *reversed(config.hidden), shape[0])
        mirrored = dense_layers(widths, config.activation, config.bias)
        return [Layer("activation", activation=config.activation), *mirrored]
    raise BenchmarkError(f"network {config.name} has no decoder: leave out objective autoencoder")


def network_layers(config: NetworkConfig, shape: ImageShape, objective: str) -> list[Layer]:
    """Returns all layers that an objective trains."""
    layers = encoder_layers(config, shape)
    return layers + decoder_layers(config, shape) if objective == "autoencoder" else layers


def random_images(name: str, count: int) -> npt.NDArray[np.float32]:
    """Returns input of a network of `SUBJECTS` by name, in [0, 1], `[count, ...]`."""
    shape = (count, *SUBJECTS[name].shape)
    return np.random.default_rng(0).random(shape, np.float32)


def timed(work: Callable[[], Any]) -> float:
    """Returns the seconds that some work takes; reads the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def torch_version() -> str | None:
    """Returns PyTorch's version, None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.metadata.version("torch")


def cores() -> int:
    """Returns how many cores this process may use; asks the system."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Returns the processor's name as the system tells it."""
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def format_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns, the first two to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, lines)])
