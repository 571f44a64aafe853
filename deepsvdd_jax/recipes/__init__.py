"""Published recipes, one a file, and the networks that they name."""

from deepsvdd_jax.recipes.deep_sad import deep_sad
from deepsvdd_jax.recipes.icml2018 import icml2018
from deepsvdd_jax.recipes.itu import itu
from deepsvdd_jax.recipes.networks import NETWORKS, ImageShape, named_network
from deepsvdd_jax.recipes.parts import default_autoencoder, without_pretraining
from deepsvdd_jax.recipes.pytorch import pytorch
from deepsvdd_jax.recipes.registry import PRESETS, RECIPES, preset
from deepsvdd_jax.recipes.small_images import small_images
from deepsvdd_jax.recipes.tables import tables
from deepsvdd_jax.recipes.theano import theano

__all__ = [
    "ImageShape",
    "NETWORKS",
    "PRESETS",
    "RECIPES",
    "deep_sad",
    "default_autoencoder",
    "icml2018",
    "itu",
    "named_network",
    "preset",
    "pytorch",
    "small_images",
    "tables",
    "theano",
    "without_pretraining",
]
