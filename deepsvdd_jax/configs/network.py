"""The layers of an encoder and its decoder."""

import dataclasses
from typing import Literal

from deepsvdd_jax.configs.checks import (
    ConfigError,
    check_count,
    check_literals,
    check_most,
    check_not_negative,
    check_range,
)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """An encoder of convolution stages and dense layers, and the decoder that mirrors it.

    Attributes:
      name: the name it is known by.
      stages: output channels of the convolutions of each stage; a 2x2 max-pool ends a stage.
      hidden: widths of the dense layers between the last stage and the representation.
      hidden_style: layers after each of them: none, the activation, or batch normalisation and the
        activation.
      rep_dim: width D of the representation.
      kernel_size: side of every convolution kernel.
      padding: `same` or `valid`.
      activation: activation function of the stages (and of hidden layers that have one).
      leaky_slope: negative slope of the leaky ReLU.
      batch_norm: normalise after each convolution.
      affine: trainable scale and offset of the batch normalisation (an offset is a bias).
      bias: bias terms in convolutions and dense layers. With them the hypersphere can collapse
        (Ruff et al. 2018, proposition 2).
      initializer: `glorot` (uniform; gain sqrt(2 / (1 + 0.01^2)) for convolutions, 1 for dense),
        `glorot_unit` (gain 1 for all), `torch` (uniform, +-1/sqrt(fan_in), where a transposed
        convolution, as of the `pytorch` decoder, counts the features that go out) or
        `torch_xavier`: dense layers as `torch`, convolutions as `glorot`, with gain 1 before an ELU
        (the autoencoders of CIFAR-10 in the authors' PyTorch code).
      decoder: `theano` or `pytorch`: where the decoder of a layout has batch normalisation, before
        its sigmoid or after its code, and from which fan `torch` draws (see `initializer`).
      fully_convolutional: a 1x1 convolution to one channel in place of the dense layers, no pool
        after the last stage: the representation is a map, row by row, whose size follows from the
        images'; None is False.
      dropout: rate of the dropout; 0 is none.
      dropout_on: before the `dense` layers only, or before `all` stages too, each once; the images
        themselves are dropped at 0.2 at most (Theano code: 0.5, and 0.2 of the images).
      autoencoder_norm: batch normalisation without activation after each hidden dense layer, in the
        autoencoder only: the same encoder without a decoder has none (the Theano code's
        `mnist_lenet_wide`). `batch_norm=False` turns it off. None is False.
      decoder_layout: `mirror` is the encoder backwards, `mirror_doubled` the same with its first
        small image doubled; the others are the authors' decoders of those names, where image size
        and representation are those of the network that they are of, and the mirror elsewhere.
    """

    name: str = "lenet"
    stages: tuple[tuple[int, ...], ...] = ((32,), (16,))
    hidden: tuple[int, ...] = ()
    hidden_style: Literal["linear", "activation", "batch_norm"] = "linear"
    rep_dim: int = 32
    kernel_size: int = 5
    padding: Literal["same", "valid"] = "same"
    activation: Literal["leaky_relu", "relu", "elu"] = "leaky_relu"
    leaky_slope: float = 0.01
    batch_norm: bool = True
    affine: bool = False
    bias: bool = False
    initializer: Literal["glorot", "glorot_unit", "torch", "torch_xavier"] = "glorot"
    decoder: Literal["theano", "pytorch"] = "theano"
    dropout: float = 0.0
    dropout_on: Literal["dense", "all"] = "dense"
    fully_convolutional: bool | None = None
    autoencoder_norm: bool | None = None
    decoder_layout: Literal[
        "mirror",
        "mirror_doubled",
        "mnist_lenet",
        "mnist_lenet_wide",
        "fashion_mnist_lenet",
        "cifar10_lenet",
        "cifar10_lenet_deep",
        "gtsrb_lenet",
    ] = "mirror"

    def __post_init__(self) -> None:
        check_literals(self)
        check_count("rep_dim", self.rep_dim)
        check_count("kernel_size", self.kernel_size)
        # The pool before the activation needs a monotone one, which a negative slope is not.
        check_not_negative("leaky_slope", self.leaky_slope)
        check_range("dropout", self.dropout, 0.0, 1.0, right_open=True)
        check_most("the widest layer", max(self.hidden, default=0))
        widths = [width for stage in self.stages for width in stage] + list(self.hidden)
        if any(width < 1 for width in widths) or any(not stage for stage in self.stages):
            raise ConfigError(f"network {self.name}: every layer needs a width of at least 1")
        if self.fully_convolutional and (self.hidden or not self.stages):
            raise ConfigError(
                f"network {self.name}: fully_convolutional needs stages and no hidden layers"
            )

        if self.autoencoder_norm and not (self.hidden and self.stages):
            raise ConfigError(
                f"network {self.name}: autoencoder_norm needs stages and hidden layers"
            )

    @property
    def pools(self) -> int:
        """How often an image is halved."""
        return max(0, len(self.stages) - bool(self.fully_convolutional))

    @property
    def receptive_field(self) -> int:
        """Side, in pixels, of the square that a value after the last stage depends on."""
        field, stride = 1, 1
        for number, stage in enumerate(self.stages):
            field += len(stage) * (self.kernel_size - 1) * stride
            if number < self.pools:
                field, stride = field + stride, stride * 2
        return field

    @property
    def map_grid(self) -> tuple[float, int]:
        """The centers of the receptive fields after the last stage, in pixels: the first of them, 0
        being the center of the first pixel, and the distance from one to the next."""
        before = 0.0 if self.padding == "valid" else float((self.kernel_size - 1) // 2)
        first, stride = 0.0, 1
        for number, stage in enumerate(self.stages):
            first += len(stage) * ((self.kernel_size - 1) / 2 - before) * stride
            if number < self.pools:
                first, stride = first + stride / 2, stride * 2
        return first, stride

    def map_sides(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Returns height and width after the last stage for images of a given height and width; one
        of them is below 1 where the images are too small."""
        for number, stage in enumerate(self.stages):
            if self.padding == "valid":
                sides = tuple(side - len(stage) * (self.kernel_size - 1) for side in sides)
            if number < self.pools:
                sides = tuple(side // 2 for side in sides)
        return sides

    @property
    def is_dense(self) -> bool:
        """True for a network of dense layers only, which takes `[n, features]`."""
        return not self.stages

    @property
    def has_bias_terms(self) -> bool:
        """Whether some layer adds a trained offset, with which the hypersphere can collapse."""
        return self.bias or (self.batch_norm and self.affine)
