"""Named networks and recipes: the published settings as configurations.

Figures in the docstrings are AUROC in percent. *Paper* figures are quoted from memory of the paper
but for the one-class means; `docs/experiments.md` has this project's own.
"""

from collections.abc import Callable

from deepsvdd_jax.configs import ConfigError, RunConfig
from deepsvdd_jax.recipes.cifar10 import cifar10
from deepsvdd_jax.recipes.deep_sad import deep_sad
from deepsvdd_jax.recipes.hsc import hsc
from deepsvdd_jax.recipes.icml2018 import icml2018
from deepsvdd_jax.recipes.itu import itu
from deepsvdd_jax.recipes.networks import ImageShape
from deepsvdd_jax.recipes.pytorch import pytorch
from deepsvdd_jax.recipes.small_images import small_images
from deepsvdd_jax.recipes.tables import tables
from deepsvdd_jax.recipes.theano import theano


def preset(name: str, dataset: str, image_shape: ImageShape) -> RunConfig:
    """Returns the recipe of a preset for a data set.

    Args:
      name: one of `RECIPES`.
      dataset: name of the data set.
      image_shape: of one image `(height, width, channels)`, or `(features,)`.

    Raises:
      ConfigError: no such preset, or none for this data.
    """
    if name not in RECIPES:
        raise ConfigError(f"preset is {name!r}; allowed: {', '.join(RECIPES)}")
    return RECIPES[name](dataset, image_shape)


def _auto(dataset: str, image_shape: ImageShape) -> RunConfig:
    if dataset in ("mnist", "fashion_mnist", "kmnist", "cifar10", "gtsrb"):
        return icml2018(dataset, image_shape)
    return small_images(dataset, image_shape) if len(image_shape) == 3 else tables(image_shape)


RECIPES: dict[str, Callable[[str, ImageShape], RunConfig]] = {
    "auto": _auto,
    "icml2018": icml2018,
    "pytorch": pytorch,
    "theano": theano,
    "itu": itu,
    "deep_sad": deep_sad,
    "hsc": hsc,
    "cifar10": cifar10,
}

# Those of this project.
PRESETS = tuple(RECIPES)
