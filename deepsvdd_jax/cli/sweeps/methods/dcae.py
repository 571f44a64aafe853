"""DCAE: the autoencoder phase of a recipe, trained and scored by itself."""

import dataclasses

from deepsvdd_jax import recipes
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod
from deepsvdd_jax.configs import RunConfig


def _autoencoder(base: RunConfig) -> RunConfig:
    phase = base.pretraining or recipes.default_autoencoder(base.training)
    return dataclasses.replace(base, pretraining=None, training=phase)


METHOD = DeepMethod("dcae", "DCAE", _autoencoder, place=0)
