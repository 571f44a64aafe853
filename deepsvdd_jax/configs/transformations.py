"""Settings of the classifier of geometric transformations."""

import dataclasses
from typing import Literal

from deepsvdd_jax.configs.objective import BaseObjectiveConfig, register_objective_config


@dataclasses.dataclass(frozen=True)
class TransformationsConfig(BaseObjectiveConfig):
    """Settings of the classifier of geometric transformations: those that every objective has."""

    kind: Literal["transformations"] = "transformations"

    @property
    def has_center(self) -> bool:
        return False

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def logits(self) -> int:
        """Four turns of an image, and four of the image with its quarters exchanged."""
        return 8

    @property
    def turns_images(self) -> bool:
        return True


register_objective_config(TransformationsConfig)
