"""The inputs and outputs of a program of runs, and the settings of its phases."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepsvdd_jax import objectives, preprocessing, training
from deepsvdd_jax.configs import ConfigError, PhaseConfig, RunConfig
from deepsvdd_jax.networks import Network, Params
from deepsvdd_jax.objectives import Objective
from deepsvdd_jax.training import EpochInfo, Hyperparameters, RunData, TrainState

# Epochs of history that one call can hold; a call runs at most this many.
MOST_EPOCHS_PER_CALL = 25

PHASES = ("pretraining", "training")


class Run(NamedTuple):
    """One run of a program; stacked, every array has a leading axis of runs.

    Attributes:
      key: all draws of the run come from it.
      data: which images it trains on, and their scaling.
      pretraining: traced settings of the autoencoder phase (of the training phase without one).
      training: traced settings of the evaluated phase.
      weights: parameters that replace drawn ones, a nested dict with any part of the network's;
        under `statistics` running statistics, under `center` and `squared_radius` a sphere that
        training starts with instead of the one that the training set gives.
    """

    key: Array
    data: RunData
    pretraining: Hyperparameters
    training: Hyperparameters
    weights: Params


class Outcome(NamedTuple):
    """The result of a finished run; distances are d, not d - R^2.

    Attributes:
      state: the final state; its squared radius comes from the whole training set.
      train_distances: `[n]`, of the run's images in the order of its indices, padding included.
      test_distances: `[n_test]`.
      collapse_ratio: see `scoring.collapse_ratio`; near 0 the network has collapsed.
      fraction_outside: share of the run's images with d > R^2, R being the radius that training
        ended with.
    """

    state: TrainState
    train_distances: Array
    test_distances: Array
    collapse_ratio: Array
    fraction_outside: Array

    @property
    def spread(self) -> Array:
        """The former name of `collapse_ratio`."""
        return self.collapse_ratio

    @property
    def outside(self) -> Array:
        """The former name of `fraction_outside`."""
        return self.fraction_outside


class Progress(NamedTuple):
    """The state of a program between two calls: everything that it needs to continue.

    Attributes:
      phase: `pretraining` or `training`.
      epoch: epochs of that phase that are done.
      state: stacked.
      untrained_distances: `[runs, n_test]`, test distances before any training.
      history: a phase's stacked `EpochInfo` so far, `[runs, epochs, ...]` numpy arrays.
    """

    phase: str
    epoch: int
    state: TrainState
    untrained_distances: Array
    history: dict[str, EpochInfo]


def phase_config(config: RunConfig, name: str) -> PhaseConfig:
    """Returns the settings of a phase, one of `PHASES`, that the configuration has."""
    phase = config.pretraining if name == "pretraining" else config.training
    assert phase is not None
    return phase


def autoencoder_config(config: RunConfig) -> RunConfig:
    """Returns the run that a pretraining is: the autoencoder phase, trained and scored by itself.

    With the same key it draws and trains what the pretraining of `config` does, to the bit.
    """
    assert config.pretraining is not None
    return dataclasses.replace(config, pretraining=None, training=config.pretraining)


def check_image_count(config: RunConfig, count: int) -> None:
    """Refuses too few training images: a run needs two for its statistics, a phase of whole
    batches one batch.

    Raises:
      ConfigError: says how many there are and how many are needed.
    """
    for phase in (config.pretraining, config.training):
        least = phase.batch_size if phase is not None and phase.whole_batches else 2
        if count < least:
            raise ConfigError(f"{count} training images; at least {least} are needed")


def check_radius(config: RunConfig) -> None:
    """Refuses a soft boundary that would have no radius to its end, or fail for want of one.

    Raises:
      ConfigError: names the settings, and says which ones would work.
    """
    config.training.objective.check_epochs(config.training.epochs)


def phase_hyperparameters(run: Run, phase_name: str) -> Hyperparameters:
    """Returns the traced settings of a phase."""
    return run.pretraining if phase_name == "pretraining" else run.training


class Phase(NamedTuple):
    """The static parts of a phase: its name, one of `PHASES`, its settings and the network."""

    name: str
    config: PhaseConfig
    network: Network

    @property
    def objective(self) -> Objective:
        """What the phase minimises."""
        return objectives.objective(self.config.objective)

    def settings(self, run: Run) -> Hyperparameters:
        """Returns a run's traced settings of the phase."""
        return phase_hyperparameters(run, self.name)


def whole_run(key: Array, config: RunConfig, images: Array | np.ndarray) -> Run:
    """Returns a run on all of `images`, which are network input already."""
    ones = (1,) * (images.ndim - 1)
    count = images.shape[0]
    data = training.run_data(np.arange(count), count, *preprocessing.no_scaling(ones))
    return Run(key, data, *phase_settings(config), {})


def phase_settings(config: RunConfig) -> tuple[Hyperparameters, Hyperparameters]:
    """Returns the traced settings of pretraining and training, scalars."""
    trained = training.default_hyperparameters(config.training)
    if config.pretraining is None:
        return trained, trained
    return training.default_hyperparameters(config.pretraining), trained


def stack_runs(runs: list[Run]) -> Run:
    """Stacks runs along a new leading axis, filling indices up to the longest."""
    return stack(runs, jnp.stack([run.key for run in runs]))


def stack(runs: list[Run], keys: Array) -> Run:
    """Stacks all but the keys, on the host: every operation of jax's own would be compiled."""
    longest = max(run.data.indices.shape[0] for run in runs)

    def filled(run: Run) -> dict[str, Any]:
        missing = longest - run.data.indices.shape[0]

        def pad(values: Any) -> Any:
            return np.pad(np.asarray(values), (0, missing))

        return run._asdict() | {"key": None, "data": run.data.of_images(pad)}

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(filled, runs))
    return Run(**stacked | {"key": keys})
