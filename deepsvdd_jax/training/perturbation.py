"""Changes of a batch before a step trains on it: augmentation, synthetic anomalies."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax.configs import ConfigError, PhaseConfig
from deepsvdd_jax.objectives import Batch
from deepsvdd_jax.training import augmentation, synthetic


def check_images(phase: PhaseConfig, image_shape: tuple[int, ...], has_masks: bool = False) -> None:
    """Refuses to change tables as if they were images, to turn images that are not square, and
    to learn from masks where there are none.

    Args:
      phase: static.
      image_shape: of the images.
      has_masks: whether known anomalies have some.

    Raises:
      ConfigError: names the setting.
    """
    if phase.objective.needs_masks and not (phase.synthetic_anomalies or has_masks):
        raise ConfigError(
            "map_masks learns from the masks of synthetic anomalies, or of labelled defects, and "
            "there are none; give synthetic_anomalies, as mix, or masks beside the defects"
        )
    if len(image_shape) == 3:
        _check_square(phase, image_shape)
        return
    if phase.objective.turns_images:
        raise ConfigError(f"objective {phase.objective.kind} is for images; the data are a table")
    for name in ("augment", "synthetic_anomalies"):
        if getattr(phase, name):
            raise ConfigError(f"{name} is for images; the data are a table")


def _check_square(phase: PhaseConfig, image_shape: tuple[int, ...]) -> None:
    height, width, _ = image_shape
    if height == width:
        return
    what = f"turns square images, and these are {height} x {width}; give a square --image_size"
    if phase.objective.turns_images:
        raise ConfigError(f"objective {phase.objective.kind} {what}")
    if phase.synthetic_anomalies in ("rotate", "whole"):
        raise ConfigError(f"synthetic_anomalies {phase.synthetic_anomalies} {what}, or shuffle")


def perturbed(phase: PhaseConfig, key: Array, batch: Batch) -> Batch:
    """Returns a batch whose images are changed as the phase says; padding stays padding.

    Every other image that is no known anomaly becomes a synthetic one, after its augmentation.

    Args:
      phase: static.
      key: of the step.
      batch: with labels.
    """
    key_augment, key_anomalies = jax.random.split(key)
    images, labels, regions = batch.images, batch.labels, batch.regions
    if phase.augment:
        images = augmentation.augment(phase.augment, key_augment, images)
        if regions is not None:
            regions = augmentation.move(phase.augment, key_augment, regions)
    if phase.synthetic_anomalies:
        assert labels is not None
        made = synthetic.defects(phase.synthetic_anomalies, key_anomalies, images)
        normal = labels >= 0
        chosen = normal & (jnp.cumsum(normal) % 2 == 0)
        images = jnp.where(chosen[:, None, None, None], made.images, images)
        labels = jnp.where(chosen, -1, labels)
        known = False if regions is None else regions
        regions = jnp.where(chosen[:, None, None], made.regions, known)
    return batch._replace(images=images, labels=labels, regions=regions)
