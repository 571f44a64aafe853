"""From normal images to a model and its scores."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.deep_svdd import (
        CollapseWarning,
        ConstantFeatureWarning,
        History,
        Images,
        Scores,
        TrainingError,
        combine_distances,
        default_alarm_rate,
        fit_detector,
        held_out_count,
        held_out_mask,
        make_model,
        member_distances,
        network_values,
        preprocessing_of,
        score_images,
        states_of,
    )
    from deepsvdd_jax.detectors.untrained import untrained_model

__getattr__, __dir__ = attach(
    __name__,
    {
        "deep_svdd": (
            "CollapseWarning",
            "ConstantFeatureWarning",
            "History",
            "Images",
            "Scores",
            "TrainingError",
            "combine_distances",
            "default_alarm_rate",
            "fit_detector",
            "held_out_count",
            "held_out_mask",
            "make_model",
            "member_distances",
            "network_values",
            "preprocessing_of",
            "score_images",
            "states_of",
        ),
        "untrained": ("untrained_model",),
    },
)

__all__ = [
    "CollapseWarning",
    "ConstantFeatureWarning",
    "History",
    "Images",
    "Scores",
    "TrainingError",
    "combine_distances",
    "default_alarm_rate",
    "fit_detector",
    "held_out_count",
    "held_out_mask",
    "make_model",
    "member_distances",
    "network_values",
    "preprocessing_of",
    "score_images",
    "states_of",
    "untrained_model",
]
