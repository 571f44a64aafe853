"""Parts that recipes share: the autoencoder phase and the preprocessing."""

import dataclasses

from deepsvdd_jax.configs import (
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)


def autoencoder(
    optimizer: OptimizerConfig,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    whole_batches: bool = False,
) -> PhaseConfig:
    return PhaseConfig(
        objective=ObjectiveConfig(kind="reconstruction"),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        whole_batches=whole_batches,
    )


def default_autoencoder(training: PhaseConfig) -> PhaseConfig:
    """Returns an autoencoder phase with the solver, length and batch size of a training phase."""
    objective = ObjectiveConfig(kind="reconstruction")
    if isinstance(training.objective, ObjectiveConfig):
        error = training.objective.reconstruction_error
        objective = dataclasses.replace(objective, reconstruction_error=error)
    return dataclasses.replace(
        training, objective=objective, stop_below=None, augment=None, synthetic_anomalies=None
    )


def without_pretraining(config: RunConfig) -> RunConfig:
    """Returns a recipe without its autoencoder: drawn as torch draws a network that has none."""
    network = config.network
    if network.initializer == "torch_xavier":
        network = dataclasses.replace(network, initializer="torch")
    return dataclasses.replace(config, pretraining=None, network=network)


def theano_autoencoder_decay(dataset: str) -> float:
    return 1e-3 if dataset in ("mnist", "fashion_mnist", "kmnist") else 1e-6


def published_preprocessing(dataset: str) -> PreprocessingConfig:
    # GTSRB is used as it is: pixels in [0, 1].
    if dataset == "gtsrb":
        return PreprocessingConfig(min_max=False)
    return PreprocessingConfig(contrast="l1", min_max=True)
