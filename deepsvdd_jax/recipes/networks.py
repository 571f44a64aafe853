"""Networks by name, and the network that each recipe takes for each kind of image."""

from deepsvdd_jax.configs import ConfigError, NetworkConfig

_CIFAR = ((32,), (64,), (128,))

NETWORKS: dict[str, NetworkConfig] = {
    network.name: network
    for network in (
        NetworkConfig("mnist_lenet", ((8,), (4,)), rep_dim=32, decoder_layout="mnist_lenet"),
        NetworkConfig(
            "mnist_lenet_wide",
            ((256,), (256,), (128,)),
            hidden=(320,),
            rep_dim=32,
            autoencoder_norm=True,
            decoder_layout="mnist_lenet_wide",
        ),
        NetworkConfig("cifar10_lenet", _CIFAR, rep_dim=128, decoder_layout="cifar10_lenet"),
        NetworkConfig(
            "cifar10_lenet_small",
            ((16,), (32,), (64,)),
            rep_dim=128,
            decoder_layout="cifar10_lenet",
        ),
        NetworkConfig(
            "cifar10_lenet_deep",
            ((16, 16), (32, 32), (64, 64)),
            rep_dim=128,
            decoder_layout="cifar10_lenet_deep",
        ),
        NetworkConfig(
            "cifar10_lenet_elu",
            _CIFAR,
            rep_dim=128,
            activation="elu",
            decoder_layout="cifar10_lenet",
        ),
        NetworkConfig(
            "gtsrb_lenet",
            ((16,), (32,)),
            hidden=(64,),
            hidden_style="activation",
            rep_dim=32,
            decoder_layout="gtsrb_lenet",
        ),
        NetworkConfig(
            "fashion_mnist_lenet",
            ((16,), (32,)),
            hidden=(128,),
            hidden_style="batch_norm",
            rep_dim=64,
            decoder_layout="fashion_mnist_lenet",
        ),
        NetworkConfig(
            "itu_cnn",
            stages=((32,), (64,)),
            rep_dim=128,
            kernel_size=3,
            padding="valid",
            activation="relu",
            batch_norm=False,
            bias=True,
            # The report's decay term is 0.00056 at the start, which is Glorot without a gain.
            initializer="glorot_unit",
        ),
        NetworkConfig("fcdd", _CIFAR, bias=True, affine=True, fully_convolutional=True),
        NetworkConfig(
            "fcdd_64", ((16,), (32,), (64, 64)), bias=True, affine=True, fully_convolutional=True
        ),
        NetworkConfig(
            "fcdd_128",
            ((16,), (32,), (64,), (64,)),
            bias=True,
            affine=True,
            fully_convolutional=True,
        ),
        NetworkConfig("lenet", stages=((32,), (16,)), rep_dim=32, kernel_size=3),
        NetworkConfig("mlp", stages=(), hidden=(128, 64), rep_dim=32, batch_norm=False),
    )
}

ImageShape = tuple[int, ...]


def named_network(name: str) -> NetworkConfig:
    """Returns the network of a name; raises ConfigError with the allowed names."""
    if name not in NETWORKS:
        raise ConfigError(f"network is {name!r}; allowed: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def published_network(dataset: str, image_shape: ImageShape, recipe: str) -> NetworkConfig:
    """Returns the network that a published recipe has for a data set."""
    names = {
        "mnist": "mnist_lenet",
        "kmnist": "mnist_lenet",
        "fashion_mnist": "fashion_mnist_lenet",
        "cifar10": "cifar10_lenet",
        "gtsrb": "gtsrb_lenet",
    }
    if dataset in names:
        return NETWORKS[names[dataset]]
    if len(image_shape) != 3:
        raise ConfigError(f"preset {recipe} is for images; data set {dataset} is a table")
    return NETWORKS["lenet"]
