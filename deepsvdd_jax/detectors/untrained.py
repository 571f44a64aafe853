"""The network before any training as a model, to compare a trained one with."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import preprocessing, runs
from deepsvdd_jax.configs import DetectorConfig
from deepsvdd_jax.detectors import deep_svdd
from deepsvdd_jax.detectors.inputs import network_values
from deepsvdd_jax.detectors.scores import member_distances
from deepsvdd_jax.io.models import Model


def untrained_model(config: DetectorConfig, images: npt.ArrayLike) -> Model:
    """Returns the members with drawn weights, without a threshold.

    Center, batch statistics, preprocessing and the members' units come from the images, as those of
    a model do from its training images.

    Args:
      config: of the detector; no phase of it is run.
      images: `[n, ...]`, normal, those that training would get.
    """
    values = network_values(images)
    fitted = preprocessing.fit(config.run.preprocessing, values)
    inputs = preprocessing.apply(fitted, values)
    states = [
        runs.init_run(jax.random.key(seed % 2**32), config.run, jnp.asarray(inputs))
        for seed in config.seeds
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    model = deep_svdd.make_model(config.run, fitted, stacked, values.shape[1:])
    distances = member_distances(model, values)
    return model._replace(train_means=distances.mean(axis=1, dtype=np.float64))
