"""DCAE: the autoencoder phase of a recipe, trained and scored by itself."""

import dataclasses

from deepsvdd_jax import recipes
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod
from deepsvdd_jax.configs import RunConfig


def _autoencoder(base: RunConfig) -> RunConfig:
    phase = base.pretraining or recipes.default_autoencoder(base.training)
    return dataclasses.replace(base, pretraining=None, training=phase)


def _unread(path: str, base: RunConfig) -> str | None:
    if not path.startswith("training.") or path == "training.objective.reconstruction_error":
        return None
    # An autoencoder without settings of its own takes those of the training phase.
    others = ("training.stop_below", "training.augment", "training.synthetic_anomalies")
    if base.pretraining is None and not path.startswith(("training.objective.", *others)):
        return None
    return "is the autoencoder, which does not read it"


METHOD = DeepMethod("dcae", "DCAE", _autoencoder, place=0, unread=_unread)
